"""A page in headless Chromium, driven as a person would: by what is on the screen, and by keys."""

import base64
import itertools
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.browser import NAMES
from tests.native import ROOT, skip

WAIT_S = 60.0
AXE = ROOT / "build/npm/node_modules/axe-core/axe.min.js"
KEYS = {"Tab": 9, "Enter": 13, " ": 32, "ArrowDown": 40}


class NavigatedError(Exception):
    """The page that was asked has gone, and another comes."""


class Tab:
    """A page of a browser that runs.

    console: its complaints: errors and warnings of scripts, of the content policy and of what could not be fetched.
    """

    def __init__(self, read: int, write: int) -> None:
        self._read, self._write, self._rest, self._numbers = read, write, b"", itertools.count(1)
        self._session = ""
        self.console: list[str] = []
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.ask(f"{domain}.enable")

    def ask(self, method: str, **words: Any) -> dict[str, Any]:
        """Ask Chromium by a method of its debugging protocol."""
        number = next(self._numbers)
        told: dict[str, Any] = {"id": number, "method": method, "params": words}
        if self._session:
            told["sessionId"] = self._session
        os.write(self._write, json.dumps(told).encode() + b"\0")
        while True:
            answer = self._receive()
            if answer.get("id") == number:
                if "navigated" in answer.get("error", {}).get("message", ""):
                    raise NavigatedError
                assert "error" not in answer, answer
                return dict(answer["result"])

    def open(self, url: str, width: int = 1280, dark: bool = False) -> None:
        """Open an address, and wait until it is loaded."""
        self.look(width, dark)
        self.ask("Page.navigate", url=url)
        self.wait("document.readyState === 'complete' && document.querySelector('h1')")

    def look(self, width: int, dark: bool = False) -> None:
        """Look at it on a screen of that width."""
        self.ask("Emulation.setDeviceMetricsOverride", width=width, height=800, deviceScaleFactor=1, mobile=width < 600)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.ask("Emulation.setEmulatedMedia", features=[scheme, {"name": "prefers-reduced-motion", "value": "reduce"}])

    def evaluate(self, code: str) -> Any:
        """Evaluate an expression, or what its promise holds."""
        told = self.ask("Runtime.evaluate", expression=code, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in told, told["exceptionDetails"]
        return told["result"].get("value")

    def wait(self, code: str) -> None:
        """Wait until an expression holds."""
        end = time.monotonic() + WAIT_S
        while not self._holds(code):
            assert time.monotonic() < end, f"never {code}; the page says {self.evaluate('document.body.innerText')}"
            time.sleep(0.05)

    def _holds(self, code: str) -> bool:
        try:
            return bool(self.evaluate(f"(() => {{ try {{ return Boolean({code}) }} catch (e) {{ return false }} }})()"))
        except NavigatedError:
            return False

    def press(self, key: str) -> None:
        """Press a key."""
        words = {"key": key, "code": key, "windowsVirtualKeyCode": KEYS[key]}
        self.ask("Input.dispatchKeyEvent", type="keyDown", text="\r" if key == "Enter" else key * (key == " "), **words)
        self.ask("Input.dispatchKeyEvent", type="keyUp", **words)

    def click(self, text: str) -> None:
        """Click on the button or link that is called so."""
        find = (
            f"[...document.querySelectorAll('button, a, label')].find(e => e.textContent.trim() === {json.dumps(text)})"
        )
        self.wait(find + " !== undefined")
        self.evaluate(f"{find}.click()")

    def read(self) -> str:
        """Read what a person reads."""
        return str(self.evaluate("document.querySelector('main').innerText"))

    def shoot(self, path: Path) -> None:
        """Save a picture of the whole page."""
        size = self.ask("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": min(size["height"], 6000), "scale": 1}
        path.write_bytes(
            base64.b64decode(self.ask("Page.captureScreenshot", clip=clip, captureBeyondViewport=True)["data"])
        )

    def find_violations(self) -> list[str]:
        """Find what axe-core objects to, on the screen as it is."""
        if not AXE.is_file():
            skip("no axe-core", "make npm-packages")
        self.evaluate(AXE.read_text(encoding="utf-8") + ";0")
        found = self.evaluate("axe.run(document).then(r => r.violations.map(v => [v.id, ...v.nodes.map(n => n.html)]))")
        return [": ".join(each) for each in found]

    def find_overflow(self) -> float:
        """Find by how many pixels the page is wider than the screen."""
        return float(self.evaluate("document.documentElement.scrollWidth - innerWidth"))

    def _receive(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            data = os.read(self._read, 1 << 20)
            assert data, "Chromium has ended"
            self._rest += data
        line, _, self._rest = self._rest.partition(b"\0")
        told: dict[str, Any] = json.loads(line)
        if told.get("method") == "Log.entryAdded" and told["params"]["entry"]["level"] in ("error", "warning"):
            self.console.append(str(told["params"]["entry"]))
        if told.get("method") == "Runtime.exceptionThrown":
            self.console.append(str(told["params"]["exceptionDetails"]))
        if told.get("method") == "Page.javascriptDialogOpening":
            number = next(self._numbers)
            words = {"id": number, "method": "Page.handleJavaScriptDialog", "params": {"accept": True}}
            os.write(self._write, json.dumps({**words, "sessionId": self._session}).encode() + b"\0")
        return told


@contextmanager
def open_chromium(folder: Path, *options: str) -> Iterator[Tab]:
    """Start Chromium with an empty profile in a folder; it ends with the block."""
    program = next((found for name in NAMES if (found := shutil.which(name))), None)
    if program is None:
        skip("no Chromium", "apt-get install chromium")
    (its_read, write), (read, its_write) = os.pipe(), os.pipe()

    command = [  # bash hands the pipes over: a preexec_fn may hang in a process that has threads
        "bash", "-c", f'exec "$@" 3<&{its_read} 4>&{its_write}', "-",
        str(program), "--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-extensions",
        "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage",
        "--hide-scrollbars", f"--user-data-dir={folder / 'user'}", "--remote-debugging-pipe", *options, "about:blank",
    ]  # fmt: skip
    process = subprocess.Popen(
        command, pass_fds=(its_read, its_write), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    os.close(its_read)
    os.close(its_write)
    try:
        yield Tab(read, write)
    finally:
        process.terminate()
        process.wait(30)
        os.close(read)
        os.close(write)
