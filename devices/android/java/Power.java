package bigvit.edge;

import android.content.Context;
import android.os.Build;
import java.lang.reflect.InvocationHandler;
import java.lang.reflect.Method;
import java.lang.reflect.Proxy;
import java.util.List;
import java.util.concurrent.ArrayBlockingQueue;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.Executor;
import java.util.concurrent.TimeUnit;
import org.json.JSONException;
import org.json.JSONObject;

/** Android 15's PowerMonitor: what the phone's rails and its parts have used since the start. */
final class Power {
  private static final int SINCE = 35, ANSWER_S = 10;
  private static final Executor AT_ONCE = new Executor() {
    @Override
    public void execute(Runnable job) {
      job.run();
    }
  };

  private Power() {}

  /** As Readings tells them. */
  static JSONObject read(Context context) throws UserError, JSONException {
    if (Build.VERSION.SDK_INT < SINCE) {
      throw new UserError("Android " + Build.VERSION.RELEASE, "Android 15, which first tells apps what they use", "");
    }
    try {
      Object health = context.getSystemService("systemhealth");
      Class<?> consumer = Class.forName("java.util.function.Consumer");
      BlockingQueue<Object> found = new ArrayBlockingQueue<Object>(1);
      Later.call(health, "getSupportedPowerMonitors", new Class<?>[] {Executor.class, consumer}, AT_ONCE,
          listen(consumer, "accept", found));
      List<?> monitors = (List<?>) wait(found);
      if (monitors == null || monitors.isEmpty()) {
        throw new UserError("a phone without energy counters", "one that has them, as Pixels do", "");
      }
      Class<?> receiver = Class.forName("android.os.OutcomeReceiver");
      BlockingQueue<Object> told = new ArrayBlockingQueue<Object>(1);
      Later.call(health, "getPowerMonitorReadings", new Class<?>[] {List.class, Executor.class, receiver}, monitors,
          AT_ONCE, listen(receiver, "onResult", told));
      Object readings = wait(told);
      if (readings == null) {
        throw new UserError("energy counters that do not answer", "an answer in " + ANSWER_S + " s", "try again");
      }
      return Readings.describe(monitors, readings);
    } catch (ClassNotFoundException e) {
      throw new UserError("an Android without " + e.getMessage(), "Android 15", "");
    }
  }

  private static Object listen(Class<?> kind, final String method, final BlockingQueue<Object> heard) {
    return Proxy.newProxyInstance(kind.getClassLoader(), new Class<?>[] {kind}, new InvocationHandler() {
      @Override
      public Object invoke(Object self, Method called, Object[] words) {
        if (called.getName().equals(method) && words[0] != null) {
          heard.offer(words[0]);
        }
        return null;
      }
    });
  }

  private static Object wait(BlockingQueue<Object> heard) {
    try {
      return heard.poll(ANSWER_S, TimeUnit.SECONDS);
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
      return null;
    }
  }
}
