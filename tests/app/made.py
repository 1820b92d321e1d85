"""A site that is served in this process, and what a browser would send to it."""

import http.client
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bigvit_edge.app.inbox import Inbox
from bigvit_edge.app.offers import Offer
from bigvit_edge.app.server import Site
from bigvit_edge.app.web import listen, make_server
from bigvit_edge.results import write_result
from tests.bench.made import make_result, make_row

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
