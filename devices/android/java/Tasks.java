package bigvit.edge;

import java.io.File;
import java.io.FileInputStream;
import java.io.IOException;
import java.io.InputStream;
import org.json.JSONArray;
import org.json.JSONException;
import org.json.JSONObject;

/**
 * What a computer behind adb asks for, by an extra of the intent that starts the app: {"token", "models": [{"path",
 * and what the page is to call it}], "plan"}. The page gets the plan with these, a "model" in place of each path; how it
 * ended is then a file of the token's name, which adb can read. Any app may send such an intent: it names only files of
 * one folder, where none but a person behind adb writes.
 */
final class Tasks {
  private static final String TOKEN = "[0-9a-f]{8,32}";

  private final Store store;
  private final Models models;
  private final File inbox;
  private JSONObject asked;
  private volatile String token;

  /** inbox: where a computer's models lie. */
  Tasks(Store store, Models models, File inbox) {
    this.store = store;
    this.models = models;
    this.inbox = inbox;
  }

  /** Take an intent's extra; what it asks for is refused while another's is under way. */
  synchronized void offer(String text, boolean busy) throws UserError, IOException {
    JSONObject task;
    String name;
    try {
      task = new JSONObject(text);
      name = task.getString("token");
    } catch (JSONException e) {
      throw new UserError("a task that cannot be read (" + e.getMessage() + ")", "one of bigvit-edge bench --app", "");
    }
    if (!name.matches(TOKEN)) {
      throw new UserError("a task without a token", "one of bigvit-edge bench --app", "");
    }
    if (busy || token != null) {
      end(name, null, "the app measures something else; expected a free phone; wait, or cancel that", true);
      return;
    }
    asked = task;
    token = name;
  }

  /** The plan that was asked for, with its models; null where none was, or it was handed out already. */
  synchronized JSONObject take() throws UserError, IOException, JSONException {
    JSONObject task = asked;
    asked = null;
    if (task == null) {
      return null;
    }
    try {
      JSONObject plan = task.getJSONObject("plan");
      JSONArray named = task.getJSONArray("models");
      for (int i = 0; i < named.length(); i++) {
        JSONObject each = named.getJSONObject(i);
        each.put("model", bring(new File(each.getString("path")).getCanonicalFile())).remove("path");
      }
      return plan.put("models", named);
    } catch (UserError e) {
      finish(null, e.getMessage(), false);
      throw e;
    } catch (JSONException e) {
      finish(null, "a plan that cannot be read: " + e.getMessage(), false);
      throw e;
    }
  }

  /** The task under way, for abandon; null where there is none. */
  String name() {
    return token;
  }

  /** Say of this task, unless it has ended, that it ends without a result. */
  synchronized void abandon(String name, String why) throws UserError, IOException {
    if (name != null && name.equals(token)) {
      finish(null, why, false);
    }
  }

  /**
   * Say how it ended: a result's name, or why there is none; refused: nothing was begun, since something else goes on.
   * Without a task nothing.
   */
  synchronized void finish(String result, String error, boolean refused) throws UserError, IOException {
    if (token == null) {
      return;
    }
    String name = token;
    token = null;
    models.clear();
    end(name, result, error, refused);
  }

  private JSONObject bring(File path) throws UserError, IOException, JSONException {
    if (!path.getPath().startsWith(inbox.getCanonicalPath() + File.separator) || !path.isFile()) {
      throw new UserError(path.getPath(), "a file below " + inbox, "");
    }
    InputStream bytes = new FileInputStream(path);
    try {
      return models.bring(path.getName().replaceFirst("^[0-9a-f]{16}-", ""), bytes);
    } finally {
      bytes.close();
    }
  }

  private void end(String name, String result, String error, boolean refused) throws UserError, IOException {
    try {
      JSONObject end = new JSONObject().put("result", result == null ? JSONObject.NULL : result);
      end.put("error", error == null ? JSONObject.NULL : error).put("refused", refused);
      Store.write(end.toString(), new File(store.tasks, name + ".json"));
    } catch (JSONException e) {
      throw new AssertionError(e); // of names that are not null
    }
  }
}
