package bigvit.edge;

/** What cannot work, in words for a person: what was met, what was expected, what to do ("": nothing). */
class UserError extends Exception {
  UserError(String met, String expected, String todo) {
    this(met + "; expected " + expected + (todo.isEmpty() ? "" : "; " + todo));
  }

  /** said: all three, as another program has said them. */
  UserError(String said) {
    super(said);
  }
}
