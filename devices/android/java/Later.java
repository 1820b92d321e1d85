package bigvit.edge;

import java.lang.reflect.InvocationTargetException;
import java.lang.reflect.Method;

/** Methods of Androids newer than the one that this is compiled against, by name. */
final class Later {
  private Later() {}

  /** Call one; null where this Android has none, or it has nothing to say. types: of its parameters. */
  static Object call(Object target, String name, Class<?>[] types, Object... words) {
    try {
      Method method = target.getClass().getMethod(name, types);
      return method.invoke(target, words);
    } catch (NoSuchMethodException e) {
      return null;
    } catch (IllegalAccessException e) {
      return null;
    } catch (InvocationTargetException e) {
      if (e.getCause() instanceof RuntimeException) {
        throw (RuntimeException) e.getCause();
      }
      throw new IllegalStateException(e.getCause());
    }
  }

  static Object call(Object target, String name) {
    return call(target, name, new Class<?>[0]);
  }
}
