package dev.bigvit.edge;

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

    /** Of the core's own words: 'what was met, expected this; do that'. */
    static BveException explain(byte[] error) {
        String text = Bve.decode(error);
        int end = text.indexOf("; ");
        String found = end < 0 ? text : text.substring(0, end);
        int middle = found.indexOf(", expected ");
        return new BveException(
                middle < 0 ? found : found.substring(0, middle),
                middle < 0 ? "what the library can take" : found.substring(middle + ", expected ".length()),
                end < 0 ? "" : text.substring(end + 2));
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
