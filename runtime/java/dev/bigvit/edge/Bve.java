package dev.bigvit.edge;

import java.nio.ByteBuffer;
import java.nio.FloatBuffer;
import java.nio.charset.StandardCharsets;

/**
 * The functions of runtime/doors/jni.cc.
 *
 * <p>Handles are pointers: whoever calls holds what keeps them valid. Texts are UTF-8 bytes. What fails returns 0, false
 * or null, and has written its reason into {@code error}, which ends with a 0.
 */
final class Bve {
    static final int ERROR_BYTES = 512; // bve.h's BVE_ERROR_BYTES

    static {
        System.loadLibrary("bve_jni");
    }

    private Bve() {}

    static native long open(byte[] path, byte[] error);

    /** Of a copy of the bytes. */
    static native long openBytes(byte[] bytes, byte[] error);

    static native void close(long program);

    static native boolean verify(long program, byte[] error);

    static native byte[] describe(long program);

    /** Null beyond the last. */
    static native byte[] label(long program, int index);

    static native float[] keeps(long program);

    static native long start(long program, float keep, int threads, byte[] error);

    static native void stop(long session);

    static native int countImage(long session);

    static native int countLogits(long session);

    /** Without an image: of the frame that was set. */
    static native boolean run(long session, float[] image, float[] logits, byte[] error);

    /** Of direct buffers, each from an offset on, in floats. */
    static native boolean runDirect(
            long session, FloatBuffer image, int imageOffset, int imageCount,
            FloatBuffer logits, int logitsOffset, int logitsCount, byte[] error);

    /** Of width x height pixels, as Bitmap.getPixels gives them. */
    static native boolean prepare(long session, int[] argb, int width, int height, float[] image, byte[] error);

    /** For the next run without an image, of NV21 that fills the array. */
    static native boolean setBytes(long session, byte[] nv21, int width, int height, int rotation, byte[] error);

    /** The same of direct buffers, one or three, each from its first byte on. */
    static native boolean setPlanes(
            long session, int format, int width, int height, int rotation,
            ByteBuffer first, int firstStride, ByteBuffer second, ByteBuffer third, int otherStride, int pixelStride,
            byte[] error);

    static byte[] encode(String text) {
        return text.getBytes(StandardCharsets.UTF_8);
    }

    static String decode(byte[] text) {
        int count = 0;
        while (count < text.length && text[count] != 0) {
            count++;
        }
        return new String(text, 0, count, StandardCharsets.UTF_8);
    }
}
