package bigvit.edge;

import java.io.File;
import java.io.FileInputStream;
import java.io.IOException;
import java.io.InputStream;
import java.util.ArrayList;
import java.util.List;
import org.json.JSONArray;
import org.json.JSONException;
import org.json.JSONObject;

/**
 * What a computer behind adb asks for, by an extra of the intent that starts the app: {"token", "models": paths,
 * "plan"}. The page gets the plan with the models' ids; how it ended is then a file of the token's name, which adb can
 * read. Any app may send such an intent: it names only files of one folder, where none but a person behind adb writes.
 */
final class Tasks {
  private static final String TOKEN = "[0-9a-f]{8,32}";

  private final Store store;
  private final Models models;
  private final File inbox;
  private final List<String> brought = new ArrayList<String>();
  private JSONObject asked;
  private String token;

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
      end(name, null, "the app measures something else; expected a free phone; wait, or cancel that");
      return;
    }
    asked = task;
    token = name;
  }

  /** The plan that was asked for, with the models' ids; null where none was, or it was handed out already. */
  synchronized JSONObject take() throws UserError, IOException, JSONException {
    JSONObject task = asked;
    asked = null;
    if (task == null) {
      return null;
    }
    try {
      JSONObject plan = task.getJSONObject("plan");
      JSONArray paths = task.getJSONArray("models"), ids = new JSONArray();
      for (int i = 0; i < paths.length(); i++) {
        ids.put(bring(new File(paths.getString(i)).getCanonicalFile()));
      }
      return plan.put("models", ids);
    } catch (UserError e) {
      finish(null, e.getMessage());
      throw e;
    } catch (JSONException e) {
      finish(null, "a plan that cannot be read: " + e.getMessage());
      throw e;
    }
  }

  /** Say how it ended: a result's name, or why there is none. Without a task nothing. */
  synchronized void finish(String result, String error) throws UserError, IOException {
    if (token == null) {
      return;
    }
    String name = token;
    token = null;
    for (String id : brought) {
      models.remove(id);
    }
    brought.clear();
    end(name, result, error);
  }

  private String bring(File path) throws UserError, IOException, JSONException {
    if (!path.getPath().startsWith(inbox.getCanonicalPath() + File.separator) || !path.isFile()) {
      throw new UserError(path.getPath(), "a file below " + inbox, "");
    }
    InputStream bytes = new FileInputStream(path);
    try {
      JSONObject model = models.add(path.getName().replaceFirst("^[0-9a-f]{16}-", ""), bytes);
      brought.add(model.getString("id"));
      return model.getString("id");
    } finally {
      bytes.close();
    }
  }

  private void end(String name, String result, String error) throws UserError, IOException {
    try {
      JSONObject end = new JSONObject().put("result", result == null ? JSONObject.NULL : result);
      Store.write(
          end.put("error", error == null ? JSONObject.NULL : error).toString(), new File(store.tasks, name + ".json"));
    } catch (JSONException e) {
      throw new AssertionError(e); // of names that are not null
    }
  }
}
