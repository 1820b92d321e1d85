package dev.bigvit.edge;

import java.util.Locale;

/** A class, by its number and name, and its probability in 0..1. */
public final class Guess {
    private final int index;
    private final String label;
    private final double probability;

    Guess(int index, String label, double probability) {
        this.index = index;
        this.label = label;
        this.probability = probability;
    }

    public int getIndex() {
        return index;
    }

    public String getLabel() {
        return label;
    }

    public double getProbability() {
        return probability;
    }

    @Override
    public String toString() {
        return String.format(Locale.ROOT, "%s  %.2f%%", label, 100 * probability);
    }
}
