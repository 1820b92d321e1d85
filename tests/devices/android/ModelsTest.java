package bigvit.edge;

import static org.junit.Assert.assertEquals;
import static org.junit.Assert.assertFalse;
import static org.junit.Assert.assertTrue;

import java.io.File;
import java.nio.file.Files;
import java.util.Arrays;
import org.json.JSONArray;
import org.json.JSONObject;
import org.junit.Test;

/** The models that a person can choose. */
public final class ModelsTest extends BridgeCase {
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
    Files.write(new File(store.models, "given/cut.part").toPath(), bytes());
    assertEquals(count, new JSONArray(say("models", "")).length());
    assertEquals(0, Store.list(new File(store.models, "given")).length);
    assertEquals(1, host.said.size());
    assertTrue(host.said.toString(), host.said.get(0).startsWith("old.bve was removed: bve-run: old.bve"));
  }

  @Test
  public void aModelThatCannotBeLookedAtNowStays() throws Exception {
    choose("mine.bve", bytes());
    ask("pick", "");
    int count = new JSONArray(say("models", "")).length();
    for (String[] failing : new String[][] {{"sh", "-c", "kill -9 $$"}, {"sh", "-c", "exit 126"},
             {"sh", "-c", "echo bve-run: std::bad_alloc >&2; exit 2"}, {"/absent"}}) {
      host.said.clear();
      start(Arrays.asList(failing)); // the app, begun anew
      assertEquals("[]", say("models", ""));
      assertEquals(count, host.said.size());
      for (String said : host.said) {
        assertTrue(said, said.contains(".bve is left out for now: "));
      }
    }
    start(folder.getRoot());
    assertEquals(count, new JSONArray(say("models", "")).length());
  }

  @Test
  public void aModelThatWasOpenedIsForgotten() throws Exception {
    String before = say("models", "");
    choose("mine.bve", bytes());
    String id = ask("pick", "").getString("id");
    assertFalse(before.equals(say("models", "")));
    say("hold", "{\"text\": \"measuring\"}");
    assertTrue(refusal("forget", "{\"model\": \"" + id + "\"}").contains("under way"));
    say("release", "");
    assertEquals("null", say("forget", "{\"model\": \"" + id + "\"}"));
    assertEquals(before, say("models", ""));
    assertTrue(refusal("forget", "{\"model\": \"" + id + "\"}").startsWith("no model"));
    assertTrue(refusal("forget", "{\"model\": \"" + model().getString("id") + "\"}").contains("came with"));
    assertEquals(before, say("models", ""));
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
}
