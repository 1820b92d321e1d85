package bigvit.edge;

import static org.junit.Assert.assertEquals;
import static org.junit.Assert.assertFalse;
import static org.junit.Assert.assertTrue;

import java.io.ByteArrayInputStream;
import java.io.File;
import java.io.FileInputStream;
import java.io.IOException;
import java.io.InputStream;
import java.nio.file.Files;
import java.util.Arrays;
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
import org.junit.Test;
import org.junit.rules.TemporaryFolder;

/**
 * The page's verbs, each by the words that a page sends, to the app's own classes and its own bve-run. Of the system
 * come (-D): bundle, the app's assets; launcher, what starts bve-run, its words apart by '|'; small, a folder with
 * 400 KB of room.
 */
public final class BridgeTest {
  @Rule public final TemporaryFolder folder = new TemporaryFolder();

  private static final File BUNDLE = new File(System.getProperty("bundle"));
  private static final int SECONDS = 60;

  private final ConcurrentHashMap<String, BlockingQueue<String>> answers = new ConcurrentHashMap<>();
  private final ExecutorService pool = Executors.newCachedThreadPool();
  private final FakeHost host = new FakeHost();
  private Store store;
  private Programs programs;
  private Tasks tasks;
  private Bridge bridge;
  private File inbox;
  private int asked;

  /** What a verb says is wrong. */
  private static final class Refused extends Exception {
    Refused(String text) {
      super(text);
    }
  }

  @Before
  public void start() throws Exception {
    start(folder.getRoot());
  }

  private void start(File where) throws Exception {
    store = new Store(new File(where, "files"), new File(where, "cache"), new File(where, "shown"));
    store.prepare();
    programs = new Programs(Arrays.asList(System.getProperty("launcher").split("\\|")), folder.getRoot());
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
    programs.stopAll();
    pool.shutdownNow();
  }

  private String say(String verb, String json) throws Exception {
    String answer = begin(verb, json).poll(SECONDS, TimeUnit.SECONDS);
    assertTrue(verb + " answers", answer != null);
    if (answer.startsWith("-")) {
      throw new Refused(new JSONArray("[" + answer.substring(1) + "]").getString(0));
    }
    return answer.substring(1);
  }

  private BlockingQueue<String> begin(String verb, String json) {
    String id = Integer.toString(++asked);
    answers.put(id, new ArrayBlockingQueue<String>(1));
    bridge.call(id, verb, json);
    return answers.get(id);
  }

  private JSONObject ask(String verb, String json) throws Exception {
    return new JSONObject(say(verb, json));
  }

  /** A verb's own words on what is wrong; fails where nothing is. */
  private String refusal(String verb, String json) throws Exception {
    try {
      say(verb, json);
    } catch (Refused e) {
      assertFalse(e.getMessage(), e.getMessage().contains("a fault of this app"));
      return e.getMessage();
    }
    throw new AssertionError(verb + " of " + json + " is taken");
  }

  private JSONObject model() throws Exception {
    return new JSONArray(say("models", "")).getJSONObject(0);
  }

  private String serve() throws Exception {
    String words = "{\"words\": [\"serve\", {\"model\": \"" + model().getString("id") + "\"}, \"--threads\", \"1\"]}";
    return ask("start", words).getString("process");
  }

  private JSONObject read(String process) throws Exception {
    return ask("read", "{\"process\": \"" + process + "\"}");
  }

  private void write(String process, String line) throws Exception {
    say("write", "{\"process\": \"" + process + "\", \"line\": \"" + line + "\"}");
  }

  private byte[] bytes() throws Exception {
    return Files.readAllBytes(
        new File(BUNDLE, new JSONArray(say("models", "")).getJSONObject(0).getString("name")).toPath());
  }

  private void choose(String name, byte[] bytes) {
    host.picked = new Host.Picked(name, new ByteArrayInputStream(bytes));
  }

  @Test
  public void theBundleIsListedAsItIs() throws Exception {
    JSONArray models = new JSONArray(say("models", ""));
    JSONArray entries = new JSONObject(Store.read(new File(BUNDLE, "manifest.json"))).getJSONArray("artifacts");
    assertEquals(entries.length(), models.length());
    JSONObject model = models.getJSONObject(0), entry = entries.getJSONObject(0);
    assertEquals(entry.getString("file"), model.getString("name"));
    assertEquals(entry.getString("sha256"), Store.hash(new File(BUNDLE, model.getString("name"))));
    assertEquals(entry.toString(), model.getJSONObject("entry").toString());
    assertTrue(model.getJSONObject("info").getJSONObject("program").getJSONArray("entries").length() > 0);
    assertEquals(models.toString(), say("models", ""));
  }

  @Test
  public void theMachineIsWhatTheProbeTells() throws Exception {
    JSONObject told = ask("machine", "");
    assertTrue(told.getJSONObject("machine").getJSONArray("cores").length() > 0);
    assertEquals("A Phone", told.getJSONObject("phone").getString("name"));
  }

  @Test
  public void aModelIsTimedInTurns() throws Exception {
    String process = serve();
    JSONObject ready = new JSONObject(read(process).getString("line"));
    assertEquals("bve", ready.getString("runtime"));
    write(process, "run 0 3 0");
    assertEquals(3, new JSONObject(read(process).getString("line")).getJSONArray("times_ms").length());
    write(process, "memory");
    assertTrue(new JSONObject(read(process).getString("line")).getLong("peak_bytes") > 0);
    assertTrue(ask("surroundings", "{\"process\": \"" + process + "\"}").getString("cpuset").startsWith("/"));
    assertEquals(0, ask("stop", "{\"process\": \"" + process + "\"}").getInt("status"));
    assertTrue(refusal("read", "{\"process\": \"" + process + "\"}").startsWith("no program"));
  }

  @Test
  public void aTurnIsCancelledInItsMiddle() throws Exception {
    String process = serve();
    read(process);
    write(process, "run 3600 1 0");
    BlockingQueue<String> waiting = begin("read", "{\"process\": \"" + process + "\"}");
    assertTrue(waiting.poll(300, TimeUnit.MILLISECONDS) == null);
    JSONObject end = ask("stop", "{\"process\": \"" + process + "\"}");
    assertEquals(0, end.getInt("status")); // it ends by itself, and is not killed
    assertTrue(waiting.poll(SECONDS, TimeUnit.SECONDS).contains("\"end\""));
  }

  @Test
  public void aProgramThatAndroidKillsIsExplained() throws Exception {
    String process = serve();
    read(process);
    new ProcessBuilder("kill", "-9", programs.number(process)).start().waitFor();
    JSONObject end = read(process).getJSONObject("end");
    assertEquals(137, end.getInt("status"));
    assertTrue(end.getString("error"), end.getString("error").contains("memory runs out"));
    write(process, "memory"); // is no fault, and read tells again
    assertEquals(137, read(process).getJSONObject("end").getInt("status"));
  }

  @Test
  public void aProgramsOwnWordsAreItsError() throws Exception {
    String words =
        "{\"words\": [\"serve\", {\"model\": \"" + model().getString("id") + "\"}, \"--threads\", \"1000\"]}";
    JSONObject end = read(ask("start", words).getString("process")).getJSONObject("end");
    assertTrue(end.getInt("status") > 0);
    assertTrue(end.getString("error"), end.getString("error").contains("1000"));
  }

  @Test
  public void aFileThatAPersonChoosesIsKept() throws Exception {
    byte[] bytes = bytes();
    choose("Mein Modell (1).bve", bytes);
    JSONObject model = ask("pick", "");
    assertEquals("Mein_Modell__1_.bve", model.getString("name"));
    assertEquals(bytes.length, model.getInt("bytes"));
    choose("again.bve", bytes);
    assertEquals(model.toString(), ask("pick", "").toString());
    host.picked = null;
    assertEquals("null", say("pick", ""));
    String process =
        ask("start", "{\"words\": [\"serve\", {\"model\": \"" + model.getString("id") + "\"}]}").getString("process");
    assertTrue(read(process).has("line"));
  }

  @Test
  public void whatIsNoModelIsRefusedAndNotKept() throws Exception {
    byte[] bytes = bytes(), broken = bytes.clone();
    broken[200] ^= 1;
    for (byte[] wrong : new byte[][] {
             {}, "PK a zip".getBytes(), Arrays.copyOf(bytes, 100), Arrays.copyOf(bytes, bytes.length - 1), broken}) {
      choose("a photo.bve", wrong);
      String said = refusal("pick", "");
      assertTrue(said,
          said.contains("a photo.bve") && said.contains("expected") && !said.contains(folder.getRoot().getPath()));
    }
    assertEquals(new JSONArray(say("models", "")).length(), Store.list(new File(store.models, "bundle")).length);
    assertEquals(0, Store.list(new File(store.models, "given")).length);
    assertEquals(0, Store.list(store.scratch).length);
  }

  @Test
  public void aGivenModelThatIsNoneAnyMoreHidesNoOther() throws Exception {
    int count = new JSONArray(say("models", "")).length();
    Files.write(new File(store.models, "given/0123456789abcdef-old.bve").toPath(), "BVE0".getBytes());
    assertEquals(count, new JSONArray(say("models", "")).length());
    assertEquals(0, Store.list(new File(store.models, "given")).length);
  }

  @Test
  public void nothingLeadsOutOfTheFolders() throws Exception {
    for (String words : new String[] {
             "[\"serve\", \"/etc/passwd\"]",
             "[\"serve\", {\"model\": \"../../etc/passwd\"}]",
             "[\"serve\", {\"model\": \"bundle/..\"}]",
             "[\"run\", {\"scratch\": \"../x\"}]",
             "[\"hold\", \"x\"]",
             "[{\"model\": \"" + model().getString("id") + "\"}]",
             "[]",
             "[\"run\", {\"model\": \"" + model().getString("id") + "\"}, \"--input=/etc/passwd\"]",
             "[\"serve\", \"..\"]",
         }) {
      refusal("start", "{\"words\": " + words + "}");
    }
    for (String name : new String[] {"../a.json", "/a.json", ".a.json", "a.txt", "", "a/b.json", "a\\u0000.json"}) {
      refusal("keep", "{\"name\": \"" + name + "\", \"text\": \"x\"}");
      refusal("read_result", "{\"name\": \"" + name + "\"}");
      refusal("share", "{\"name\": \"" + name + "\"}");
    }
    refusal("put", "{\"name\": \"../a\", \"base64\": \"AAAA\"}");
    assertEquals(0, Store.list(store.results).length);
  }

  @Test
  public void aScratchFileIsAProgramsInput() throws Exception {
    int size = model().getJSONObject("info").getJSONObject("program").getJSONArray("entries").getJSONObject(0).getInt(
        "image_size");
    String zeros = java.util.Base64.getEncoder().encodeToString(new byte[3 * size * size * 4]);
    assertEquals(
        "image.f32", ask("put", "{\"name\": \"image.f32\", \"base64\": \"" + zeros + "\"}").getString("scratch"));
    String words =
        "[\"run\", {\"model\": \"" + model().getString("id") + "\"}, \"--input\", {\"scratch\": \"image.f32\"}]";
    String line = read(ask("start", "{\"words\": " + words + "}").getString("process")).getString("line");
    assertTrue(line, line.contains("\"top\""));
  }

  @Test
  public void aResultIsRemoved() throws Exception {
    say("keep", "{\"name\": \"one.json\", \"text\": \"{1}\"}");
    assertEquals("null", say("remove", "{\"name\": \"one.json\"}"));
    assertEquals("[]", say("results", ""));
    assertTrue(refusal("remove", "{\"name\": \"one.json\"}").contains("no result one.json"));
  }

  @Test
  public void aPauseTakesItsTimeAndHoldsNoOtherVerbUp() throws Exception {
    BlockingQueue<String> waiting = begin("pause", "{\"ms\": 300}");
    say("results", "");
    assertTrue(waiting.isEmpty());
    assertEquals("+null", waiting.poll(SECONDS, TimeUnit.SECONDS));
  }

  @Test
  public void resultsAreKeptReadAndShared() throws Exception {
    say("keep", "{\"name\": \"one.json\", \"text\": \"{1}\"}");
    say("keep", "{\"name\": \"one.json\", \"text\": \"{\\u00e9}\"}");
    assertEquals("{\u00e9}", ask("read_result", "{\"name\": \"one.json\"}").getString("text"));
    JSONArray results = new JSONArray(say("results", ""));
    assertEquals("one.json", results.getJSONObject(0).getString("name"));
    assertTrue(results.getJSONObject(0).getString("date").matches("20\\d\\d-\\d\\d-\\d\\dT.*Z"));
    say("share", "{\"name\": \"one.json\"}");
    assertEquals(new File(store.results, "one.json"), host.shared);
    assertTrue(refusal("share", "{\"name\": \"two.json\"}").contains("two.json"));
    assertEquals(1, Store.list(store.results).length);
  }

  @Test
  public void noRoomIsToldAndLeavesNothing() throws Exception {
    byte[] bytes = bytes();
    start(new File(System.getProperty("small")));
    choose("large.bve", Arrays.copyOf(bytes, 2 << 20));
    String said = refusal("pick", "");
    assertTrue(said, said.startsWith("no room for large.bve"));
    char[] long_ = new char[1 << 20];
    Arrays.fill(long_, 'x');
    said = refusal("keep", "{\"name\": \"one.json\", \"text\": \"" + new String(long_) + "\"}");
    assertTrue(said, said.startsWith("no room"));
    assertEquals(0, Store.list(store.results).length);
    assertEquals(0, Store.list(store.scratch).length);
  }

  @Test
  public void oneMeasurementAtATime() throws Exception {
    say("hold", "{\"text\": \"measuring\"}");
    assertTrue(refusal("hold", "{\"text\": \"measuring\"}").contains("under way"));
    assertEquals(1, host.held);
    say("release", "");
    say("release", "");
    assertEquals(0, host.held);
    host.refuses = true;
    assertTrue(refusal("hold", "{\"text\": \"measuring\"}").contains("not on the screen"));
    host.refuses = false;
    say("hold", "{\"text\": \"measuring\"}");
    String process = serve();
    read(process);
    bridge.abandon("the page has gone");
    assertFalse(bridge.isHeld());
    assertEquals(0, host.held);
    assertTrue(refusal("read", "{\"process\": \"" + process + "\"}").startsWith("no program"));
  }

  @Test
  public void aTaskBringsItsModelAndSaysHowItEnded() throws Exception {
    File model = new File(inbox, "0123456789abcdef-their.bve");
    Files.write(model.toPath(), bytes());
    assertEquals("null", say("task", ""));
    tasks.offer(new JSONObject()
                    .put("token", "00ff00ff")
                    .put("models", new JSONArray().put(model.getPath()))
                    .put("plan", new JSONObject("{\"rounds\": 3}"))
                    .toString(),
        false);
    tasks.offer("{\"token\": \"11ff00ff\"}", false); // while that is under way
    assertTrue(Store.read(new File(store.tasks, "11ff00ff.json")).contains("something else"));
    JSONObject plan = ask("task", "");
    assertEquals(3, plan.getInt("rounds"));
    String id = plan.getJSONArray("models").getString(0);
    assertTrue(id, id.endsWith("-their.bve") && !id.contains("0123456789abcdef-0"));
    assertEquals("null", say("task", ""));
    say("done", "{\"name\": \"r.json\", \"error\": null}");
    assertEquals("r.json", new JSONObject(Store.read(new File(store.tasks, "00ff00ff.json"))).getString("result"));
    assertEquals(0, Store.list(new File(store.models, "given")).length);
  }

  @Test
  public void aTaskThatNamesOtherFilesIsRefused() throws Exception {
    for (String wrong : new String[] {"/etc/passwd",
             inbox + "/../"
                 + "x",
             inbox.getPath(), inbox + "/absent.bve"}) {
      tasks.offer(new JSONObject()
                      .put("token", "00ff00ff")
                      .put("models", new JSONArray().put(wrong))
                      .put("plan", new JSONObject())
                      .toString(),
          false);
      refusal("task", "");
      assertFalse(new JSONObject(Store.read(new File(store.tasks, "00ff00ff.json"))).isNull("error"));
    }
    for (String wrong : new String[] {"", "[]", "{}", "{\"token\": \"../../a\"}"}) {
      try {
        tasks.offer(wrong, false);
      } catch (UserError e) {
        continue;
      }
      throw new AssertionError(wrong);
    }
  }

  @Test
  public void wrongWordsAreAnswers() throws Exception {
    assertTrue(refusal("reboot", "{}").contains("reboot"));
    assertTrue(refusal("power", "").contains("Android 15"));
    for (String json : new String[] {"{", "[]", "{\"words\": 3}", "{\"process\": {}}"}) {
      for (String verb : new String[] {"start", "read", "keep", "put"}) {
        String answer = begin(verb, json).poll(SECONDS, TimeUnit.SECONDS);
        assertTrue(answer, answer.startsWith("-\""));
      }
    }
    assertEquals("null", say("picture", "{\"source\": \"camera\"}"));
    assertTrue(ask("picture", "{\"source\": \"gallery\"}").getString("url").startsWith("data:image/png"));
  }
}
