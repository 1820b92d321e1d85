package dev.bigvit.edge;

import java.util.Arrays;

/** Why something cannot be: what was met, what was expected, and what to do. */
public final class BveException extends RuntimeException {
    private static final long serialVersionUID = 1;

    private final String met;
    private final String expected;
    private final String action;

    BveException(String met, String expected, String action) {
        super(met + "; expected " + expected + (action.isEmpty() ? "" : "; " + action));
        this.met = met;
        this.expected = expected;
        this.action = action;
    }

    /** Of the core's own words: what was met, what was expected and what to do, each of PART_BYTES. */
    static BveException explain(byte[] error) {
        String expected = readPart(error, 1);
        return new BveException(
                readPart(error, 0), expected.isEmpty() ? "what the library can take" : expected, readPart(error, 2));
    }

    private static String readPart(byte[] error, int part) {
        return Bve.decode(Arrays.copyOfRange(error, part * Bve.PART_BYTES, (part + 1) * Bve.PART_BYTES));
    }

    public String getMet() {
        return met;
    }

    public String getExpected() {
        return expected;
    }

    /** Empty where there is nothing to say. */
    public String getAction() {
        return action;
    }
}
