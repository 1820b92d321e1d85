package dev.bigvit.edge;

import java.nio.ByteBuffer;
import java.util.Objects;

/**
 * A camera's frame as it lies in memory, which is not copied: it has to stay as it is until it was run.
 *
 * <p>rotation: degrees clockwise that turn it upright, 0, 90, 180 or 270, such as CameraX's
 * {@code imageInfo.rotationDegrees}. Colours in YUV are those of Android's cameras, BT.601 of the full range.
 */
public final class Frame {
    private static final int RGBA = 2; // bve.h's numbers
    private static final int YUV420 = 6;
    private static final int MOST_SIDE = 1 << 24;

    private final int format;
    private final int width;
    private final int height;
    private final int rotation;
    private byte[] nv21; // or else
    private ByteBuffer[] planes;
    private int[] strides; // of the first plane's rows, of the others', and of the others' pixels

    private Frame(int format, int width, int height, int rotation) {
        if (width < 1 || height < 1 || width > MOST_SIDE || height > MOST_SIDE) {
            throw new BveException(
                    "a frame of " + width + " x " + height + " pixels", "1 to " + MOST_SIDE + " each", "give its size");
        }
        if (rotation != 0 && rotation != 90 && rotation != 180 && rotation != 270) {
            throw new BveException("a rotation of " + rotation + " degrees", "0, 90, 180 or 270", "give the camera's");
        }
        this.format = format;
        this.width = width;
        this.height = height;
        this.rotation = rotation;
    }

    /** Of NV21 without gaps: all of Y, then V and U by turns. BveException where the bytes are not as many. */
    public static Frame nv21(byte[] bytes, int width, int height, int rotation) {
        Frame frame = new Frame(0, width, height, rotation);
        long wanted = (long) width * height + 2 * ((width + 1) / 2) * ((height + 1L) / 2);
        if (bytes.length != wanted) {
            throw new BveException(
                    bytes.length + " bytes of NV21 for " + width + " x " + height + " pixels", wanted + " bytes",
                    "give its size, or planes where its rows have gaps");
        }
        frame.nv21 = bytes;
        return frame;
    }

    /**
     * Of the three planes of an {@code Image} or {@code ImageProxy} of YUV_420_888: their buffers, each from its present
     * position on, the bytes from a row to the next, and from a U (or V) to the next. BveException on buffers that are not
     * direct or too short for that.
     */
    public static Frame yuv420(
            int width, int height, ByteBuffer y, int yRowStride, ByteBuffer u, ByteBuffer v, int uvRowStride,
            int uvPixelStride, int rotation) {
        Frame frame = new Frame(YUV420, width, height, rotation);
        long half = ((width + 1L) / 2 - 1) * Math.max(1, uvPixelStride) + 1; // to the last pixel, of one byte
        frame.planes = new ByteBuffer[] {
            view("y", y, height, width, yRowStride),
            view("u", u, (height + 1) / 2, half, uvRowStride),
            view("v", v, (height + 1) / 2, half, uvRowStride)
        };
        frame.strides = new int[] {yRowStride, uvRowStride, uvPixelStride};
        return frame;
    }

    /** Of one plane of RGBA, as of CameraX's OUTPUT_IMAGE_FORMAT_RGBA_8888. It is taken as opaque. BveException as above. */
    public static Frame rgba(int width, int height, ByteBuffer pixels, int rowStride, int rotation) {
        Frame frame = new Frame(RGBA, width, height, rotation);
        frame.planes = new ByteBuffer[] {view("pixels", pixels, height, 4L * width, rowStride), null, null};
        frame.strides = new int[] {rowStride, 0, 0};
        return frame;
    }

    /** Hands it to a session for its next run without an image. */
    boolean set(long session, byte[] error) {
        if (nv21 != null) {
            return Bve.setBytes(session, nv21, width, height, rotation, error);
        }
        return Bve.setPlanes(
                session, format, width, height, rotation, planes[0], strides[0], planes[1], planes[2],
                strides[1], strides[2], error);
    }

    /** What was checked: a view of its own, which the caller's reading of the buffer does not move. */
    private static ByteBuffer view(String name, ByteBuffer plane, int height, long row, int stride) {
        if (!Objects.requireNonNull(plane).isDirect()) {
            throw new BveException(
                    "a buffer for " + name + " on Java's heap", "a direct one, as a camera's", "give arrays of NV21");
        }
        if (stride < row || plane.remaining() < (height - 1L) * stride + row) {
            throw new BveException(
                    plane.remaining() + " bytes of " + name + " with " + stride + " bytes a row",
                    "at least " + row + " bytes for each of " + height + " rows", "give the plane's own strides");
        }
        return plane.slice();
    }
}
