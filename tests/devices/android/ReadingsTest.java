package bigvit.edge;

import static org.junit.Assert.assertEquals;

import java.util.Arrays;
import java.util.Collections;
import org.json.JSONArray;
import org.junit.Test;

/** Android's answers, played by classes with their methods. */
public final class ReadingsTest {
  /** As android.os.PowerMonitor. */
  public static final class Monitor {
    final String name;
    final int type;
    final long energy, time;

    Monitor(String name, int type, long energy, long time) {
      this.name = name;
      this.type = type;
      this.energy = energy;
      this.time = time;
    }

    public String getName() {
      return name;
    }

    public int getType() {
      return type;
    }
  }

  /** As android.os.PowerMonitorReadings. */
  public static final class All {
    public long getConsumedEnergy(Monitor monitor) {
      return monitor.energy;
    }

    public long getTimestampMillis(Monitor monitor) {
      return monitor.time;
    }
  }

  @Test
  public void eachHasItsOwnClockAndItsKindIsAndroidsWord() throws Exception {
    Monitor rail = new Monitor("S4M_VDD_CPUCL0", 1, 7, 1000), part = new Monitor("[CPU]", 0, 9, 2000);
    Monitor silent = new Monitor("UNSUPPORTED", 1, -1, 0);
    JSONArray told = Readings.describe(Arrays.asList(rail, part, silent), new All()).getJSONArray("monitors");
    assertEquals(2, told.length());
    assertEquals("S4M_VDD_CPUCL0", told.getJSONObject(0).getString("name"));
    assertEquals(Arrays.asList(true, 7L, 1000L),
        Arrays.asList(told.getJSONObject(0).getBoolean("rail"), told.getJSONObject(0).getLong("uj"),
            told.getJSONObject(0).getLong("ms")));
    assertEquals(Arrays.asList(false, 9L, 2000L),
        Arrays.asList(told.getJSONObject(1).getBoolean("rail"), told.getJSONObject(1).getLong("uj"),
            told.getJSONObject(1).getLong("ms")));
  }

  @Test
  public void objectsWithoutTheseMethodsTellNothing() throws Exception {
    assertEquals(0, Readings.describe(Collections.singletonList("a"), "b").getJSONArray("monitors").length());
  }
}
