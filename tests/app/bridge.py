"""A phone's side of the page, on this machine: the bridge's verbs over http, with the real bve-run.

What the app's Java does behind window.bveAndroid (bigvit_edge/app/page/android.js is the other side). Each verb is a
method; what it raises as Refusal is the text for the person.
"""

import hashlib
import json
import re
import subprocess
import threading
import time
from base64 import b64decode, b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tests.app.page import PAGE

STYLE = PAGE.parent.parent / "pages.css"
TYPES = {".html": "text/html", ".js": "text/javascript", ".css": "text/css"}
VERBS = ("probe", "info", "serve", "profile", "run")
SHIM = """
window.bveAndroid = {
  call(id, verb, json) {
    fetch(`bridge/${verb}`, { method: "POST", body: json }).then(async (answer) => {
      const [ok, value] = await answer.json();
      window.bve.answer(id, ok, JSON.stringify(value));
    });
  },
};
"""


class Refusal(Exception):
    """Why a verb does not do what it is asked."""


class Phone:
    """The app's side: its models, its programs that run, its results.

    picked, pictured: what the person's next choice is, None: cancelled. plan: what was asked for from outside.
    foreground: whether a person sees it; full: whether there is no space left; free_bytes: of memory, None for what
    there is; killed: whether the system ends what loads a model. calls: which verbs were called, in order; started: the
    words of programs; turns: the lines of all turns; ended: what the app was told of a plan's end; shared: which
    results.
    """

    def __init__(self, folder: Path, bve_run: Path, models: list[Path]) -> None:
        self.folder, self.bve_run = folder, bve_run
        self.models = {f"bundle/{path.name}": path for path in models}
        self.picked: Path | None = None
        self.pictured: bytes | None = None
        self.plan: dict[str, Any] | None = None
        self.foreground, self.full, self.killed = True, False, False
        self.free_bytes: int | None = None
        self.calls: list[str] = []
        self.started: list[list[Any]] = []
        self.turns: list[dict[str, Any]] = []
        self.ended: list[dict[str, Any]] = []
        self.shared: list[str] = []
        self.held = ""
        self._processes: dict[str, subprocess.Popen[str]] = {}
        (folder / "results").mkdir(parents=True, exist_ok=True)

    def answer(self, verb: str, words: dict[str, Any]) -> Any:
        """Do what a verb says."""
        self.calls.append(verb)
        return getattr(self, f"do_{verb}")(**words)

    def close(self) -> None:
        """End the programs that still run."""
        for number in list(self._processes):
            self.do_stop(number)

    def do_machine(self) -> Any:
        machine = json.loads(self._run("probe"))
        if self.free_bytes is not None:
            machine["available_bytes"] = self.free_bytes
        return {"machine": machine, "phone": {"name": "This machine", "android": 34}}

    def do_models(self) -> Any:
        return [self._describe(number) for number in self.models]

    def do_pick(self) -> Any:
        if self.picked is None:
            return None
        number = f"given/{self.picked.name}"
        self.models[number] = self.picked
        try:
            return self._describe(number)
        except Refusal:
            del self.models[number]
            raise

    def do_forget(self, model: str) -> None:
        del self.models[model]

    def do_start(self, words: list[Any]) -> Any:
        if words[0] not in VERBS:
            raise Refusal(f"{words[0]} is not started by the app")
        self.started.append(words)
        process = subprocess.Popen(
            [self.bve_run, *map(self._place, words)], text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )  # fmt: skip
        if self.killed and words[0] == "serve":
            process.kill()
        number = str(1 + len(self._processes))
        self._processes[number] = process
        return {"process": number}

    def do_read(self, process: str) -> Any:
        running = self._processes[process]
        assert running.stdout
        if line := running.stdout.readline():
            if line.startswith('{"start_ns"'):
                self.turns.append(json.loads(line))
            return {"line": line.rstrip("\n")}
        return {"end": self._end(running)}

    def do_write(self, process: str, line: str) -> None:
        stdin = self._processes[process].stdin
        assert stdin
        stdin.write(line + "\n")
        stdin.flush()

    def do_stop(self, process: str) -> Any:
        running = self._processes[process]
        assert running.stdin
        running.stdin.close()
        return self._end(running)

    def do_pause(self, ms: float) -> None:
        time.sleep(ms / 1e3)

    def do_surroundings(self, process: str = "") -> Any:
        told = {"foreground": True, "away": 0 if self.foreground else len(self.calls), "cpuset": "/top-app"}
        return {**told, "thermal_status": 1, "thermal_headroom": 0.42, "agent": "a WebView"}

    def do_power(self) -> Any:
        raise Refusal("Android 14; expected Android 15, which first tells apps what they use")

    def do_picture(self, source: str) -> Any:
        if self.pictured is None:
            return None
        return {"url": "data:image/png;base64," + b64encode(self.pictured).decode()}

    def do_put(self, name: str, base64: str) -> Any:
        (self.folder / name).write_bytes(b64decode(base64))
        return {"scratch": name}

    def do_keep(self, name: str, text: str) -> None:
        if self.full:
            raise Refusal("there is no space left on this device")
        assert re.fullmatch(r"[A-Za-z0-9._-]+\.json", name)
        (self.folder / "results" / name).write_text(text)

    def do_results(self) -> Any:
        paths = sorted((self.folder / "results").iterdir(), key=lambda path: -path.stat().st_mtime)
        dates = [datetime.fromtimestamp(path.stat().st_mtime, UTC).isoformat() for path in paths]
        return [{"name": path.name, "date": date} for path, date in zip(paths, dates, strict=True)]

    def do_read_result(self, name: str) -> Any:
        return {"text": (self.folder / "results" / name).read_text()}

    def do_remove(self, name: str) -> None:
        (self.folder / "results" / name).unlink()

    def do_share(self, name: str) -> None:
        assert (self.folder / "results" / name).is_file()
        self.shared.append(name)

    def do_hold(self, text: str) -> None:
        assert not self.held
        self.held = text

    def do_release(self) -> None:
        self.held = ""

    def do_task(self) -> Any:
        plan, self.plan = self.plan, None
        if plan:
            named = ({**each, "model": self._describe(each["model"])} for each in plan["models"])
            plan = {**plan, "models": list(named)}
        return plan

    def do_done(self, name: str | None, error: str | None, refused: bool) -> None:
        self.ended.append({"name": name, "error": error, "refused": refused})

    def _describe(self, number: str) -> dict[str, Any]:
        path = self.models[number]
        entry, manifest = None, path.parent / "manifest.json"
        if number.startswith("bundle/") and manifest.is_file():
            entries = json.loads(manifest.read_text())["artifacts"]
            entry = next(each for each in entries if each["file"] == path.name)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        told = {"id": number, "name": path.name, "format": "bve", "bytes": path.stat().st_size, "sha256": digest}
        return {**told, "info": json.loads(self._run("info", path)), "entry": entry}

    def _run(self, *words: object) -> str:
        done = subprocess.run([self.bve_run, *map(str, words)], capture_output=True, text=True, check=False)
        if done.returncode:
            raise Refusal(done.stderr.strip().replace(f"{Path(str(words[-1])).parent}/", ""))
        return done.stdout

    def _end(self, running: subprocess.Popen[str]) -> dict[str, Any]:
        assert running.stderr
        status = running.wait()
        killed = "Android stopped bve-run (signal 9), as it does when memory runs out" if status < 0 else ""
        return {"status": abs(status), "error": killed or running.stderr.read()}

    def _place(self, word: Any) -> str:
        if isinstance(word, dict):
            return str(self.models[word["model"]] if "model" in word else self.folder / word["scratch"])
        assert "/" not in word
        return str(word)


@contextmanager
def serve_page(phone: Phone, spoilt: str = "") -> Iterator[str]:
    """Serve the page, and the phone behind it; yields the page's address. spoilt: a file that no browser can read."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            name = self.path.lstrip("/") or "index.html"
            file = STYLE if name == "pages.css" else PAGE / name
            if name == "bridge.js":
                self._send(200, SHIM, TYPES[".js"])
            elif not file.is_file():
                self._send(404, "", "text/plain")
            else:
                text = "0 0" if name == spoilt else file.read_text(encoding="utf-8")
                text = text.replace('<script type="module"', '<script src="bridge.js"></script><script type="module"')
                self._send(200, text, TYPES[file.suffix])

        def do_POST(self) -> None:
            words = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            try:
                told = [True, phone.answer(self.path.rpartition("/")[2], words)]
            except Refusal as e:
                told = [False, str(e)]
            self._send(200, json.dumps(told), "application/json")

        def log_message(self, *_: object) -> None:
            pass

        def _send(self, status: int, text: str, kind: str) -> None:
            self.send_response(status)
            self.send_header("Content-Type", f"{kind}; charset=utf-8")
            self.send_header("Cache-Control", "no-store")
            self.end_headers()
            self.wfile.write(text.encode())

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/"
    finally:
        phone.close()
        server.shutdown()
        server.server_close()
