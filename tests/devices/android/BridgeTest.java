package bigvit.edge;

import static org.junit.Assert.assertEquals;
import static org.junit.Assert.assertFalse;
import static org.junit.Assert.assertTrue;

import java.io.File;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;
import org.json.JSONArray;
import org.json.JSONObject;
import org.junit.Test;

/** Programs, results, pictures, the phone: the page's verbs, each by the words that a page sends. */
public final class BridgeTest extends BridgeCase {
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
    write(process, "run 3600 1 0");
    bridge.abandon("the page has gone").get();
    assertFalse(bridge.isHeld());
    assertEquals(0, host.held);
    assertTrue(refusal("read", "{\"process\": \"" + process + "\"}").startsWith("no program"));
  }

  @Test
  public void aPageThatGoesHoldsUpNobodyAndStaysHeldUntilItsProgramsHaveEnded() throws Exception {
    start(Arrays.asList("sh", "-c", "exec sleep 1000")); // which does not look at its stdin
    say("hold", "{\"text\": \"measuring\"}");
    List<String> numbers = new ArrayList<String>();
    for (int i = 0; i < 3; i++) {
      numbers.add(programs.number(ask("start", "{\"words\": [\"clock\"]}").getString("process")));
    }
    Future<?> end = bridge.abandon("the page has gone");
    assertFalse(end.isDone());
    assertTrue(bridge.isHeld());
    assertTrue(refusal("hold", "{\"text\": \"the next page's\"}").contains("under way"));
    end.get(SECONDS, TimeUnit.SECONDS);
    assertFalse(bridge.isHeld());
    for (String number : numbers) {
      assertFalse(new File("/proc/" + number + "/exe").exists());
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
