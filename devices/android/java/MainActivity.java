package bigvit.edge;

import android.app.Activity;
import android.content.Intent;
import android.os.Bundle;

/** The one window: it shows the process's page, which outlives it, and hands on what other apps answer. */
public final class MainActivity extends Activity {
  static final String TASK = "task"; // the extra of bigvit-edge bench --app

  private Page page;

  @Override
  protected void onCreate(Bundle saved) {
    super.onCreate(saved);
    page = Page.open(getApplicationContext());
    page.attach(this);
    if (saved == null) {
      offer(getIntent());
    }
  }

  @Override
  protected void onNewIntent(Intent intent) {
    offer(intent);
  }

  private void offer(Intent intent) {
    String task = intent == null ? null : intent.getStringExtra(TASK);
    boolean again = intent != null && (intent.getFlags() & Intent.FLAG_ACTIVITY_LAUNCHED_FROM_HISTORY) != 0;
    if (task != null && !again) { // from the list of recent apps the first intent comes once more
      intent.removeExtra(TASK);
      page.offer(task);
    }
  }

  @Override
  protected void onResume() {
    super.onResume();
    page.phone.show(true);
  }

  @Override
  protected void onPause() {
    page.phone.show(false);
    super.onPause();
  }

  @Override
  protected void onActivityResult(int request, int result, Intent answer) {
    page.phone.take(request, result == RESULT_OK ? answer == null ? new Intent() : answer : null);
  }

  @Override
  public void onBackPressed() {
    if (page.goBack()) {
      return;
    }
    if (page.isBusy()) {
      moveTaskToBack(true);
    } else {
      super.onBackPressed();
    }
  }

  @Override
  protected void onDestroy() {
    page.detach(this);
    super.onDestroy();
  }
}
