package dev.bigvit.edge;

import java.io.Closeable;
import java.io.File;
import java.util.ArrayList;
import java.util.Collections;
import java.util.List;
import java.util.Objects;

/**
 * A .bve file: its weights, mapped once for all sessions.
 *
 * <p>May be used by several threads at once. Its memory is given back when it and all of its sessions are closed.
 */
public final class Model implements Closeable {
    private final long program;
    private final List<String> labels;
    private final float[] keeps;
    private int users = 1; // itself, and its sessions; at 0 there is no program
    private boolean closed;

    private Model(long program) {
        this.program = program;
        List<String> found = new ArrayList<String>();
        for (byte[] label = Bve.label(program, 0); label != null; label = Bve.label(program, found.size())) {
            found.add(Bve.decode(label));
        }
        labels = Collections.unmodifiableList(found);
        keeps = Bve.keeps(program);
    }

    /** Maps a file, which must not be changed in place while it is open. BveException if it is no whole .bve file. */
    public static Model open(File file) {
        if (file.getPath().indexOf('\0') >= 0) {
            throw new BveException("a path with a zero in it", "the path of a .bve file", "check it");
        }
        byte[] error = new byte[Bve.ERROR_BYTES];
        return wrap(Bve.open(Bve.encode(file.getPath()), error), error);
    }

    /** Of a file's bytes, such as an asset's, which are copied. BveException as of a file. */
    public static Model open(byte[] bytes) {
        byte[] error = new byte[Bve.ERROR_BYTES];
        return wrap(Bve.openBytes(Objects.requireNonNull(bytes), error), error);
    }

    private static Model wrap(long program, byte[] error) {
        if (program == 0) {
            throw BveException.explain(error);
        }
        return new Model(program);
    }

    /** The classes' names; empty where the file names none. */
    public List<String> getLabels() {
        return labels;
    }

    /** The keep ratios that it can be started with, the first's being the default; 0 of a model without one. */
    public float[] getKeeps() {
        return keeps.clone();
    }

    /** What the file says of itself, as JSON: entries, precision, metadata. */
    public synchronized String describe() {
        checkOpen();
        return Bve.decode(Bve.describe(program));
    }

    /** Reads all weights and compares them with their checksums. BveException names the first damaged one. */
    public void verify() {
        byte[] error = new byte[Bve.ERROR_BYTES];
        long held = hold();
        try {
            if (!Bve.verify(held, error)) {
                throw BveException.explain(error);
            }
        } finally {
            release();
        }
    }

    /** A session of the first keep ratio, on one thread. */
    public Session start() {
        return start(0, 1);
    }

    /** A session of that keep ratio, on one thread. */
    public Session start(float keep) {
        return start(keep, 1);
    }

    /** A session of that keep ratio (0: the first) on 1 or more threads. BveException if there is no such ratio. */
    public Session start(float keep, int threads) {
        byte[] error = new byte[Bve.ERROR_BYTES];
        long session = 0;
        long held = hold();
        try {
            session = Bve.start(held, keep, threads, error);
            if (session == 0) {
                throw BveException.explain(error);
            }
            return new Session(this, session);
        } finally {
            if (session == 0) {
                release();
            }
        }
    }

    /** Starts no sessions afterwards; those that there are go on. Closing again does nothing. */
    @Override
    public void close() {
        synchronized (this) {
            if (closed) {
                return;
            }
            closed = true;
        }
        release();
    }

    private synchronized long hold() {
        checkOpen();
        users++;
        return program;
    }

    synchronized void release() {
        users--;
        if (users == 0) {
            Bve.close(program);
        }
    }

    private void checkOpen() {
        if (closed) {
            throw new BveException("a model that was closed", "an open one", "open it again");
        }
    }
}
