package bigvit.edge;

import java.io.ByteArrayOutputStream;

/** RFC 4648's base64, which Android and the JVM of before 2014 have under no common name. */
final class Base64 {
  private static final String LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

  private Base64() {}

  static byte[] decode(String text) throws UserError {
    ByteArrayOutputStream bytes = new ByteArrayOutputStream(text.length() / 4 * 3);
    int bits = 0, kept = 0, end = text.length();
    while (end > 0 && text.charAt(end - 1) == '=') {
      end--;
    }
    for (int i = 0; i < end; i++) {
      int value = LETTERS.indexOf(text.charAt(i));
      if (value < 0) {
        throw new UserError("'" + text.charAt(i) + "' in a file's text", "base64", "");
      }
      bits = bits << 6 | value;
      if ((kept += 6) >= 8) {
        kept -= 8;
        bytes.write(bits >> kept);
      }
    }
    return bytes.toByteArray();
  }
}
