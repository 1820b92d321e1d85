"""`bigvit-edge app web`: the benchmark page for browsers, served until Ctrl-C."""

import ipaddress
import secrets
import shlex
import socket
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlencode

import uvicorn

from bigvit_edge.app.inbox import Inbox
from bigvit_edge.app.offers import list_offers
from bigvit_edge.app.packages import find_packages
from bigvit_edge.app.server import TOKEN, TYPES, Site, make_app
from bigvit_edge.artifact import list_versions
from bigvit_edge.errors import UserError
from bigvit_edge.results import spell_path
from bigvit_edge.tables import print_notes, print_step

LOOPBACK = "127.0.0.1"
CLOSE_S = 2  # for answers that are under way when Ctrl-C comes
MOST_CONNECTIONS = 64
PACKAGE = Path(__file__).parent.parent
UNSAFE = (
    "browsers give a page from another machine over plain http one thread and a coarse clock; a phone on USB has more "
    "of both without --host: `adb reverse tcp:PORT tcp:PORT`, and http://localhost:PORT/ there"
)


@dataclass(frozen=True)
class Address:
    """Where a server listens, and the address to open.

    name: of the host in it.
    """

    socket: socket.socket
    url: str
    name: str
    port: int
    is_loopback: bool


def serve_page(files: Sequence[Path], host: str | None, port: int, results: Path) -> None:
    """Serve the benchmark page with these models until a signal ends it.

    host: None for loopback; else anybody who has the one-time token may ask. port: 0 for any that is free. results:
    the folder for what pages measure. UserError before anything is served.
    """
    offers, left_out = list_offers(files)
    inbox = Inbox(results)
    served = list_page() | {f"npm/{name}": path for name, path in find_packages(print_step).items()}
    token = secrets.token_urlsafe(32) if host is not None else ""
    address = listen(host or LOOPBACK, port, token)
    names = frozenset({"localhost", address.name.lower()})
    print_notes([*left_out, *([UNSAFE] if not address.is_loopback else [])])
    count = f"{len(offers)} model{'s' if len(offers) > 1 else ''}"
    print(f"{count} at {address.url}, results to {inbox.folder}; Ctrl-C ends it", flush=True)
    with address.socket:
        command = tuple(shlex.quote(spell_path(word)) for word in ("bigvit-edge", *sys.argv[1:]))
        site = Site(served, offers, inbox, names, token, tool=list_versions(())["bigvit-edge"], command=command)
        make_server(site).run(sockets=[address.socket])


def list_page() -> dict[str, Path]:
    """List the page's own files, by the names that it asks for."""
    found = {path.name: path for path in sorted((PACKAGE / "app/page").iterdir()) if path.suffix in TYPES}
    return {"": found["index.html"], "pages.css": PACKAGE / "pages.css", **found}


def listen(host: str, port: int, token: str = "") -> Address:
    """Take an address to serve at; UserError if it cannot be had."""
    try:
        family, kind, proto, _, place = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        taken = socket.socket(family, kind, proto)
    except OSError as e:
        raise UserError(f"--host {host} ({e.strerror})", "an address of this machine", "check the name") from e
    try:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(place)
        taken.listen()
    except (OSError, OverflowError) as e:
        taken.close()
        why = getattr(e, "strerror", None) or str(e)
        raise UserError(f"{host}, port {port} ({why})", "a free port of this machine", "choose another --port") from e
    number, bound = taken.getsockname()[1], ipaddress.ip_address(taken.getsockname()[0])
    shown = _find_own_address(family) if bound.is_unspecified else host
    at = f"[{shown}]" if ":" in shown else shown
    query = f"?{urlencode({TOKEN: token})}" if token else ""
    return Address(taken, f"http://{at}:{number}/{query}", shown, number, bound.is_loopback)


def _find_own_address(family: socket.AddressFamily) -> str:
    """This machine's address towards others, its name where it has none. Nothing is sent: UDP only picks a way."""
    away = "2001:db8::1" if family == socket.AF_INET6 else "192.0.2.1"
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as way:
            way.connect((away, 9))
            return str(way.getsockname()[0])
    except OSError:
        return socket.gethostname()


def make_server(site: Site) -> uvicorn.Server:
    """Make what serves a site until a signal, or its `should_exit`."""
    config = uvicorn.Config(
        make_app(site), loop="asyncio", http="h11", ws="none", lifespan="off", log_level="error", access_log=False,
        server_header=False, proxy_headers=False, timeout_graceful_shutdown=CLOSE_S,
        limit_concurrency=MOST_CONNECTIONS,
    )  # fmt: skip
    return uvicorn.Server(config)
