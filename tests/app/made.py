"""A site that is served in this process, and what a browser would send to it."""

import http.client
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from typer.testing import CliRunner

from bigvit_edge.app.inbox import Inbox
from bigvit_edge.app.offers import Offer
from bigvit_edge.app.packages import find_packages
from bigvit_edge.app.server import Site
from bigvit_edge.app.web import list_page, listen, make_server
from bigvit_edge.cli import app
from bigvit_edge.errors import UserError
from bigvit_edge.models.zoo import CARDS
from bigvit_edge.results import write_result
from tests.bench.made import make_result, make_row
from tests.native import skip
from tests.test_tiny import TINY

ELSEWHERE = "elsewhere.test"  # a name of this machine's loopback, to which browsers grant no isolation
JSON = {"content-type": "application/json"}
BROWSER: dict[str, Any] = {"launch": "browser", "cores_asked": None, "cores_allowed": (), "policy": "any"}


def make_sent(folder: Path, device: str = "browser:Test 1", **fields: Any) -> bytes:
    """The bytes of a result as a page sends it."""
    path = folder / "sent.json"
    write_result(make_result(make_row(**{**BROWSER, **fields}), device=device), path)
    data = path.read_bytes()
    path.unlink()
    return data


def make_site(folder: Path, **fields: Any) -> Site:
    """One page, one model; results go to folder/results."""
    page, model = folder / "index.html", folder / "a.onnx"
    page.write_text("<!doctype html><title>page</title>")
    model.write_bytes(b"the model's bytes")
    (folder / "secret.txt").write_text("not served")
    status = model.stat()
    offers = {"0": Offer(model, {"id": "0", "name": "a.onnx"}, (status.st_size, status.st_mtime_ns))}
    return Site(**{"files": {"": page}, "offers": offers, "inbox": Inbox(folder / "results"), **fields})


def make_page(offers: dict[str, Offer], folder: Path) -> Site:
    """The page with both runtimes; skips the test where npm does not bring them."""
    try:
        packages = find_packages()
    except UserError as e:
        skip(str(e), "have npm and a network")
    files = list_page() | {f"npm/{name}": path for name, path in packages.items()}
    inbox, names = Inbox(folder / "results"), frozenset({"localhost", ELSEWHERE})
    return Site(files, offers, inbox, names, tool="0.1", command=("bigvit-edge", "app", "web"))


def export_tiny(folder: Path, *words: str) -> Path:
    """A bundle of a tiny model, in fp32."""
    CARDS["tiny"] = TINY
    settings = ("--set", "precisions=fp32", "--set", "limits.images=4", "--set", "limits.untrained_cosine=0.98")
    made = CliRunner().invoke(app, ["export", "tiny", "-o", str(folder), *words, *settings])
    del CARDS["tiny"]
    assert made.exit_code == 0, made.output
    return folder


@contextmanager
def serving(site: Site) -> Iterator[int]:
    """Serve it on a port of loopback, which is given."""
    address = listen("127.0.0.1", 0)
    server = make_server(site)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [address.socket]})
    thread.start()
    try:
        yield address.port
    finally:
        server.should_exit = True
        thread.join(30)
        address.socket.close()
        assert not thread.is_alive()


def ask(
    port: int, path: str, method: str = "GET", body: bytes | None = None, headers: dict[str, str] | None = None
) -> tuple[int, bytes, dict[str, str]]:
    """Status, body and headers of an answer. The path is sent as it stands."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request(method, path, body, headers or {})
        response = connection.getresponse()
        return response.status, response.read(), {name.lower(): value for name, value in response.getheaders()}
    finally:
        connection.close()
