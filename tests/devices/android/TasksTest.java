package bigvit.edge;

import static org.junit.Assert.assertEquals;
import static org.junit.Assert.assertFalse;
import static org.junit.Assert.assertTrue;

import java.io.File;
import java.nio.file.Files;
import org.json.JSONArray;
import org.json.JSONObject;
import org.junit.Test;

/** What a computer behind adb asks for. */
public final class TasksTest extends BridgeCase {
  /** The words of `bigvit-edge bench --app`, for a file that is called `name` there. */
  private static String task(String path, String name) throws Exception {
    JSONObject model = new JSONObject().put("path", path).put("name", name);
    return new JSONObject()
        .put("token", "00ff00ff")
        .put("models", new JSONArray().put(model))
        .put("plan", new JSONObject("{\"rounds\": 3}"))
        .toString();
  }

  private JSONObject end(String token) throws Exception {
    return new JSONObject(Store.read(new File(store.tasks, token + ".json")));
  }

  @Test
  public void aPageThatGoesEndsItsProgramsTogetherAndItsTaskAlone() throws Exception {
    for (int i = 0; i < 4; i++) {
      read(serve());
    }
    tasks.offer(task("/nowhere", "a"), false);
    String number = tasks.name();
    bridge.abandon("the page has gone").get();
    assertEquals("the page has gone", end(number).getString("error"));
    tasks.offer(task("/nowhere", "a").replace("00ff00ff", "22ff00ff"), false);
    tasks.abandon(number, "late");
    assertEquals("22ff00ff", tasks.name());
  }

  @Test
  public void aTaskLeavesAPersonsModelsAlone() throws Exception {
    byte[] bytes = bytes();
    choose("mine.bve", bytes);
    String id = ask("pick", "").getString("id"), before = say("models", "");
    File model = new File(inbox, "0123456789abcdef-their.bve");
    Files.write(model.toPath(), bytes);
    tasks.offer(task(model.getPath(), "their.bve"), false);
    ask("task", "");
    assertEquals(before, say("models", "")); // theirs is the task's alone
    choose("also.bve", bytes);
    assertEquals(id, ask("pick", "").getString("id"));
    say("done", "{\"name\": null, \"error\": \"busy\", \"refused\": true}");
    assertTrue(end("00ff00ff").getBoolean("refused"));
    assertEquals(before, say("models", ""));
    tasks.offer(task(model.getPath(), "their.bve"), false);
    ask("task", "");
    assertEquals(1, Store.list(store.brought).length);
    start(); // the app, begun anew
    assertEquals(0, Store.list(store.brought).length);
    assertEquals(before, say("models", ""));
  }

  @Test
  public void aTaskBringsItsModelAndSaysHowItEnded() throws Exception {
    File model = new File(inbox, "0123456789abcdef-their.bve");
    Files.write(model.toPath(), bytes());
    assertEquals("null", say("task", ""));
    tasks.offer(task(model.getPath(), "gr\u00f6\u00dfer/their.bve"), false);
    tasks.offer("{\"token\": \"11ff00ff\"}", false); // while that is under way
    assertTrue(end("11ff00ff").getString("error").contains("something else"));
    assertTrue(end("11ff00ff").getBoolean("refused"));
    JSONObject plan = ask("task", "");
    assertEquals(3, plan.getInt("rounds"));
    JSONObject named = plan.getJSONArray("models").getJSONObject(0);
    assertEquals("gr\u00f6\u00dfer/their.bve", named.getString("name")); // as it is called there
    assertFalse(named.has("path"));
    String id = named.getJSONObject("model").getString("id");
    assertTrue(id, id.endsWith("-their.bve") && !id.contains("0123456789abcdef-0"));
    assertTrue(
        read(ask("start", "{\"words\": [\"serve\", {\"model\": \"" + id + "\"}]}").getString("process")).has("line"));
    assertEquals("null", say("task", ""));
    say("done", "{\"name\": \"r.json\", \"error\": null}");
    assertEquals("r.json", end("00ff00ff").getString("result"));
    assertFalse(end("00ff00ff").getBoolean("refused"));
    assertEquals(0, Store.list(store.brought).length);
  }

  @Test
  public void aTaskThatNamesOtherFilesIsRefused() throws Exception {
    for (String wrong : new String[] {"/etc/passwd",
             inbox + "/../"
                 + "x",
             inbox.getPath(), inbox + "/absent.bve"}) {
      tasks.offer(task(wrong, "a.bve"), false);
      refusal("task", "");
      assertFalse(end("00ff00ff").isNull("error"));
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
}
