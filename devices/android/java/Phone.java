package bigvit.edge;

import android.app.Activity;
import android.content.ActivityNotFoundException;
import android.content.ClipData;
import android.content.ContentResolver;
import android.content.Context;
import android.content.Intent;
import android.content.IntentFilter;
import android.database.Cursor;
import android.net.Uri;
import android.os.BatteryManager;
import android.os.Build;
import android.os.Handler;
import android.os.PowerManager;
import android.provider.MediaStore;
import android.provider.OpenableColumns;
import android.view.WindowManager;
import android.webkit.WebSettings;
import android.widget.Toast;
import java.io.File;
import java.io.FileInputStream;
import java.io.IOException;
import java.io.InputStream;
import java.util.concurrent.ArrayBlockingQueue;
import java.util.concurrent.BlockingQueue;
import org.json.JSONException;
import org.json.JSONObject;

/** The phone, to Bridge: other apps are asked by intents, one at a time, and Android about heat, battery and power. */
final class Phone implements Host {
  private static final Intent CANCELLED = new Intent();

  private volatile Activity activity; // the window that is there, or null
  private final Context context;
  private final Handler screen;
  private final BlockingQueue<Intent> answers = new ArrayBlockingQueue<Intent>(1);
  private int asked; // of how many requests the last is
  private boolean asking;
  private boolean awake; // of the screen's thread
  private volatile boolean shown;
  private volatile int away;

  Phone(Context context, Handler screen) {
    this.context = context;
    this.screen = screen;
  }

  Activity activity() {
    return activity;
  }

  /** The window that is there from now on, or null. For the screen's thread, as keepScreenOn. */
  void attach(Activity activity) {
    this.activity = activity;
    keepScreenOn(awake);
  }

  /** The window came to the front, or left it. */
  void show(boolean now) {
    if (shown && !now) {
      away++;
    }
    shown = now;
  }

  /** What another app answered; null: nothing. */
  synchronized void take(int request, Intent answer) {
    if (asking && request == asked) {
      answers.offer(answer == null ? CANCELLED : answer);
    }
  }

  @Override
  public void say(final String text) {
    screen.post(new Runnable() {
      @Override
      public void run() {
        Toast.makeText(context, text, Toast.LENGTH_LONG).show();
      }
    });
  }

  @Override
  public Picked pick() throws UserError, IOException {
    Uri uri = choose("*/*", "a file picker");
    return uri == null ? null : new Picked(findName(uri), open(uri));
  }

  @Override
  public String picture(String source) throws UserError, IOException {
    if (!source.equals("camera")) {
      Uri uri = choose("image/*", "a gallery");
      return uri == null ? null : Pictures.read(open(uri));
    }
    File file = FilesProvider.camera(context);
    Store.remove(file);
    Uri uri = FilesProvider.name(file);
    Intent intent = new Intent(MediaStore.ACTION_IMAGE_CAPTURE).putExtra(MediaStore.EXTRA_OUTPUT, uri);
    intent.setClipData(ClipData.newRawUri(null, uri));
    intent.addFlags(Intent.FLAG_GRANT_READ_URI_PERMISSION | Intent.FLAG_GRANT_WRITE_URI_PERMISSION);
    if (ask(intent, "a camera") == null || !file.isFile() || file.length() == 0) {
      return null;
    }
    try {
      return Pictures.read(new FileInputStream(file));
    } finally {
      Store.remove(file);
    }
  }

  private Uri choose(String kind, String what) throws UserError {
    Intent intent = new Intent(Intent.ACTION_OPEN_DOCUMENT).addCategory(Intent.CATEGORY_OPENABLE).setType(kind);
    Intent answer = ask(intent, what);
    return answer == null ? null : answer.getData();
  }

  /** Start another app and wait for what it answers, null for nothing. */
  private Intent ask(final Intent intent, String what) throws UserError {
    final int request;
    synchronized (this) {
      if (asking) {
        throw new UserError("a picker or camera that is open already", "one at a time", "answer that first");
      }
      asking = true;
      request = asked = asked % 0xffff + 1; // of 16 bits
      answers.clear();
    }
    final Activity window = activity;
    final boolean[] missing = new boolean[1];
    try {
      if (window == null) {
        throw new UserError("an app that is not on the screen", "its window", "open it, and choose again");
      }
      screen.post(new Runnable() {
        @Override
        public void run() {
          try {
            window.startActivityForResult(intent, request);
          } catch (ActivityNotFoundException e) {
            missing[0] = true;
            take(request, null);
          } catch (SecurityException e) {
            missing[0] = true;
            take(request, null);
          }
        }
      });
      Intent answer = answers.take();
      if (missing[0]) {
        throw new UserError("a phone without " + what + " that lets itself be asked", "one", "install one");
      }
      return answer == CANCELLED ? null : answer;
    } catch (InterruptedException e) {
      return null; // the app ends
    } finally {
      synchronized (this) {
        asking = false;
      }
    }
  }

  private InputStream open(Uri uri) throws UserError, IOException {
    try {
      InputStream bytes = context.getContentResolver().openInputStream(uri);
      if (bytes != null) {
        return bytes;
      }
    } catch (SecurityException e) {
      throw new UserError("a file that its owner does not let be read", "one that can be", "choose another");
    }
    throw new UserError("a file that is not there any more", "one that is", "choose another");
  }

  private String findName(Uri uri) {
    ContentResolver resolver = context.getContentResolver();
    Cursor row = resolver.query(uri, new String[] {OpenableColumns.DISPLAY_NAME}, null, null, null);
    try {
      return row != null && row.moveToFirst() && row.getString(0) != null ? row.getString(0) : "model.bve";
    } finally {
      if (row != null) {
        row.close();
      }
    }
  }

  @Override
  public void share(File file) throws UserError {
    Uri uri = FilesProvider.name(file);
    Intent send = new Intent(Intent.ACTION_SEND).setType("application/json").putExtra(Intent.EXTRA_STREAM, uri);
    send.putExtra(Intent.EXTRA_SUBJECT, file.getName()).setClipData(ClipData.newRawUri(null, uri));
    send.addFlags(Intent.FLAG_GRANT_READ_URI_PERMISSION);
    Activity window = activity;
    if (window == null) {
      throw new UserError("an app that is not on the screen", "its window", "open it, and share again");
    }
    window.startActivity(Intent.createChooser(send, file.getName()).addFlags(Intent.FLAG_GRANT_READ_URI_PERMISSION));
  }

  @Override
  public JSONObject surroundings() throws JSONException {
    PowerManager power = (PowerManager) context.getSystemService(Context.POWER_SERVICE);
    Object status = Later.call(power, "getCurrentThermalStatus");
    Object headroom = Later.call(power, "getThermalHeadroom", new Class<?>[] {int.class}, 0);
    boolean told = headroom instanceof Float && !((Float) headroom).isNaN();
    JSONObject said = new JSONObject().put("foreground", shown).put("away", away);
    said.put("thermal_status", status == null ? JSONObject.NULL : status);
    said.put("thermal_headroom", told ? (Object) ((Float) headroom).doubleValue() : JSONObject.NULL);
    return said.put("agent", WebSettings.getDefaultUserAgent(context));
  }

  @Override
  public JSONObject power() throws UserError, JSONException {
    return Power.read(context);
  }

  @Override
  public JSONObject battery() throws JSONException {
    Intent state = context.registerReceiver(null, new IntentFilter(Intent.ACTION_BATTERY_CHANGED));
    BatteryManager battery = (BatteryManager) context.getSystemService(Context.BATTERY_SERVICE);
    int current = battery.getIntProperty(BatteryManager.BATTERY_PROPERTY_CURRENT_NOW);
    boolean told = current != Integer.MIN_VALUE && current != 0; // either means that there is no such sensor
    JSONObject said = new JSONObject().put("current_ua", told ? (Object) current : JSONObject.NULL);
    if (state == null) {
      return said;
    }
    said.put("charging", state.getIntExtra(BatteryManager.EXTRA_PLUGGED, 0) != 0);
    said.put("level", state.getIntExtra(BatteryManager.EXTRA_LEVEL, -1));
    said.put("voltage_mv", state.getIntExtra(BatteryManager.EXTRA_VOLTAGE, -1));
    return said.put("temp_c", state.getIntExtra(BatteryManager.EXTRA_TEMPERATURE, 0) / 10.0);
  }

  @Override
  public void hold(String text) throws UserError {
    HoldService.begin(context, text);
    wake(true);
  }

  @Override
  public void release() {
    wake(false);
    HoldService.end(context);
  }

  /** While it measures and is seen, the screen is not turned off by itself. */
  private void wake(final boolean on) {
    screen.post(new Runnable() {
      @Override
      public void run() {
        keepScreenOn(on);
      }
    });
  }

  private void keepScreenOn(boolean on) {
    awake = on;
    if (activity == null) {
      return;
    }
    if (on) {
      activity.getWindow().addFlags(WindowManager.LayoutParams.FLAG_KEEP_SCREEN_ON);
    } else {
      activity.getWindow().clearFlags(WindowManager.LayoutParams.FLAG_KEEP_SCREEN_ON);
    }
  }

  @Override
  public JSONObject phone() throws JSONException {
    String maker = Build.MANUFACTURER, model = Build.MODEL;
    String name = model.toLowerCase().startsWith(maker.toLowerCase()) ? model : maker + " " + model;
    return new JSONObject().put("name", name).put("android", Build.VERSION.SDK_INT);
  }
}
