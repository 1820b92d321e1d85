package dev.bigvit.edge;

/** An input or output: its name, and its shape in floats. */
public final class Port {
    private final String name;
    private final int[] shape;

    Port(String name, int... shape) {
        this.name = name;
        this.shape = shape;
    }

    public String getName() {
        return name;
    }

    public int[] getShape() {
        return shape.clone();
    }

    /** How many floats that is. */
    public int getCount() {
        int count = 1;
        for (int length : shape) {
            count *= length;
        }
        return count;
    }

    @Override
    public String toString() {
        return name + java.util.Arrays.toString(shape);
    }
}
