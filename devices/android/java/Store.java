package bigvit.edge;

import java.io.ByteArrayInputStream;
import java.io.ByteArrayOutputStream;
import java.io.File;
import java.io.FileInputStream;
import java.io.FileOutputStream;
import java.io.IOException;
import java.io.InputStream;
import java.io.OutputStream;
import java.security.MessageDigest;
import java.security.NoSuchAlgorithmException;
import java.util.Arrays;
import java.util.UUID;

/**
 * The app's files, each written whole or not at all: beside its place under another name, then renamed. Names come from
 * pages and people: none leads out of its folder.
 */
final class Store {
  /** What a name may look like, and how long it may be. */
  private static final String NAME = "[A-Za-z0-9][A-Za-z0-9._-]*";
  private static final int LONGEST = 120, PART = 1 << 16;
  private static final long SPARE = 1 << 20; // bytes, left free beside a file
  private static final String UNFINISHED = ".part";

  final File models, brought, results, tasks, scratch;

  /**
   * models, scratch: in folders of the app's own; results, tasks: in one that a computer behind adb can read. brought
   * and scratch are empty when the app begins.
   */
  Store(File own, File cache, File shown) {
    models = new File(own, "models");
    brought = new File(models, "brought");
    scratch = new File(cache, "scratch");
    results = new File(shown, "results");
    tasks = new File(shown, "tasks");
  }

  /** Make the folders, and clear what an earlier end has left half done. */
  void prepare() throws UserError {
    for (File folder : new File[] {models, brought, results, tasks, scratch}) {
      if (!folder.isDirectory() && !folder.mkdirs()) {
        throw new UserError(
            folder + " cannot be made", "room for the app's files", "free some, and open the app again");
      }
    }
    remove(list(scratch));
    remove(list(brought));
    for (File folder : new File[] {results, tasks}) {
      for (File file : list(folder)) {
        if (isUnfinished(file)) {
          remove(file);
        }
      }
    }
  }

  /** Whether it is what an earlier end has left half done. */
  static boolean isUnfinished(File file) {
    return file.getName().endsWith(UNFINISHED);
  }

  /** A file of that name in a folder, there or not. */
  static File locate(File folder, String name) throws UserError {
    if (!name.matches(NAME) || name.length() > LONGEST || name.endsWith(UNFINISHED)) {
      throw new UserError("the name '" + name + "'", "letters, digits and ._-, at most " + LONGEST, "");
    }
    return new File(folder, name);
  }

  /** A name in letters that every file system takes. */
  static String simplify(String name) {
    String simple = name.replaceAll("[^A-Za-z0-9._-]", "_").replaceAll("^[._-]+", "");
    int cut = Math.max(0, simple.length() - LONGEST / 2);
    return simple.isEmpty() ? "model.bve" : simple.substring(cut).replaceAll("^[._-]+", "");
  }

  /**
   * Write what a stream holds to `target`; returns the sha256, in hex. name: for people; start: what it must begin
   * with, which `expected` says in words; sha256: what it must be, null for anything.
   */
  static String write(InputStream bytes, File target, String name, byte[] start, String expected, String sha256)
      throws UserError, IOException {
    File part = new File(target.getParentFile(), UUID.randomUUID() + UNFINISHED);
    try {
      String hash = copy(bytes, part, name, start, expected);
      if (sha256 != null && !sha256.equals(hash)) {
        throw new UserError(name + " with the sha256 " + hash, sha256, "install the app again");
      }
      if (!part.renameTo(target)) {
        throw new IOException("cannot rename " + part + " to " + target);
      }
      return hash;
    } finally {
      part.delete();
    }
  }

  static void write(String text, File target) throws UserError, IOException {
    write(new ByteArrayInputStream(text.getBytes(Programs.UTF_8)), target, target.getName(), new byte[0], "", null);
  }

  private static String copy(InputStream bytes, File part, String name, byte[] start, String expected)
      throws UserError, IOException {
    MessageDigest digest = sha256();
    byte[] piece = new byte[PART];
    int first = fill(bytes, piece);
    if (first < start.length || !Arrays.equals(start, Arrays.copyOf(piece, start.length))) {
      throw new UserError(name + ", which is none", expected, "choose another file");
    }
    FileOutputStream out = new FileOutputStream(part);
    try {
      for (int n = first; n > 0; n = fill(bytes, piece)) {
        if (part.getUsableSpace() < n + SPARE) {
          throw noRoom(name);
        }
        digest.update(piece, 0, n);
        out.write(piece, 0, n);
      }
      out.getFD().sync();
    } catch (IOException e) {
      if (isFull(e)) {
        throw noRoom(name);
      }
      throw e;
    } finally {
      out.close();
    }
    return hex(digest.digest());
  }

  static boolean isFull(IOException e) {
    String said = String.valueOf(e.getMessage());
    return said.contains("ENOSPC") || said.contains("No space left") || said.contains("EDQUOT");
  }

  private static UserError noRoom(String name) {
    return new UserError(
        "no room for " + name + " on this phone", "its size and 1 MB free", "free some, and try again");
  }

  static String hash(File file) throws IOException {
    InputStream bytes = new FileInputStream(file);
    try {
      MessageDigest digest = sha256();
      byte[] piece = new byte[PART];
      for (int n; (n = fill(bytes, piece)) > 0;) {
        digest.update(piece, 0, n);
      }
      return hex(digest.digest());
    } finally {
      bytes.close();
    }
  }

  static String read(InputStream bytes) throws IOException {
    try {
      ByteArrayOutputStream out = new ByteArrayOutputStream();
      copy(bytes, out);
      return new String(out.toByteArray(), Programs.UTF_8);
    } finally {
      bytes.close();
    }
  }

  static String read(File file) throws IOException {
    return read(new FileInputStream(file));
  }

  /** Files in order of name; none where there is no such folder. */
  static File[] list(File folder) {
    File[] files = folder.listFiles();
    if (files == null) {
      return new File[0];
    }
    Arrays.sort(files);
    return files;
  }

  static void remove(File... files) {
    for (File file : files) {
      if (file.isDirectory()) {
        remove(list(file));
      }
      file.delete();
    }
  }

  private static void copy(InputStream from, OutputStream to) throws IOException {
    byte[] piece = new byte[PART];
    for (int n; (n = fill(from, piece)) > 0;) {
      to.write(piece, 0, n);
    }
  }

  /** Read until the piece is full or the stream ends; how many. */
  private static int fill(InputStream bytes, byte[] piece) throws IOException {
    int filled = 0;
    for (int n; filled < piece.length && (n = bytes.read(piece, filled, piece.length - filled)) >= 0;) {
      filled += n;
    }
    return filled;
  }

  private static MessageDigest sha256() {
    try {
      return MessageDigest.getInstance("SHA-256");
    } catch (NoSuchAlgorithmException e) {
      throw new AssertionError(e); // every Android and every JVM has it
    }
  }

  private static String hex(byte[] bytes) {
    StringBuilder text = new StringBuilder();
    for (byte each : bytes) {
      text.append(Character.forDigit(each >> 4 & 15, 16)).append(Character.forDigit(each & 15, 16));
    }
    return text.toString();
  }
}
