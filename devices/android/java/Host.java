package bigvit.edge;

import java.io.File;
import java.io.IOException;
import java.io.InputStream;
import org.json.JSONException;
import org.json.JSONObject;

/**
 * What only the phone can do, for Bridge. Called on its threads, never on the screen's; a verb that asks a person waits
 * for the answer. UserError: with words for the person.
 */
interface Host {
  /** A file that a person chose: its name, and its bytes, which whoever gets them closes. */
  final class Picked {
    final String name;
    final InputStream bytes;

    Picked(String name, InputStream bytes) {
      this.name = name;
      this.bytes = bytes;
    }
  }

  /** Ask for a file; null when none is wanted. */
  Picked pick() throws UserError, IOException;

  /** Ask for a picture of "gallery" or "camera", as a data URL; null when none is wanted. */
  String picture(String source) throws UserError, IOException;

  /** Tell a person, in passing. */
  void say(String text);

  /** Offer a file to other apps. */
  void share(File file) throws UserError;

  /** Whether it is seen, how often it was not, what Android says of heat. cpuset is Bridge's. */
  JSONObject surroundings() throws JSONException;

  /** Energy counters, as Readings tells them; UserError where the system tells none. */
  JSONObject power() throws UserError, JSONException;

  JSONObject battery() throws JSONException;

  /** Begin, and end, what must go on with the screen off. text: for the notification. */
  void hold(String text) throws UserError;

  void release();

  /** The phone's maker and model, and its Android: "Google Pixel 9", 35. */
  JSONObject phone() throws JSONException;
}
