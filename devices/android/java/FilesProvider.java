package bigvit.edge;

import android.content.ContentProvider;
import android.content.ContentValues;
import android.content.Context;
import android.database.Cursor;
import android.database.MatrixCursor;
import android.net.Uri;
import android.os.ParcelFileDescriptor;
import android.provider.OpenableColumns;
import java.io.File;
import java.io.FileNotFoundException;
import java.util.List;

/**
 * What other apps are shown, each one file for one time: a result that is shared, and the place where a camera writes.
 * An address is content://AUTHORITY/results/NAME or .../camera/picture.jpg; no other leads to a file.
 */
public final class FilesProvider extends ContentProvider {
  private static final String AUTHORITY = "bigvit.edge.bench.files", RESULTS = "results", CAMERA = "camera";

  static File camera(Context context) {
    File folder = new File(context.getCacheDir(), CAMERA);
    folder.mkdirs(); // a camera that cannot write says so
    return new File(folder, "picture.jpg");
  }

  static Uri name(File file) {
    String kind = file.getParentFile().getName();
    return new Uri.Builder().scheme("content").authority(AUTHORITY).appendPath(kind).appendPath(file.getName()).build();
  }

  @Override
  public boolean onCreate() {
    return true;
  }

  @Override
  public ParcelFileDescriptor openFile(Uri uri, String mode) throws FileNotFoundException {
    File file = find(uri);
    boolean isCamera = file.equals(camera(getContext()));
    if (!isCamera && !mode.equals("r")) {
      throw new FileNotFoundException("a result is not written");
    }
    return ParcelFileDescriptor.open(file, ParcelFileDescriptor.parseMode(mode));
  }

  private File find(Uri uri) throws FileNotFoundException {
    List<String> path = uri.getPathSegments();
    Context context = getContext();
    if (path.size() == 2 && path.get(0).equals(CAMERA) && path.get(1).equals(camera(context).getName())) {
      return camera(context);
    }
    if (path.size() != 2 || !path.get(0).equals(RESULTS)) {
      throw new FileNotFoundException(uri.toString());
    }
    File shown = context.getExternalFilesDir(null);
    File results = new File(shown == null ? context.getFilesDir() : shown, RESULTS);
    try {
      return Store.locate(results, path.get(1));
    } catch (UserError e) {
      throw new FileNotFoundException(e.getMessage());
    }
  }

  @Override
  public String getType(Uri uri) {
    return uri.getPath() != null && uri.getPath().startsWith("/" + CAMERA) ? "image/jpeg" : "application/json";
  }

  @Override
  public Cursor query(Uri uri, String[] columns, String where, String[] words, String order) {
    String[] names = {OpenableColumns.DISPLAY_NAME, OpenableColumns.SIZE};
    MatrixCursor rows = new MatrixCursor(columns == null ? names : columns);
    try {
      File file = find(uri);
      MatrixCursor.RowBuilder row = rows.newRow();
      for (String column : rows.getColumnNames()) {
        row.add(column.equals(names[0]) ? file.getName() : column.equals(names[1]) ? (Object) file.length() : null);
      }
    } catch (FileNotFoundException e) {
      return rows;
    }
    return rows;
  }

  @Override
  public Uri insert(Uri uri, ContentValues values) {
    throw new UnsupportedOperationException();
  }

  @Override
  public int delete(Uri uri, String where, String[] words) {
    throw new UnsupportedOperationException();
  }

  @Override
  public int update(Uri uri, ContentValues values, String where, String[] words) {
    throw new UnsupportedOperationException();
  }
}
