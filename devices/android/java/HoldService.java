package bigvit.edge;

import android.app.Notification;
import android.app.NotificationManager;
import android.app.PendingIntent;
import android.app.Service;
import android.content.Context;
import android.content.Intent;
import android.os.Build;
import android.os.IBinder;

/**
 * Keeps the process alive while it measures, with the screen off or another app in front; it does nothing itself. Its
 * notification says what goes on, and has a button that cancels it.
 */
public final class HoldService extends Service {
  private static final String CHANNEL = "measuring", CANCEL = "cancel", END = "end", TEXT = "text";
  private static final int NUMBER = 1, SINCE_CHANNELS = 26, IMPORTANCE_LOW = 2;

  /** UserError where Android lets the app begin none, as it does while the app is not seen. */
  static void begin(Context context, String text) throws UserError {
    Intent intent = new Intent(context, HoldService.class).putExtra(TEXT, text);
    try {
      if (Build.VERSION.SDK_INT < SINCE_CHANNELS) {
        context.startService(intent);
      } else {
        Later.call(context, "startForegroundService", new Class<?>[] {Intent.class}, intent);
      }
    } catch (IllegalStateException e) {
      throw new UserError("an app that is not on the screen", "its window, from which Android lets it begin",
          "open it, and start again");
    }
  }

  /** By a command that comes behind that of begin: one that is stopped before it began ends the app. */
  static void end(Context context) {
    try {
      context.startService(new Intent(context, HoldService.class).setAction(END));
    } catch (IllegalStateException e) { // it runs no more
      context.stopService(new Intent(context, HoldService.class));
    }
  }

  private boolean held; // between begin and end

  @Override
  public int onStartCommand(Intent intent, int flags, int number) {
    if (intent != null && CANCEL.equals(intent.getAction())) {
      Page.cancel();
      if (!held) { // a press that came late has started it
        stopSelf(number);
      }
      return START_NOT_STICKY;
    }
    if (intent != null && END.equals(intent.getAction())) {
      held = false;
      stopForeground(true);
      stopSelf(number); // which a begin that came meanwhile outlives
      return START_NOT_STICKY;
    }
    held = true;
    startForeground(NUMBER, write(intent == null ? "" : String.valueOf(intent.getStringExtra(TEXT))));
    return START_NOT_STICKY;
  }

  private Notification write(String text) {
    Intent cancel = new Intent(this, HoldService.class).setAction(CANCEL);
    Intent open = new Intent(this, MainActivity.class).addFlags(Intent.FLAG_ACTIVITY_NEW_TASK);
    int flags = PendingIntent.FLAG_IMMUTABLE | PendingIntent.FLAG_UPDATE_CURRENT;
    Notification.Builder builder = new Notification.Builder(this).setSmallIcon(R.drawable.icon).setOngoing(true);
    builder.setContentTitle(getString(R.string.name)).setContentText(text);
    builder.setContentIntent(PendingIntent.getActivity(this, 0, open, flags));
    builder.addAction(
        new Notification.Action.Builder(null, "Cancel", PendingIntent.getService(this, 1, cancel, flags)).build());
    if (Build.VERSION.SDK_INT >= SINCE_CHANNELS) {
      makeChannel();
      Later.call(builder, "setChannelId", new Class<?>[] {String.class}, CHANNEL);
    }
    return builder.build();
  }

  private void makeChannel() {
    NotificationManager manager = (NotificationManager) getSystemService(NOTIFICATION_SERVICE);
    try {
      Class<?> kind = Class.forName("android.app.NotificationChannel");
      Object channel = kind.getConstructor(String.class, CharSequence.class, int.class)
                           .newInstance(CHANNEL, "Measuring", IMPORTANCE_LOW);
      Later.call(manager, "createNotificationChannel", new Class<?>[] {kind}, channel);
    } catch (ReflectiveOperationException e) {
      throw new IllegalStateException(e); // every Android since SINCE_CHANNELS has it
    }
  }

  @Override
  public IBinder onBind(Intent intent) {
    return null;
  }
}
