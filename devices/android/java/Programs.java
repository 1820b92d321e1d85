package bigvit.edge;

import java.io.BufferedReader;
import java.io.File;
import java.io.IOException;
import java.io.InputStreamReader;
import java.io.OutputStream;
import java.io.Reader;
import java.nio.charset.Charset;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import org.json.JSONException;
import org.json.JSONObject;

/**
 * Processes of bve-run, spoken to by lines. Each is told to end by the end of its stdin, which comes too when this
 * process ends in whatever way, and is killed if it does not. Any thread may call; of one process two reads wait for
 * each other.
 */
final class Programs {
  static final Charset UTF_8 = Charset.forName("UTF-8");
  private static final int MOST = 64, KEPT = 4096, GRACE_MS = 5000, STEP_MS = 10, SIGNALLED = 128;
  private static final long MS = 1000000;
  // A shell says the number of the process that bve-run then is.
  private static final String START = "echo $$; exec \"$@\"";

  /** A program that did not do what it was asked. */
  static final class Failure extends UserError {
    private static final int MOST_OWN = 2; // of its own ends; what is above comes of the shell or of a signal

    final int status;

    Failure(String said, int status) {
      super(said);
      this.status = status;
    }

    /** Whether the program itself refused what it was given, and neither ended before that nor lacked memory. */
    boolean isRefusal() {
      return status <= MOST_OWN && !getMessage().contains("bad_alloc");
    }
  }

  private final List<String> launcher;
  private final File folder;
  private final Map<String, Running> all = new HashMap<String, Running>();
  private int count;

  /** launcher: what starts bve-run, its path last; folder: where it starts, for what it might write. */
  Programs(List<String> launcher, File folder) {
    this.launcher = launcher;
    this.folder = folder;
  }

  /** Start one; returns its name. */
  synchronized String start(List<String> words) throws UserError, IOException {
    if (all.size() >= MOST) {
      throw new UserError(MOST + " programs that run at once", "fewer", "choose fewer models or clusters");
    }
    String name = Integer.toString(++count);
    all.put(name, new Running(launch(words)));
    return name;
  }

  /** The next line, {"line": text}, or the end, {"end": {"status", "error"}}, once there is one. */
  JSONObject read(String name) throws UserError, IOException, JSONException {
    Running running = find(name);
    String line;
    synchronized (running.out) {
      try {
        line = running.out.readLine();
      } catch (IOException e) { // stopped meanwhile
        line = null;
      }
    }
    return line == null ? new JSONObject().put("end", running.end()) : new JSONObject().put("line", line);
  }

  /** Write a line; one that has ended takes none, which the next read tells. */
  void write(String name, String line) throws UserError {
    Running running = find(name);
    if (line.indexOf('\n') >= 0) {
      throw new UserError("two lines at once", "one", "");
    }
    try {
      running.in.write((line + "\n").getBytes(UTF_8));
      running.in.flush();
    } catch (IOException e) {
      return;
    }
  }

  /** End one, in the middle of a turn too; returns its end. */
  JSONObject stop(String name) throws UserError, JSONException {
    Running running = find(name);
    synchronized (this) {
      all.remove(name);
    }
    running.stop();
    return running.end();
  }

  /** Forget all, and tell them to end; what waits until they have, which may take long. */
  Runnable endAll() {
    final List<Running> running;
    synchronized (this) {
      running = new ArrayList<Running>(all.values());
      all.clear();
    }
    for (Running each : running) {
      each.close();
    }
    return new Runnable() {
      @Override
      public void run() {
        long until = System.nanoTime() + GRACE_MS * MS;
        for (Running each : running) {
          each.end(until);
        }
      }
    };
  }

  /** Its number in /proc. */
  String number(String name) throws UserError {
    return find(name).number;
  }

  /** Run one to its end; what it printed. Failure with its last words if it failed. */
  String run(List<String> words) throws Failure, IOException {
    Running running = new Running(launch(words));
    try {
      StringBuilder out = new StringBuilder();
      char[] part = new char[KEPT];
      for (int n; (n = running.out.read(part)) >= 0;) {
        out.append(part, 0, n);
      }
      int status = running.await();
      if (status != 0) {
        throw new Failure(running.explain(status), status);
      }
      return out.toString();
    } finally {
      running.stop();
    }
  }

  private Process launch(List<String> words) throws IOException {
    List<String> command = new ArrayList<String>();
    command.add("sh");
    command.add("-c");
    command.add(START);
    command.add("sh");
    command.addAll(launcher);
    command.addAll(words);
    return new ProcessBuilder(command).directory(folder).start();
  }

  private synchronized Running find(String name) throws UserError {
    Running running = all.get(name);
    if (running == null) {
      throw new UserError("no program " + name, "one that was started and not stopped", "");
    }
    return running;
  }

  private static final class Running {
    final Process process;
    final OutputStream in;
    final BufferedReader out;
    final String number;
    private final StringBuilder words = new StringBuilder();
    private final Thread listener;

    Running(Process process) throws IOException {
      this.process = process;
      in = process.getOutputStream();
      out = new BufferedReader(new InputStreamReader(process.getInputStream(), UTF_8));
      final Reader err = new InputStreamReader(process.getErrorStream(), UTF_8);
      listener = new Thread("bve-run") {
        @Override
        public void run() {
          listen(err);
        }
      };
      listener.start();
      number = String.valueOf(out.readLine());
    }

    private void listen(Reader err) {
      char[] part = new char[KEPT];
      try {
        for (int n; (n = err.read(part)) >= 0;) {
          synchronized (words) {
            words.append(part, 0, n);
            if (words.length() > KEPT) {
              words.delete(0, words.length() - KEPT);
            }
          }
        }
      } catch (IOException e) { // it was stopped
        return;
      }
    }

    int await() {
      while (true) {
        try {
          int status = process.waitFor();
          listener.join(GRACE_MS);
          return status;
        } catch (InterruptedException e) {
          continue; // nobody interrupts these threads but to end the app
        }
      }
    }

    JSONObject end() throws JSONException {
      int status = await();
      return new JSONObject().put("status", status).put("error", status == 0 ? "" : explain(status));
    }

    /** Its last words; of one that was killed, which has none, by which signal. */
    String explain(int status) {
      String said;
      synchronized (words) {
        said = words.toString().trim();
      }
      if (status > SIGNALLED) {
        String killed = "Android stopped bve-run (signal " + (status - SIGNALLED) + ")";
        return killed + (status == SIGNALLED + 9 ? ", as it does when memory runs out" : "")
            + (said.isEmpty() ? "" : ": " + said);
      }
      return said.isEmpty() ? "bve-run ended with status " + status : said;
    }

    /** End its stdin, and then it. */
    void stop() {
      close();
      end(System.nanoTime() + GRACE_MS * MS);
    }

    void close() {
      try {
        in.close();
      } catch (IOException e) {
        // nobody reads it any more: it has ended
      }
    }

    /** Wait for its end, and end it where it goes on. until: of System.nanoTime. */
    void end(long until) {
      awaitEnd(until);
      if (!hasEnded()) {
        kill();
        process.destroy();
        awaitEnd(System.nanoTime() + GRACE_MS * MS);
      }
    }

    private void awaitEnd(long until) {
      while (!hasEnded() && System.nanoTime() - until < 0) {
        pause();
      }
    }

    private void kill() {
      try {
        new ProcessBuilder("kill", "-9", number).start().waitFor();
      } catch (IOException e) {
        // no program of that name: destroy, which follows, is weaker
      } catch (InterruptedException e) {
        Thread.currentThread().interrupt();
      }
    }

    private boolean hasEnded() {
      try {
        process.exitValue();
        return true;
      } catch (IllegalThreadStateException e) {
        return false;
      }
    }

    private static void pause() {
      try {
        Thread.sleep(STEP_MS);
      } catch (InterruptedException e) {
        Thread.currentThread().interrupt();
      }
    }
  }
}
