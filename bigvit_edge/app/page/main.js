// The page with its host: the phone's, where there is a bridge, else the browser's.

import { start } from "./screens.js";

(window.bveAndroid ? import("./android.js") : import("./browser.js")).then(({ host }) => start(host));
