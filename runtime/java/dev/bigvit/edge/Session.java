package dev.bigvit.edge;

import android.graphics.Bitmap;
import java.io.Closeable;
import java.nio.ByteOrder;
import java.nio.FloatBuffer;
import java.util.ArrayList;
import java.util.Collections;
import java.util.Comparator;
import java.util.List;
import java.util.Objects;

/**
 * A model at one keep ratio, ready to run; all memory is allocated when it is started.
 *
 * <p>Calls from several threads wait for one another: for images side by side, start a session for each thread.
 */
public final class Session implements Closeable {
    private final Model model;
    private final Port input;
    private final Port output;
    private long session; // 0: closed

    Session(Model model, long session) {
        this.model = model;
        this.session = session;
        int size = (int) Math.round(Math.sqrt(Bve.countImage(session) / 3.0));
        input = new Port("image", 1, 3, size, size);
        output = new Port("logits", 1, Bve.countLogits(session));
    }

    public Port getInput() {
        return input;
    }

    public Port getOutput() {
        return output;
    }

    /** One image as the model takes it, to its logits. BveException on another count of floats. */
    public synchronized float[] run(float[] image) {
        byte[] error = new byte[Bve.ERROR_BYTES];
        float[] logits = new float[output.getCount()];
        if (!Bve.run(open(), Objects.requireNonNull(image), logits, error)) {
            throw BveException.explain(error);
        }
        return logits;
    }

    /**
     * The same without a copy: from a direct buffer's position to its limit, into another's. Positions stay.
     * BveException on buffers that are not direct or not of the native order, and on other counts.
     */
    public synchronized void run(FloatBuffer image, FloatBuffer logits) {
        checkDirect(image);
        checkDirect(logits);
        if (logits.isReadOnly()) {
            throw new BveException("logits that are read-only", "a buffer to write to", "give the original");
        }
        byte[] error = new byte[Bve.ERROR_BYTES];
        if (!Bve.runDirect(
                open(), image, image.position(), image.remaining(), logits, logits.position(), logits.remaining(),
                error)) {
            throw BveException.explain(error);
        }
    }

    /**
     * A picture as the model takes it: cropped, resized and normalised as its file says.
     *
     * <p>It has to be upright. A bitmap with {@code Config.HARDWARE} has no pixels to read: copy it to ARGB_8888.
     */
    public float[] prepare(Bitmap bitmap) {
        int width = bitmap.getWidth();
        int height = bitmap.getHeight();
        int[] argb = new int[width * height];
        bitmap.getPixels(argb, 0, width, 0, 0, width, height); // sRGB, alpha not multiplied in
        return prepare(argb, width, height);
    }

    /** The same of width x height pixels, row by row, in sRGB: 0xAARRGGBB, alpha not multiplied in. */
    public synchronized float[] prepare(int[] argb, int width, int height) {
        if (width < 1 || height < 1 || (long) width * height > argb.length) {
            String met = "a picture of " + width + " x " + height + " pixels in " + argb.length + " numbers";
            throw new BveException(met, "a size of 1 or more each, and a number for each pixel", "give its size");
        }
        byte[] error = new byte[Bve.ERROR_BYTES];
        float[] image = new float[input.getCount()];
        if (!Bve.prepare(open(), argb, width, height, image, error)) {
            throw BveException.explain(error);
        }
        return image;
    }

    /**
     * A camera's frame, turned upright, cropped, resized and normalised as its file says, to its logits: the fast way, to a
     * level of 255 as prepare does it. BveException where the frame cannot be.
     */
    public synchronized float[] run(Frame frame) {
        byte[] error = new byte[Bve.ERROR_BYTES];
        float[] logits = new float[output.getCount()];
        if (!frame.set(open(), error) || !Bve.run(session, null, logits, error)) {
            throw BveException.explain(error);
        }
        return logits;
    }

    /** The classes of a camera's frame, the most probable first, so many at most. */
    public List<Guess> classify(Frame frame, int most) {
        return rank(run(frame), most);
    }

    /** The classes of a picture, the most probable first, so many at most. */
    public List<Guess> classify(Bitmap bitmap, int most) {
        return rank(run(prepare(bitmap)), most);
    }

    /** The same of pixels as {@link #prepare(int[], int, int)} takes them. */
    public List<Guess> classify(int[] argb, int width, int height, int most) {
        return rank(run(prepare(argb, width, height)), most);
    }

    /** Gives the memory back, after a run that is going on. Closing again does nothing. */
    @Override
    public synchronized void close() {
        if (session != 0) {
            Bve.stop(session);
            session = 0;
            model.release();
        }
    }

    private long open() {
        if (session == 0) {
            throw new BveException("a session that was closed", "an open one", "start another");
        }
        return session;
    }

    private static void checkDirect(FloatBuffer buffer) {
        if (!buffer.isDirect() || buffer.order() != ByteOrder.nativeOrder()) {
            throw new BveException(
                    buffer.isDirect() ? "a buffer of the other byte order" : "a buffer on Java's heap",
                    "a direct one of the native order",
                    "ByteBuffer.allocateDirect(bytes).order(ByteOrder.nativeOrder()).asFloatBuffer(), or give arrays");
        }
    }

    private List<Guess> rank(float[] logits, int most) {
        double highest = Double.NEGATIVE_INFINITY;
        for (float logit : logits) {
            if (Float.isNaN(logit) || Float.isInfinite(logit)) {
                throw new BveException("an answer with logits that are not finite", "numbers", "verify() the model");
            }
            highest = Math.max(highest, logit);
        }
        double sum = 0;
        for (float logit : logits) {
            sum += Math.exp(logit - highest);
        }
        List<String> labels = model.getLabels();
        List<Guess> guesses = new ArrayList<Guess>();
        for (int i = 0; i < logits.length; i++) {
            String label = i < labels.size() ? labels.get(i) : "class " + i;
            guesses.add(new Guess(i, label, Math.exp(logits[i] - highest) / sum));
        }
        Collections.sort(guesses, new Comparator<Guess>() {
            @Override
            public int compare(Guess one, Guess other) {
                return Double.compare(other.getProbability(), one.getProbability());
            }
        });
        return new ArrayList<Guess>(guesses.subList(0, Math.max(0, Math.min(most, guesses.size()))));
    }
}
