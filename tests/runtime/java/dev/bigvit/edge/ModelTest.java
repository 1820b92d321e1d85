package dev.bigvit.edge;

import static org.junit.Assert.assertArrayEquals;
import static org.junit.Assert.assertEquals;
import static org.junit.Assert.assertFalse;
import static org.junit.Assert.assertNotEquals;
import static org.junit.Assert.assertSame;
import static org.junit.Assert.assertTrue;

import android.graphics.Bitmap;
import java.io.File;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.FloatBuffer;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.concurrent.Callable;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import org.junit.Test;

/** The Java API against what Python's Session answers; tests/runtime/test_java.py writes the files and runs this. */
public class ModelTest {
    private static final File FOLDER = new File(System.getProperty("bve.folder"));
    private static final int WIDTH = 37;
    private static final int HEIGHT = 23;

    /** As Android's, of a picture that is in the folder. */
    private static final class Painted extends Bitmap {
        private final int[] argb = readInts("picture.argb");

        @Override
        public int getWidth() {
            return WIDTH;
        }

        @Override
        public int getHeight() {
            return HEIGHT;
        }

        @Override
        public void getPixels(int[] pixels, int offset, int stride, int x, int y, int width, int height) {
            assertEquals(Arrays.asList(0, WIDTH, 0, 0, WIDTH, HEIGHT), Arrays.asList(offset, stride, x, y, width, height));
            System.arraycopy(argb, 0, pixels, 0, argb.length);
        }
    }

    private static File file() {
        return new File(FOLDER, "модель \uD83E\uDD8A.bve");
    }

    private static byte[] read(String name) {
        try {
            return Files.readAllBytes(new File(FOLDER, name).toPath());
        } catch (IOException e) {
            throw new AssertionError(e);
        }
    }

    private static int[] readInts(String name) {
        ByteBuffer bytes = ByteBuffer.wrap(read(name)).order(ByteOrder.LITTLE_ENDIAN);
        int[] values = new int[bytes.remaining() / 4];
        bytes.asIntBuffer().get(values);
        return values;
    }

    private static float[] readFloats(String name) {
        ByteBuffer bytes = ByteBuffer.wrap(read(name)).order(ByteOrder.LITTLE_ENDIAN);
        float[] values = new float[bytes.remaining() / 4];
        bytes.asFloatBuffer().get(values);
        return values;
    }

    private static FloatBuffer allocate(int count) {
        return ByteBuffer.allocateDirect(count * 4).order(ByteOrder.nativeOrder()).asFloatBuffer();
    }

    private static BveException refuse(Callable<?> work) {
        try {
            work.call();
        } catch (BveException e) {
            assertFalse(e.getMet().isEmpty());
            assertFalse(e.getExpected().isEmpty());
            assertTrue(e.getMessage(), e.getMessage().startsWith(e.getMet() + "; expected " + e.getExpected()));
            return e;
        } catch (Exception e) {
            throw new AssertionError(e);
        }
        throw new AssertionError("nothing was refused");
    }

    private static void assertRefused(String met, String expected, String action, Callable<?> work) {
        BveException e = refuse(work);
        assertTrue(e.getMessage(), e.getMet().contains(met));
        assertTrue(e.getMessage(), e.getExpected().contains(expected));
        assertTrue(e.getMessage(), e.getAction().contains(action));
    }

    // ---- what it answers -------------------------------------------------------------------------------------------

    @Test
    public void aModelTellsWhatItIs() {
        try (Model model = Model.open(file()); Session session = model.start()) {
            assertEquals(Arrays.asList("кошка", "a \"dog\"", "\uD83E\uDD8A"), model.getLabels());
            assertArrayEquals(new float[] {1, 0.5f}, model.getKeeps(), 0);
            assertEquals("image[1, 3, 16, 16]", session.getInput().toString());
            assertEquals("logits[1, 3]", session.getOutput().toString());
            assertEquals(768, session.getInput().getCount());
            assertTrue(model.describe(), model.describe().contains("\"precision\": \"fp32\""));
            model.verify();
        }
    }

    @Test
    public void logitsAreThoseOfPython() {
        float[] image = readFloats("image.f32");
        try (Model model = Model.open(file())) {
            for (float keep : new float[] {1, 0.5f}) {
                float[] expected = readFloats("logits_" + (keep == 1 ? "1" : "0.5") + ".f32");
                try (Session session = model.start(keep)) {
                    assertArrayEquals(expected, session.run(image), 0);
                    FloatBuffer in = allocate(image.length + 5);
                    FloatBuffer out = allocate(7);
                    in.position(5);
                    in.put(image).position(5);
                    out.position(4);
                    session.run(in, out);
                    float[] logits = new float[3];
                    assertEquals(5, in.position());
                    assertEquals(4, out.position());
                    out.get(logits);
                    assertArrayEquals(expected, logits, 0);
                }
            }
        }
    }

    @Test
    public void bytesAreAsGoodAsAFile() {
        byte[] bytes = read(file().getName());
        try (Model model = Model.open(bytes); Session session = model.start()) {
            Arrays.fill(bytes, (byte) 0); // it has its own
            assertArrayEquals(readFloats("logits_1.f32"), session.run(readFloats("image.f32")), 0);
            model.verify();
        }
    }

    @Test
    public void aBitmapIsPreparedAndClassifiedAsPythonDoes() {
        try (Model model = Model.open(file()); Session session = model.start(0.5f)) {
            assertArrayEquals(readFloats("prepared.f32"), session.prepare(new Painted()), 0);
            List<String> expected = Arrays.asList(new String(read("guesses.txt"), StandardCharsets.UTF_8).split("\n"));
            List<String> found = new ArrayList<String>();
            for (Guess guess : session.classify(new Painted(), 2)) {
                found.add(guess.toString());
            }
            assertEquals(expected.subList(0, 2), found);
            assertEquals(3, session.classify(readInts("picture.argb"), WIDTH, HEIGHT, 100).size());
            assertEquals(0, session.classify(readInts("picture.argb"), WIDTH, HEIGHT, -1).size());
        }
    }

    /** The same frame as three planes, rows some bytes apart, U and V by turns in one memory as Android has them. */
    private static Frame spread(byte[] nv21, int rotation) {
        int half = (WIDTH + 1) / 2;
        int rows = (HEIGHT + 1) / 2;
        ByteBuffer y = ByteBuffer.allocateDirect((WIDTH + 5) * HEIGHT - 5);
        for (int row = 0; row < HEIGHT; row++) {
            y.position(row * (WIDTH + 5));
            y.put(nv21, row * WIDTH, WIDTH);
        }
        y.position(0);
        ByteBuffer vu = ByteBuffer.allocateDirect((2 * half + 3) * rows - 3);
        for (int row = 0; row < rows; row++) {
            vu.position(row * (2 * half + 3));
            vu.put(nv21, WIDTH * HEIGHT + row * 2 * half, 2 * half);
        }
        vu.position(1);
        ByteBuffer u = vu.slice();
        vu.position(0);
        vu.limit(vu.capacity() - 1); // a camera's V ends before the last U
        return Frame.yuv420(WIDTH, HEIGHT, y, WIDTH + 5, u, vu, 2 * half + 3, 2, rotation);
    }

    @Test
    public void aFrameIsRunAsPythonDoes() {
        byte[] nv21 = read("frame.nv21");
        try (Model model = Model.open(file()); Session session = model.start()) {
            for (int rotation : new int[] {0, 90}) {
                float[] expected = readFloats("frame_" + rotation + ".f32");
                assertArrayEquals(expected, session.run(Frame.nv21(nv21, WIDTH, HEIGHT, rotation)), 0);
                assertArrayEquals(expected, session.run(spread(nv21, rotation)), 0);
            }
            ByteBuffer rgba = ByteBuffer.allocateDirect(WIDTH * HEIGHT * 4 + 8);
            rgba.position(8);
            rgba.put(read("picture.rgba")).position(8);
            Frame frame = Frame.rgba(WIDTH, HEIGHT, rgba, WIDTH * 4, 270);
            assertArrayEquals(readFloats("rgba_270.f32"), session.run(frame), 0);
            assertEquals(3, session.classify(frame, 5).size());
            rgba.position(rgba.capacity()); // what the app reads meanwhile moves nothing
            assertArrayEquals(readFloats("rgba_270.f32"), session.run(frame), 0);
        }
    }

    @Test
    public void aFrameThatCannotBeIsRefused() {
        byte[] nv21 = read("frame.nv21");
        ByteBuffer plane = ByteBuffer.allocateDirect(100);
        assertRefused("99 bytes of NV21", "bytes", "give its size", () -> Frame.nv21(new byte[99], 10, 10, 0));
        assertRefused("0 x 10", "", "", () -> Frame.nv21(new byte[0], 0, 10, 0));
        for (int rotation : new int[] {45, -90, 360}) {
            String met = "a rotation of " + rotation;
            assertRefused(met, "90", "", () -> Frame.nv21(nv21, WIDTH, HEIGHT, rotation));
        }
        assertRefused("-1 x 10", "", "", () -> Frame.rgba(-1, 10, plane, 4, 0));
        assertRefused("100 bytes of pixels", "24 bytes for each of 5", "", () -> Frame.rgba(6, 5, plane, 24, 0));
        assertRefused("with 20 bytes a row", "24 bytes for each of 4", "", () -> Frame.rgba(6, 4, plane, 20, 0));
        assertRefused("with -24 bytes a row", "", "", () -> Frame.rgba(6, 4, plane, -24, 0));
        assertRefused("on Java's heap", "direct", "", () -> Frame.rgba(5, 5, ByteBuffer.allocate(100), 20, 0));
        assertRefused("100 bytes of u", "", "", () -> Frame.yuv420(10, 10, plane, 10, plane, plane, 30, 2, 0));
        try (Model model = Model.open(file()); Session session = model.start()) {
            assertRefused("3", "2", "", () -> session.run(Frame.yuv420(5, 4, plane, 5, plane, plane, 7, 3, 0)));
            Session closed = model.start();
            closed.close();
            assertRefused("a session that was closed", "", "", () -> closed.run(Frame.nv21(nv21, WIDTH, HEIGHT, 0)));
        }
    }

    @Test
    public void threadsShareAModelAndASession() throws Exception {
        final float[] image = readFloats("image.f32");
        final float[] expected = readFloats("logits_1.f32");
        ExecutorService pool = Executors.newFixedThreadPool(4);
        try (final Model model = Model.open(file()); final Session shared = model.start()) {
            List<Future<Void>> runs = new ArrayList<Future<Void>>();
            for (int i = 0; i < 4; i++) {
                final boolean own = i % 2 == 0;
                runs.add(pool.submit(new Callable<Void>() {
                    @Override
                    public Void call() {
                        for (int run = 0; run < 50; run++) {
                            try (Session session = own ? model.start() : null) {
                                assertArrayEquals(expected, (own ? session : shared).run(image), 0);
                            }
                        }
                        return null;
                    }
                }));
            }
            for (Future<Void> run : runs) {
                run.get();
            }
        } finally {
            pool.shutdown();
        }
    }

    // ---- what ends -------------------------------------------------------------------------------------------------

    @Test
    public void closingTwiceIsClosingOnce() {
        Model model = Model.open(file());
        Session session = model.start();
        session.close();
        session.close();
        model.close();
        model.close();
    }

    @Test
    public void aSessionOutlivesItsModel() {
        Model model = Model.open(file());
        Session session = model.start();
        model.close();
        assertArrayEquals(readFloats("logits_1.f32"), session.run(readFloats("image.f32")), 0);
        assertEquals(3, session.classify(new Painted(), 3).size());
        session.close();
    }

    @Test
    public void whatWasClosedSaysSo() {
        final Model model = Model.open(file());
        final Session session = model.start();
        session.close();
        assertRefused("a session that was closed", "an open one", "start another", () -> session.run(new float[768]));
        assertRefused("a session that was closed", "an open one", "start another", () -> session.prepare(new Painted()));
        assertRefused("a session that was closed", "an open one", "start another", () -> {
            session.run(allocate(768), allocate(3));
            return null;
        });
        model.close();
        assertRefused("a model that was closed", "an open one", "open it again", () -> model.start());
        assertRefused("a model that was closed", "an open one", "open it again", () -> model.describe());
        assertRefused("a model that was closed", "an open one", "open it again", () -> {
            model.verify();
            return null;
        });
        assertEquals(3, model.getLabels().size());
    }

    // ---- what cannot be --------------------------------------------------------------------------------------------

    @Test
    public void whatIsNoModelIsRefused() {
        assertRefused("missing.bve", "", "", () -> Model.open(new File(FOLDER, "missing.bve")));
        assertRefused("a path with a zero", "the path of a .bve", "check it", () -> Model.open(new File("a\0b")));
        assertRefused("magic", "", "", () -> Model.open(new byte[1000]));
        assertRefused("", "", "", () -> Model.open(new byte[0]));
        byte[] cut = Arrays.copyOf(read(file().getName()), 5000);
        assertRefused("has 5000 bytes", "truncated", "", () -> Model.open(cut));
    }

    @Test
    public void aDamagedWeightIsNamed() {
        byte[] bytes = read(file().getName());
        bytes[bytes.length - 100] ^= 1;
        try (Model model = Model.open(bytes)) {
            assertNotEquals("", refuse(() -> {
                model.verify();
                return null;
            }).getMet());
        }
    }

    @Test
    public void whatDoesNotFitIsRefused() {
        try (Model model = Model.open(file()); Session session = model.start()) {
            assertRefused("keep ratio 0.3", "", "1, 0.5", () -> model.start(0.3f));
            assertRefused("0 threads", "1 to ", "", () -> model.start(1, 0));
            assertRefused("0 threads", "1 to ", "", () -> model.start(1, -1));
            assertRefused("767", "768", "", () -> session.run(new float[767]));
            assertRefused("769", "768", "", () -> session.run(new float[769]));
            assertRefused("buffer on Java's heap", "a direct one", "allocateDirect", () -> {
                session.run(FloatBuffer.allocate(768), allocate(3));
                return null;
            });
            assertRefused("the other byte order", "native order", "allocateDirect", () -> {
                session.run(allocate(768), ByteBuffer.allocateDirect(12).order(ByteOrder.BIG_ENDIAN).asFloatBuffer());
                return null;
            });
            assertRefused("read-only", "", "", () -> {
                session.run(allocate(768), allocate(3).asReadOnlyBuffer());
                return null;
            });
            assertRefused("2", "3", "", () -> {
                session.run(allocate(768), allocate(2));
                return null;
            });
            ByteBuffer odd = ByteBuffer.allocateDirect(768 * 4 + 1);
            odd.position(1);
            assertRefused("within a float", "direct", "allocate", () -> {
                session.run(odd.slice().order(ByteOrder.nativeOrder()).asFloatBuffer(), allocate(3));
                return null;
            });
            assertRefused("4 x 4 pixels in 15 numbers", "each pixel", "size", () -> session.prepare(new int[15], 4, 4));
            assertRefused("-4 x -4", "1 or more", "size", () -> session.prepare(new int[16], -4, -4));
            assertRefused("65536 x 65536", "", "size", () -> session.prepare(new int[16], 65536, 65536));
        }
    }

    @Test
    public void nullIsJavasOwnError() {
        try (Model model = Model.open(file()); Session session = model.start()) {
            for (Callable<?> work : Arrays.<Callable<?>>asList(
                    () -> session.run((float[]) null), () -> session.run((Frame) null),
                    () -> Frame.nv21(null, 1, 1, 0), () -> Frame.rgba(1, 1, null, 4, 0), () -> session.prepare((Bitmap) null), () -> session.prepare(null, 1, 1),
                    () -> Model.open((byte[]) null), () -> Model.open((File) null))) {
                try {
                    work.call();
                    throw new AssertionError();
                } catch (Exception e) {
                    assertSame(NullPointerException.class, e.getClass());
                }
            }
        }
    }
}
