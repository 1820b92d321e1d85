package bigvit.edge;

import java.io.File;
import java.io.FileInputStream;
import java.io.IOException;
import java.io.InputStream;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.UUID;
import org.json.JSONArray;
import org.json.JSONException;
import org.json.JSONObject;

/**
 * The models that can be chosen: those of the app's bundle, and .bve files that a person gave, kept until they are
 * forgotten; beside them what a computer brings for a task. Each has lain through `bve-run info`, which checks all of a
 * file, before it is a model. An id is "bundle/NAME", "given/NAME" or "brought/NAME"; only such a one leads to a file.
 */
final class Models {
  private static final byte[] MAGIC = {'B', 'V', 'E'};
  private static final String KIND = "a .bve file of bigvit-edge export", BUNDLE = "bundle", GIVEN = "given";
  private static final String BROUGHT = "brought"; // which Store clears
  private static final String MANIFEST = "manifest.json";
  private static final int TOLD = 16; // letters of a hash in a name

  /** The bundle inside the app. */
  interface Bundle {
    /** null where there is no such file. */
    InputStream open(String name) throws IOException;
  }

  private final Store store;
  private final Programs programs;
  private final Bundle bundle;
  private final Map<String, JSONObject> known = new HashMap<String, JSONObject>(); // by id: a file is checked once

  Models(Store store, Programs programs, Bundle bundle) {
    this.store = store;
    this.programs = programs;
    this.bundle = bundle;
  }

  /**
   * All that can be chosen; of the bundle what the app holds, brought out where it can be run from. left: gets a
   * sentence on each that is left out. One that its program refuses, being older than this app or spoilt by the storage,
   * is removed: it is a copy.
   */
  synchronized JSONArray list(List<String> left) throws UserError, IOException, JSONException {
    JSONArray models = new JSONArray();
    JSONArray entries = readBundle();
    List<File> current = new ArrayList<File>();
    for (int i = 0; i < entries.length(); i++) {
      JSONObject entry = entries.getJSONObject(i);
      String name = entry.getString("file");
      File file = new File(folder(BUNDLE), entry.getString("sha256").substring(0, TOLD) + "-" + name);
      if (!file.isFile()) {
        InputStream bytes = bundle.open(name);
        if (bytes == null) {
          throw new UserError("no " + name + " in the app", "what its manifest names", "build the app again");
        }
        try {
          Store.write(bytes, file, name, MAGIC, KIND, entry.getString("sha256"));
        } finally {
          bytes.close();
        }
      }
      put(models, BUNDLE, file, entry, left);
      current.add(file);
    }
    for (File file : Store.list(folder(BUNDLE))) { // of the app before an update
      if (!current.contains(file)) {
        Store.remove(file);
      }
    }
    for (File file : Store.list(folder(GIVEN))) {
      if (Store.isUnfinished(file)) {
        Store.remove(file);
      } else {
        put(models, GIVEN, file, null, left);
      }
    }
    return models;
  }

  private void put(JSONArray models, String kind, File file, JSONObject entry, List<String> left)
      throws UserError, IOException, JSONException {
    try {
      models.put(describe(kind + "/" + file.getName(), file, entry));
    } catch (Programs.Failure e) {
      if (e.isRefusal()) {
        Store.remove(file);
      }
      left.add(strip(file) + (e.isRefusal() ? " was removed: " : " is left out for now: ") + e.getMessage());
    }
  }

  /** Keep a copy of a file that a person chose; the model that it is. name: for people. */
  JSONObject add(String name, InputStream bytes) throws UserError, IOException, JSONException {
    return add(GIVEN, name, bytes);
  }

  /** Keep a copy of a computer's file until clear, apart from a person's; the model that it is. */
  JSONObject bring(String name, InputStream bytes) throws UserError, IOException, JSONException {
    return add(BROUGHT, name, bytes);
  }

  private synchronized JSONObject add(String kind, String name, InputStream bytes)
      throws UserError, IOException, JSONException {
    File arrived = new File(store.scratch, UUID.randomUUID() + ".bve");
    try {
      String hash = Store.write(bytes, arrived, name, MAGIC, KIND, null);
      File file = new File(folder(kind), hash.substring(0, TOLD) + "-" + Store.simplify(name));
      for (File there : Store.list(folder(kind))) {
        if (there.getName().startsWith(hash.substring(0, TOLD))) {
          return describe(kind + "/" + there.getName(), there, null);
        }
      }
      inspect(arrived, name);
      if (!arrived.renameTo(file)) { // a cache may lie on another file system
        Store.write(new FileInputStream(arrived), file, name, MAGIC, KIND, hash);
      }
      return describe(kind + "/" + file.getName(), file, null);
    } finally {
      arrived.delete();
    }
  }

  /** Remove one that a person gave. */
  synchronized void forget(String id) throws UserError {
    File file = find(id);
    if (!id.startsWith(GIVEN + "/")) {
      throw new UserError(strip(file) + ", which the app came with", "a model that was opened", "");
    }
    Store.remove(file);
    known.remove(id);
  }

  /** Remove what was brought. */
  synchronized void clear() throws UserError {
    for (File file : Store.list(folder(BROUGHT))) {
      Store.remove(file);
      known.remove(BROUGHT + "/" + file.getName());
    }
  }

  /** The file of an id. */
  File find(String id) throws UserError {
    for (String kind : new String[] {BUNDLE, GIVEN, BROUGHT}) {
      for (File file : Store.list(folder(kind))) {
        if (id.equals(kind + "/" + file.getName())) {
          return file;
        }
      }
    }
    throw new UserError("no model " + id, "one of the list", "choose it again");
  }

  private JSONObject describe(String id, File file, JSONObject entry) throws UserError, IOException, JSONException {
    JSONObject model = known.get(id);
    if (model == null) {
      JSONObject info = inspect(file, strip(file));
      model = new JSONObject().put("id", id).put("name", strip(file)).put("format", "bve").put("bytes", file.length());
      model.put("sha256", entry == null ? Store.hash(file) : entry.getString("sha256")).put("info", info);
      model.put("entry", entry == null ? JSONObject.NULL : entry);
      known.put(id, model);
    }
    return model;
  }

  private JSONObject inspect(File file, String name) throws UserError, IOException {
    try {
      return new JSONObject(programs.run(Arrays.asList("info", file.getPath())));
    } catch (Programs.Failure e) {
      throw new Programs.Failure(e.getMessage().replace(file.getPath(), name).replace(file.getName(), name), e.status);
    } catch (JSONException e) {
      throw new IOException("bve-run info " + file.getName() + ": " + e.getMessage());
    }
  }

  /** A file's name without its hash. */
  private static String strip(File file) {
    String name = file.getName();
    return name.length() > TOLD + 1 ? name.substring(TOLD + 1) : name;
  }

  /** The manifest's entries; none where the app holds no bundle. */
  private JSONArray readBundle() throws IOException, JSONException {
    InputStream manifest = bundle.open(MANIFEST);
    return manifest == null ? new JSONArray() : new JSONObject(Store.read(manifest)).getJSONArray("artifacts");
  }

  private File folder(String kind) throws UserError {
    File folder = new File(store.models, kind);
    if (!folder.isDirectory() && !folder.mkdirs()) {
      throw new UserError(folder + " cannot be made", "room for the app's files", "free some, and open the app again");
    }
    return folder;
  }
}
