"""A page in a real browser: what it shows, what it asks for, what it complains of."""

import re
import shutil
import subprocess
from pathlib import Path

from tests.native import skip

NAMES = ("chromium", "chromium-browser", "google-chrome")
OWN = re.compile(r"(https?://([\w-]+\.)*(google|googleapis|gvt1)\.com/|chrome|data:|devtools)")  # what it wants itself
MEASURE = """<script>const all = [...document.querySelectorAll('body, section, figure, .row')];
document.body.dataset.beyond = Math.max(...all.map(e => e.getBoundingClientRect().right)) - innerWidth;
document.body.dataset.width = innerWidth;
document.body.dataset.paper = getComputedStyle(document.body).backgroundColor</script>"""


class Opened:
    """A page after Chromium has opened it.

    dom: as it is then; console: its lines; asked: addresses that it wanted but the page's own.
    """

    def __init__(self, page: str, folder: Path, width: int = 1280, dark: bool = False) -> None:
        program = next((found for name in NAMES if (found := shutil.which(name))), None)
        if program is None:
            skip("no Chromium", "apt-get install chromium")
        folder.mkdir(exist_ok=True)
        file, log = folder / "page.html", folder / "net.json"
        file.write_text(page)
        command = [
            str(program), "--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-extensions",
            "--disable-background-networking", "--disable-component-update", "--disable-sync",
            f"--user-data-dir={folder / 'user'}", f"--window-size={width},900", "--enable-logging=stderr",
            "--host-resolver-rules=MAP * ~NOTFOUND", f"--log-net-log={log}", "--dump-dom",
            f"--blink-settings=preferredColorScheme={0 if dark else 1}", file.as_uri(),
        ]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
        self.dom = done.stdout
        self.console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
        urls = set(re.findall(r'"url":"(\w+://[^"]*)"', log.read_text()))
        self.asked = sorted(url for url in urls if url != file.as_uri() and not OWN.match(url))

    def measure(self, name: str) -> str:
        found = re.search(rf'data-{name}="([^"]*)"', self.dom)
        assert found
        return found.group(1)
