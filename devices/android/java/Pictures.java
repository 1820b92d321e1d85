package bigvit.edge;

import android.graphics.Bitmap;
import android.graphics.BitmapFactory;
import android.util.Base64;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.io.InputStream;

/** Pictures as data URLs: as they are where every WebView can read them, so that it also turns them upright. */
final class Pictures {
  private static final int MOST_BYTES = 48 << 20, PART = 1 << 16;
  private static final long MOST_PIXELS = 100L << 20;

  private Pictures() {}

  /** UserError where it is no picture, or too large. */
  static String read(InputStream bytes) throws UserError, IOException {
    byte[] data = readAll(bytes);
    BitmapFactory.Options size = new BitmapFactory.Options();
    size.inJustDecodeBounds = true;
    BitmapFactory.decodeByteArray(data, 0, data.length, size);
    if (size.outWidth <= 0) {
      throw new UserError("a file that this phone reads no picture in", "a photograph or a drawing", "choose another");
    }
    if ((long) size.outWidth * size.outHeight > MOST_PIXELS) {
      throw new UserError(
          size.outWidth + " x " + size.outHeight + " pixels", "at most " + MOST_PIXELS, "choose a smaller picture");
    }
    String kind = size.outMimeType;
    if (!"image/jpeg".equals(kind) && !"image/png".equals(kind) && !"image/webp".equals(kind)) {
      kind = "image/png"; // a HEIC of newer cameras
      data = convert(data);
    }
    return "data:" + kind + ";base64," + Base64.encodeToString(data, Base64.NO_WRAP);
  }

  private static byte[] convert(byte[] data) throws UserError {
    Bitmap picture = BitmapFactory.decodeByteArray(data, 0, data.length);
    if (picture == null) {
      throw new UserError("a picture that this phone cannot decode", "JPEG, PNG or WebP", "choose another");
    }
    ByteArrayOutputStream out = new ByteArrayOutputStream();
    picture.compress(Bitmap.CompressFormat.PNG, 100, out);
    picture.recycle();
    return out.toByteArray();
  }

  private static byte[] readAll(InputStream bytes) throws UserError, IOException {
    try {
      ByteArrayOutputStream out = new ByteArrayOutputStream();
      byte[] piece = new byte[PART];
      for (int n; (n = bytes.read(piece)) >= 0;) {
        out.write(piece, 0, n);
        if (out.size() > MOST_BYTES) {
          throw new UserError(
              "a picture of more than " + (MOST_BYTES >> 20) + " MB", "a smaller one", "choose another");
        }
      }
      return out.toByteArray();
    } finally {
      bytes.close();
    }
  }
}
