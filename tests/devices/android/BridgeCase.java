package bigvit.edge;

import static org.junit.Assert.assertFalse;
import static org.junit.Assert.assertTrue;

import java.io.ByteArrayInputStream;
import java.io.File;
import java.io.FileInputStream;
import java.io.IOException;
import java.io.InputStream;
import java.nio.file.Files;
import java.util.Arrays;
import java.util.List;
import java.util.concurrent.ArrayBlockingQueue;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.TimeUnit;
import org.json.JSONArray;
import org.json.JSONObject;
import org.junit.After;
import org.junit.Before;
import org.junit.Rule;
import org.junit.rules.TemporaryFolder;

/**
 * What tests of the page's verbs share: each is said by the words that a page sends, to the app's own classes and its
 * own bve-run. Of the system come (-D): bundle, the app's assets; launcher, what starts bve-run, its words apart by '|';
 * small, a folder with 400 KB of room.
 */
public abstract class BridgeCase {
  @Rule public final TemporaryFolder folder = new TemporaryFolder();

  static final File BUNDLE = new File(System.getProperty("bundle"));
  static final int SECONDS = 60;

  final ConcurrentHashMap<String, BlockingQueue<String>> answers = new ConcurrentHashMap<>();
  final ExecutorService pool = Executors.newCachedThreadPool();
  final FakeHost host = new FakeHost();
  Store store;
  Programs programs;
  Tasks tasks;
  Bridge bridge;
  File inbox;
  int asked;

  /** What a verb says is wrong. */
  static final class Refused extends Exception {
    Refused(String text) {
      super(text);
    }
  }

  @Before
  public void start() throws Exception {
    start(folder.getRoot());
  }

  void start(File where) throws Exception {
    store = new Store(new File(where, "files"), new File(where, "cache"), new File(where, "shown"));
    store.prepare();
    start(Arrays.asList(System.getProperty("launcher").split("\\|")));
  }

  void start(List<String> launcher) throws Exception {
    programs = new Programs(launcher, folder.getRoot());
    inbox = folder.newFolder();
    Models models = new Models(store, programs, new Models.Bundle() {
      @Override
      public InputStream open(String name) throws IOException {
        File file = new File(BUNDLE, name);
        return file.isFile() ? new FileInputStream(file) : null;
      }
    });
    tasks = new Tasks(store, models, inbox);
    Bridge.Answers hear = new Bridge.Answers() {
      @Override
      public void answer(String id, boolean ok, String json) {
        answers.get(id).add((ok ? "+" : "-") + json);
      }
    };
    bridge = new Bridge(host, programs, store, models, tasks, hear, pool);
  }

  @After
  public void stop() {
    programs.endAll().run();
    pool.shutdownNow();
  }

  String say(String verb, String json) throws Exception {
    String answer = begin(verb, json).poll(SECONDS, TimeUnit.SECONDS);
    assertTrue(verb + " answers", answer != null);
    if (answer.startsWith("-")) {
      throw new Refused(new JSONArray("[" + answer.substring(1) + "]").getString(0));
    }
    return answer.substring(1);
  }

  BlockingQueue<String> begin(String verb, String json) {
    String id = Integer.toString(++asked);
    answers.put(id, new ArrayBlockingQueue<String>(1));
    bridge.call(id, verb, json);
    return answers.get(id);
  }

  JSONObject ask(String verb, String json) throws Exception {
    return new JSONObject(say(verb, json));
  }

  /** A verb's own words on what is wrong; fails where nothing is. */
  String refusal(String verb, String json) throws Exception {
    try {
      say(verb, json);
    } catch (Refused e) {
      assertFalse(e.getMessage(), e.getMessage().contains("a fault of this app"));
      return e.getMessage();
    }
    throw new AssertionError(verb + " of " + json + " is taken");
  }

  JSONObject model() throws Exception {
    return new JSONArray(say("models", "")).getJSONObject(0);
  }

  String serve() throws Exception {
    String words = "{\"words\": [\"serve\", {\"model\": \"" + model().getString("id") + "\"}, \"--threads\", \"1\"]}";
    return ask("start", words).getString("process");
  }

  JSONObject read(String process) throws Exception {
    return ask("read", "{\"process\": \"" + process + "\"}");
  }

  void write(String process, String line) throws Exception {
    say("write", "{\"process\": \"" + process + "\", \"line\": \"" + line + "\"}");
  }

  byte[] bytes() throws Exception {
    return Files.readAllBytes(
        new File(BUNDLE, new JSONArray(say("models", "")).getJSONObject(0).getString("name")).toPath());
  }

  void choose(String name, byte[] bytes) {
    host.picked = new Host.Picked(name, new ByteArrayInputStream(bytes));
  }
}
