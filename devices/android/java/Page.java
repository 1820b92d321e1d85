package bigvit.edge;

import android.annotation.SuppressLint;
import android.app.Activity;
import android.content.Context;
import android.content.MutableContextWrapper;
import android.os.Handler;
import android.os.Looper;
import android.view.ViewGroup;
import android.webkit.JavascriptInterface;
import android.webkit.WebSettings;
import android.webkit.WebView;
import java.io.File;
import java.io.IOException;
import java.io.InputStream;
import java.util.Collections;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import org.json.JSONObject;

/**
 * The page and what answers it: one for the process, made with the first window and kept while it measures, so that
 * neither a rotation nor a window that Android destroys ends a measurement. For the screen's thread.
 */
final class Page implements Bridge.Answers {
  static final String ADDRESS = "https://appassets.androidplatform.net/";
  private static final File INBOX = new File("/data/local/tmp/bigvit-edge"); // where bench puts a computer's models
  private static final int IMPORTANT = 2; // WebView.RENDERER_PRIORITY_IMPORTANT

  @SuppressLint("StaticFieldLeak") // it holds no window
  private static Page page;

  final Phone phone;
  private final MutableContextWrapper context;
  private final Handler screen = new Handler(Looper.getMainLooper());
  private final ExecutorService pool = Executors.newCachedThreadPool();
  private final Bridge bridge;
  private final Tasks tasks;
  private WebView view;
  private volatile int loaded; // of how many pages the present one is the last

  static Page open(Context context) {
    if (page == null) {
      page = new Page(context);
    }
    return page;
  }

  /** Ask the page to stop a measurement, and keep what it has. */
  static void cancel() {
    if (page != null) {
      page.run("window.bve && window.bve.cancel && window.bve.cancel()");
    }
  }

  private Page(final Context app) {
    context = new MutableContextWrapper(app);
    phone = new Phone(app, screen);
    File shown = app.getExternalFilesDir(null);
    Store store = new Store(app.getFilesDir(), app.getCacheDir(), shown == null ? app.getFilesDir() : shown);
    String program = app.getApplicationInfo().nativeLibraryDir + "/libbve-run.so";
    Programs programs = new Programs(Collections.singletonList(program), app.getCacheDir());
    Models models = new Models(store, programs, new Models.Bundle() {
      @Override
      public InputStream open(String name) {
        try {
          return app.getAssets().open("bundle/" + name);
        } catch (IOException e) {
          return null;
        }
      }
    });
    tasks = new Tasks(store, models, INBOX);
    bridge = new Bridge(phone, programs, store, models, tasks, this, pool);
    try {
      store.prepare();
    } catch (UserError e) {
      phone.say(e.getMessage());
    }
  }

  void attach(Activity activity) {
    context.setBaseContext(activity);
    phone.attach(activity);
    if (view == null) {
      view = load();
    }
    free();
    activity.setContentView(view);
  }

  private void free() {
    if (view.getParent() != null) {
      ((ViewGroup) view.getParent()).removeView(view);
    }
  }

  void detach(Activity activity) {
    if (phone.activity() != activity) {
      return; // another window shows it already
    }
    free();
    context.setBaseContext(activity.getApplicationContext());
    phone.attach(null);
    if (!isBusy() && activity.isFinishing()) {
      leave("the app was closed");
    }
  }

  boolean isBusy() {
    return bridge.isHeld();
  }

  /** Take a task from an intent, and tell the page. */
  void offer(final String task) {
    pool.execute(new Runnable() { // another's models may be on their way, which takes a while
      @Override
      public void run() {
        try {
          tasks.offer(task, isBusy());
          Page.this.run("window.bve && window.bve.task && window.bve.task()");
        } catch (UserError e) {
          phone.say(e.getMessage());
        } catch (IOException e) {
          phone.say(String.valueOf(e.getMessage()));
        }
      }
    });
  }

  /** Go a screen back; whether there was one. */
  boolean goBack() {
    if (view == null || !view.canGoBack()) {
      return false;
    }
    view.goBack();
    return true;
  }

  /** Android ended the page's own process, for want of memory most often: begin again, and say so. */
  void restart() {
    Activity activity = phone.activity();
    leave("Android ended the page, as it does when memory runs out");
    if (activity != null) {
      attach(activity);
      phone.say("Android ended the page, as it does when memory runs out. What was measured until then is kept.");
    }
  }

  private void leave(String why) {
    bridge.abandon(why);
    free();
    view.destroy();
    view = null;
  }

  @SuppressLint({"SetJavaScriptEnabled", "AddJavascriptInterface"}) // the page is the app's own, and no other is loaded
  private WebView load() {
    WebView made = new WebView(context);
    WebSettings settings = made.getSettings();
    settings.setJavaScriptEnabled(true);
    settings.setDomStorageEnabled(true); // where it remembers a run that was cut
    settings.setAllowFileAccess(false);
    settings.setAllowContentAccess(false);
    settings.setBlockNetworkLoads(true);
    Later.call(made, "setRendererPriorityPolicy", new Class<?>[] {int.class, boolean.class}, IMPORTANT, false);
    made.setWebViewClient(new PageClient(this, context.getAssets()));
    made.addJavascriptInterface(new Door(++loaded), "bveAndroid");
    made.loadUrl(ADDRESS + "index.html");
    return made;
  }

  private void run(final String script) {
    screen.post(new Runnable() {
      @Override
      public void run() {
        if (view != null) {
          view.evaluateJavascript(script, null);
        }
      }
    });
  }

  @Override
  public void answer(String id, boolean ok, String json) {
    int end = id.indexOf(':');
    if (id.substring(0, end).equals(Integer.toString(loaded))) { // and no page's that has gone
      run("window.bve && window.bve.answer && window.bve.answer(" + quote(id.substring(end + 1)) + "," + ok + ","
          + quote(json) + ")");
    }
  }

  /** As a script's string: older WebViews end a line at two letters that JSON does not mind. */
  private static String quote(String text) {
    return JSONObject.quote(text).replace("\u2028", "\\u2028").replace("\u2029", "\\u2029");
  }

  /** What the page sees as window.bveAndroid. */
  final class Door {
    private final int number;

    Door(int number) {
      this.number = number;
    }

    @JavascriptInterface
    public void call(String id, String verb, String json) {
      bridge.call(number + ":" + id, verb, json);
    }
  }
}
