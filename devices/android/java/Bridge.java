package bigvit.edge;

import java.io.ByteArrayInputStream;
import java.io.File;
import java.io.IOException;
import java.text.SimpleDateFormat;
import java.util.ArrayList;
import java.util.Date;
import java.util.List;
import java.util.Locale;
import java.util.TimeZone;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Future;
import org.json.JSONArray;
import org.json.JSONException;
import org.json.JSONObject;

/**
 * The page's verbs: JSON in, JSON out, each on a thread of its own, since some wait for a program or a person. What is
 * wrong is an answer too, in words for the person; nothing that a page or a file holds ends the app.
 */
final class Bridge {
  /** Who hands answers to the page. ok false: json is a JSON string, the text for the person. */
  interface Answers {
    void answer(String id, boolean ok, String json);
  }

  private static final String ENDING = ".json";
  private static final long LONGEST_MS = 60000; // of a pause
  private final Host host;
  private final Programs programs;
  private final Store store;
  private final Models models;
  private final Tasks tasks;
  private final Answers answers;
  private final ExecutorService pool;
  private boolean held;

  Bridge(Host host, Programs programs, Store store, Models models, Tasks tasks, Answers answers, ExecutorService pool) {
    this.host = host;
    this.programs = programs;
    this.store = store;
    this.models = models;
    this.tasks = tasks;
    this.answers = answers;
    this.pool = pool;
  }

  /** Start a verb; its answer comes later. */
  void call(final String id, final String verb, final String json) {
    pool.execute(new Runnable() {
      @Override
      public void run() {
        try {
          answers.answer(id, true, String.valueOf(serve(verb, new JSONObject(json.isEmpty() ? "{}" : json))));
        } catch (Throwable e) { // a model may want more memory than there is
          answers.answer(id, false, JSONObject.quote(explain(verb, e)));
        }
      }
    });
  }

  /** Whether a measurement is under way. */
  synchronized boolean isHeld() {
    return held;
  }

  /** The page has gone: end what it started. Waits for nothing; what goes on is held until all programs have ended. */
  Future<?> abandon(final String why) {
    final Runnable end = programs.endAll();
    final String task = tasks.name();
    final boolean wasHeld = isHeld();
    return pool.submit(new Runnable() {
      @Override
      public void run() {
        end.run();
        try {
          tasks.abandon(task, why);
        } catch (Exception e) {
          // whoever waits for it sees the app gone
        }
        if (wasHeld) {
          release();
        }
      }
    });
  }

  private Object serve(String verb, JSONObject words) throws UserError, IOException, JSONException {
    switch (verb) {
      case "models":
        return listModels();
      case "pick":
        return pick();
      case "forget":
        forget(words.getString("model"));
        return JSONObject.NULL;
      case "machine":
        return machine();
      case "start":
        return new JSONObject().put("process", programs.start(spell(words.getJSONArray("words"))));
      case "read":
        return programs.read(words.getString("process"));
      case "write":
        programs.write(words.getString("process"), words.getString("line"));
        return JSONObject.NULL;
      case "stop":
        return programs.stop(words.getString("process"));
      case "surroundings":
        return surroundings(words.optString("process"));
      case "power":
        return host.power();
      case "battery":
        return host.battery();
      case "picture":
        String url = host.picture(words.getString("source"));
        return url == null ? JSONObject.NULL : new JSONObject().put("url", url);
      case "put":
        put(words.getString("name"), words.getString("base64"));
        return new JSONObject().put("scratch", words.getString("name"));
      case "keep":
        Store.write(words.getString("text"), findResult(words.getString("name")));
        return JSONObject.NULL;
      case "results":
        return listResults();
      case "read_result":
        return new JSONObject().put("text", Store.read(findThere(words.getString("name"))));
      case "remove":
        Store.remove(findThere(words.getString("name")));
        return JSONObject.NULL;
      case "pause":
        pause(words.getLong("ms"));
        return JSONObject.NULL;
      case "share":
        host.share(findThere(words.getString("name")));
        return JSONObject.NULL;
      case "hold":
        hold(words.getString("text"));
        return JSONObject.NULL;
      case "release":
        release();
        return JSONObject.NULL;
      case "task":
        return String.valueOf(tasks.take());
      case "done":
        tasks.finish(words.isNull("name") ? null : words.getString("name"),
            words.isNull("error") ? null : words.getString("error"), words.optBoolean("refused"));
        return JSONObject.NULL;
      default:
        throw new UserError("the verb '" + verb + "'", "one that this app has", "install it again");
    }
  }

  private JSONArray listModels() throws UserError, IOException, JSONException {
    List<String> left = new ArrayList<String>();
    JSONArray listed = models.list(left);
    for (String each : left) {
      host.say(each);
    }
    return listed;
  }

  private void forget(String id) throws UserError {
    if (isHeld()) {
      throw new UserError("a measurement that is under way", "none, to remove a model", "wait for it, or cancel it");
    }
    models.forget(id);
  }

  private Object pick() throws UserError, IOException, JSONException {
    Host.Picked picked = host.pick();
    if (picked == null) {
      return JSONObject.NULL;
    }
    try {
      return models.add(picked.name, picked.bytes);
    } finally {
      picked.bytes.close();
    }
  }

  private JSONObject machine() throws UserError, IOException, JSONException {
    List<String> probe = new ArrayList<String>();
    probe.add("probe");
    return new JSONObject().put("machine", new JSONObject(programs.run(probe))).put("phone", host.phone());
  }

  /** A program's words: strings, and models and scratch files by their names, never by a path. */
  private List<String> spell(JSONArray words) throws UserError, JSONException {
    List<String> spelled = new ArrayList<String>();
    if (!String.valueOf(words.opt(0)).matches("serve|profile|run|info|probe|clock")) {
      throw new UserError("the program '" + words.opt(0) + "'", "a verb of bve-run that measures", "");
    }
    for (int i = 0; i < words.length(); i++) {
      Object word = words.get(i);
      if (word instanceof JSONObject) {
        JSONObject named = (JSONObject) word;
        File file = named.has("model") ? models.find(named.getString("model"))
                                       : Store.locate(store.scratch, named.getString("scratch"));
        spelled.add(file.getPath());
      } else {
        spelled.add(checkWord(String.valueOf(word)));
      }
    }
    return spelled;
  }

  private static String checkWord(String word) throws UserError {
    if (word.indexOf('/') >= 0 || word.equals("..")) {
      throw new UserError("the word '" + word + "'", "options of bve-run, and models by their ids", "");
    }
    return word;
  }

  private JSONObject surroundings(String process) throws UserError, JSONException {
    String cpuset;
    try {
      cpuset =
          Store.read(new File("/proc/" + (process.isEmpty() ? "self" : programs.number(process)) + "/cpuset")).trim();
    } catch (IOException e) {
      cpuset = "";
    }
    return host.surroundings().put("cpuset", cpuset);
  }

  private void put(String name, String base64) throws UserError, IOException {
    Store.write(new ByteArrayInputStream(Base64.decode(base64)), Store.locate(store.scratch, name), name, new byte[0],
        "", null);
  }

  private File findResult(String name) throws UserError {
    if (!name.endsWith(ENDING)) {
      throw new UserError("the name '" + name + "'", "a result's, which ends in .json", "");
    }
    return Store.locate(store.results, name);
  }

  private File findThere(String name) throws UserError {
    File file = findResult(name);
    if (!file.isFile()) {
      throw new UserError("no result " + name, "one of the list", "measure again");
    }
    return file;
  }

  private JSONArray listResults() throws JSONException {
    SimpleDateFormat format = new SimpleDateFormat("yyyy-MM-dd'T'HH:mm:ss'Z'", Locale.ROOT);
    format.setTimeZone(TimeZone.getTimeZone("UTC"));
    JSONArray results = new JSONArray();
    for (File file : Store.list(store.results)) {
      results.put(
          new JSONObject().put("name", file.getName()).put("date", format.format(new Date(file.lastModified()))));
    }
    return results;
  }

  /** Wait for the page, whose own timers are slow while the screen is off. */
  private static void pause(long ms) {
    try {
      Thread.sleep(Math.max(0, Math.min(ms, LONGEST_MS)));
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
    }
  }

  private void hold(String text) throws UserError {
    synchronized (this) {
      if (held) {
        throw new UserError("a measurement that is under way", "one at a time", "wait for it, or cancel it");
      }
      held = true;
    }
    boolean begun = false;
    try {
      host.hold(text);
      begun = true;
    } finally {
      if (!begun) {
        release();
      }
    }
  }

  private void release() {
    synchronized (this) {
      if (!held) {
        return;
      }
      held = false;
    }
    host.release();
  }

  private static String explain(String verb, Throwable e) {
    if (e instanceof UserError) {
      return e.getMessage();
    }
    if (e instanceof OutOfMemoryError) {
      return "more memory than this phone has free; expected a smaller file; close other apps, or choose a smaller "
             + "model";
    }
    if (e instanceof IOException && Store.isFull((IOException) e)) {
      return "no room on this phone; expected some free; free some, and try again";
    }
    return "a fault of this app in '" + verb + "': " + e;
  }
}
