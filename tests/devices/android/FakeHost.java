package bigvit.edge;

import java.io.File;
import java.util.ArrayList;
import java.util.List;
import org.json.JSONException;
import org.json.JSONObject;

/** A phone whose person chooses what a test says. */
final class FakeHost implements Host {
  final List<String> said = new ArrayList<String>();
  Picked picked;
  File shared;
  int held;
  boolean refuses;

  @Override
  public Picked pick() {
    return picked;
  }

  @Override
  public String picture(String source) {
    return source.equals("camera") ? null : "data:image/png;base64,AAAA";
  }

  @Override
  public void say(String text) {
    said.add(text);
  }

  @Override
  public void share(File file) {
    shared = file;
  }

  @Override
  public JSONObject surroundings() throws JSONException {
    return new JSONObject().put("foreground", true).put("away", 0);
  }

  @Override
  public JSONObject power() throws UserError {
    throw new UserError("Android 14", "Android 15", "");
  }

  @Override
  public JSONObject battery() {
    return new JSONObject();
  }

  @Override
  public void hold(String text) throws UserError {
    held++;
    if (refuses) {
      throw new UserError("an app that is not on the screen", "its window", "");
    }
  }

  @Override
  public void release() {
    held--;
  }

  @Override
  public JSONObject phone() throws JSONException {
    return new JSONObject().put("name", "A Phone").put("android", 34);
  }
}
