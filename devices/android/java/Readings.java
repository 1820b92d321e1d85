package bigvit.edge;

import java.util.List;
import org.json.JSONArray;
import org.json.JSONException;
import org.json.JSONObject;

/** What Android's power monitors say, each by its own clock. */
final class Readings {
  private static final int MEASUREMENT = 1; // PowerMonitor.POWER_MONITOR_TYPE_MEASUREMENT: a rail; else a part

  private Readings() {}

  /**
   * {"monitors": [{"name", "rail": whether it is measured there, not a part that may be modelled, "uj": microjoules
   * since some time, "ms": when that was read}]}, of PowerMonitors and PowerMonitorReadings. What is not told is left
   * out.
   */
  static JSONObject describe(List<?> monitors, Object readings) throws JSONException {
    JSONArray told = new JSONArray();
    for (Object monitor : monitors) {
      Class<?>[] types = {monitor.getClass()};
      Object energy = Later.call(readings, "getConsumedEnergy", types, monitor);
      Object time = Later.call(readings, "getTimestampMillis", types, monitor);
      if (energy instanceof Long && (Long) energy >= 0 && time instanceof Long) { // below 0: not told
        JSONObject each = new JSONObject().put("name", String.valueOf(Later.call(monitor, "getName")));
        each.put("rail", Integer.valueOf(MEASUREMENT).equals(Later.call(monitor, "getType")));
        told.put(each.put("uj", energy).put("ms", time));
      }
    }
    return new JSONObject().put("monitors", told);
  }
}
