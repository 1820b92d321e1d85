// The page with its host: the phone's, where there is a bridge, else the browser's. What a browser is too old for, it
// learns here.

Promise.all([import("./screens.js"), window.bveAndroid ? import("./android.js") : import("./browser.js")])
  .then(([{ start }, { host }]) => start(host))
  .catch((error) => {
    document.getElementById("old").hidden = false;
    document.getElementById("message").textContent = `The page cannot begin: ${error.message}`;
  });
