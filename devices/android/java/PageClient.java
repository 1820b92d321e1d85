package bigvit.edge;

import android.content.res.AssetManager;
import android.webkit.RenderProcessGoneDetail;
import android.webkit.WebResourceRequest;
import android.webkit.WebResourceResponse;
import android.webkit.WebView;
import android.webkit.WebViewClient;
import java.io.ByteArrayInputStream;
import java.io.IOException;
import java.io.InputStream;
import java.util.Collections;

/** The page's files, from the app itself under an address that modules can have; nothing else is ever loaded. */
final class PageClient extends WebViewClient {
  private final Page page;
  private final AssetManager assets;

  PageClient(Page page, AssetManager assets) {
    this.page = page;
    this.assets = assets;
  }

  @Override
  public WebResourceResponse shouldInterceptRequest(WebView view, WebResourceRequest request) {
    String address = request.getUrl().toString();
    if (address.startsWith("data:") || address.startsWith("blob:")) {
      return null; // the page's own
    }
    String path = request.getUrl().getPath();
    if (!address.startsWith(Page.ADDRESS) || path == null || path.contains("..")) {
      return refuse(403);
    }
    try {
      InputStream bytes = assets.open("page" + path);
      WebResourceResponse response = new WebResourceResponse(findKind(path), "utf-8", bytes);
      response.setResponseHeaders(Collections.singletonMap("Cache-Control", "no-store"));
      return response;
    } catch (IOException e) {
      return refuse(404);
    }
  }

  @Override
  @SuppressWarnings("deprecation") // the newer one came with Android 7
  public boolean shouldOverrideUrlLoading(WebView view, String address) {
    return true; // no link leads away
  }

  /** Since Android 8, whose method this overrides there. */
  public boolean onRenderProcessGone(WebView view, RenderProcessGoneDetail detail) {
    page.restart();
    return true;
  }

  private static WebResourceResponse refuse(int status) {
    WebResourceResponse response =
        new WebResourceResponse("text/plain", "utf-8", new ByteArrayInputStream(new byte[0]));
    response.setStatusCodeAndReasonPhrase(status, status == 404 ? "Not Found" : "Forbidden");
    return response;
  }

  private static String findKind(String path) {
    String ending = path.substring(path.lastIndexOf('.') + 1);
    switch (ending) {
      case "html":
        return "text/html";
      case "js":
        return "text/javascript";
      case "css":
        return "text/css";
      case "svg":
        return "image/svg+xml";
      default:
        return "application/octet-stream";
    }
  }
}
