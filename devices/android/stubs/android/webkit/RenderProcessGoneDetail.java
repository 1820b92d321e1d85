package android.webkit;

/** Android 8's own, which an android.jar of Android 6 lacks: for javac alone, and not in the app. */
public abstract class RenderProcessGoneDetail {
  public abstract boolean didCrash();
}
