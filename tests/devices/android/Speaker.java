package bigvit.edge;

import java.io.BufferedReader;
import java.io.File;
import java.io.FileInputStream;
import java.io.IOException;
import java.io.InputStream;
import java.io.InputStreamReader;
import java.util.Arrays;
import java.util.concurrent.Executors;

/**
 * The page's verbs by lines: "ID VERB JSON" in, "ID + JSON" or "ID - JSON" out. The verb intent hands its JSON on as an
 * intent's extra. Of the system come (-D): bundle, launcher (as of BridgeTest), folder, where the app's files go.
 */
public final class Speaker {
  private Speaker() {}

  public static void main(String[] words) throws Exception {
    File folder = new File(System.getProperty("folder"));
    final File bundle = new File(System.getProperty("bundle"));
    Store store = new Store(new File(folder, "files"), new File(folder, "cache"), new File(folder, "shown"));
    store.prepare();
    Programs programs = new Programs(Arrays.asList(System.getProperty("launcher").split("\\|")), folder);
    Models models = new Models(store, programs, new Models.Bundle() {
      @Override
      public InputStream open(String name) throws IOException {
        return new FileInputStream(new File(bundle, name));
      }
    });
    Tasks tasks = new Tasks(store, models, new File(folder, "inbox"));
    Bridge.Answers say = new Bridge.Answers() {
      @Override
      public synchronized void answer(String id, boolean ok, String json) {
        System.out.println(id + (ok ? " + " : " - ") + json);
      }
    };
    Bridge bridge = new Bridge(new FakeHost(), programs, store, models, tasks, say, Executors.newCachedThreadPool());
    BufferedReader lines = new BufferedReader(new InputStreamReader(System.in, Programs.UTF_8));
    for (String line; (line = lines.readLine()) != null;) {
      String[] said = line.split(" ", 3);
      if (said[1].equals("intent")) {
        tasks.offer(said[2], bridge.isHeld());
        say.answer(said[0], true, "null");
      } else {
        bridge.call(said[0], said[1], said[2]);
      }
    }
    bridge.abandon("the app was closed").get();
    System.exit(0);
  }
}
