"""What is served to browsers: a fixed list of files, the models on offer, and an inbox of results. Everything else is
refused: other hosts' names, who has no token where one is needed, other origins, more bytes than a result has."""

import asyncio
import ipaddress
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from bigvit_edge.app.inbox import MOST_BYTES, Inbox
from bigvit_edge.app.offers import Offer
from bigvit_edge.errors import UserError

BODY_S = 120.0  # for a result to arrive in
UNKNOWN = "no result of this page's is kept under that"
TOKEN = "token"  # in the address, once
TYPES = {
    ".html": "text/html; charset=utf-8", ".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8",
    ".mjs": "text/javascript; charset=utf-8", ".wasm": "application/wasm",
}  # fmt: skip
# The first two isolate the page across origins, without which a browser gives it no threads and a coarser clock.
HEADERS = {
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-embedder-policy": "require-corp",
    "cross-origin-resource-policy": "same-origin",
    "content-security-policy": (
        "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; worker-src 'self'; style-src 'self'; "
        "img-src 'self' data: blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
}


@dataclass
class Site:
    """What a server serves, to whom.

    files: by path below the root, "" for the page itself. names: of hosts, besides addresses, by which it may be asked.
    token: what the first address must have, "" for nobody's; it is void after its first use, and `cookie` stands for
    it. tool, command: for the results.
    """

    files: Mapping[str, Path]
    offers: Mapping[str, Offer]
    inbox: Inbox
    names: frozenset[str] = frozenset({"localhost"})
    token: str = ""
    cookie: str = field(default_factory=secrets.token_urlsafe)
    tool: str = ""
    command: tuple[str, ...] = ()


def make_app(site: Site) -> ASGIApp:
    """Make the server of a site."""

    def serve(path: Path) -> Callable[[Request], Response]:
        return lambda request: FileResponse(path, media_type=TYPES[path.suffix])

    def tell(request: Request) -> Response:
        return JSONResponse({"tool": site.tool, "command": site.command})

    def list_models(request: Request) -> Response:
        return JSONResponse([offer.told for offer in site.offers.values()])

    def send_model(request: Request) -> Response:
        offer = site.offers.get(request.path_params["id"])
        if offer is None:
            return _refuse(404, "no such model is offered")
        if not offer.is_same():
            return _refuse(409, f"{offer.told['name']} was changed after the server started; start it again")
        return FileResponse(offer.path, media_type="application/octet-stream")

    async def list_results(request: Request) -> Response:
        return JSONResponse(await run_in_threadpool(site.inbox.list_names))

    async def send_result(request: Request) -> Response:
        try:
            data = await run_in_threadpool(site.inbox.read, request.path_params["name"])
        except KeyError:
            return _refuse(404, "no such result was sent here")
        return Response(data, media_type="application/json")

    async def add_result(request: Request) -> Response:
        data = await _read_body(request)
        if isinstance(data, Response):
            return data
        handle, name = await run_in_threadpool(site.inbox.add, data)
        return JSONResponse({"handle": handle, "name": name}, 201)

    async def replace_result(request: Request) -> Response:
        data = await _read_body(request)
        if isinstance(data, Response):
            return data
        try:
            name = await run_in_threadpool(site.inbox.replace, request.path_params["handle"], data)
        except KeyError:
            return _refuse(404, UNKNOWN)
        return JSONResponse({"name": name})

    async def remove_result(request: Request) -> Response:
        try:
            await run_in_threadpool(site.inbox.remove, request.path_params["handle"])
        except KeyError:
            return _refuse(404, UNKNOWN)
        return Response(status_code=204)

    routes = [Route(f"/{name}", serve(path)) for name, path in site.files.items()]
    routes += [
        Route("/about", tell),
        Route("/models", list_models),
        Route("/models/{id}", send_model),
        Route("/results", list_results),
        Route("/results", add_result, methods=["POST"]),
        Route("/results/{name}", send_result),
        Route("/results/{handle}", replace_result, methods=["PUT"]),
        Route("/results/{handle}", remove_result, methods=["DELETE"]),
    ]
    app = Starlette(routes=routes, exception_handlers={UserError: _explain, OSError: _explain_system})
    app.router.redirect_slashes = False
    return Guard(app, site)


class Guard:
    """Refuses whoever may not ask, before anything is looked at."""

    def __init__(self, app: ASGIApp, site: Site) -> None:
        self.app, self.site, self.token = app, site, site.token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":  # no other protocol is spoken
            return
        request = Request(scope)
        refused, entered = self._judge(request)

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update(HEADERS)
                if entered:
                    cookie = f"{self._name(request)}={self.site.cookie}; HttpOnly; SameSite=Strict; Path=/"
                    headers.append("set-cookie", cookie)
            await send(message)

        await (refused or self.app)(scope, receive, answer)

    def _judge(self, request: Request) -> tuple[Response | None, bool]:
        """Why the request is refused, None if it is not; and whether it came by the token."""
        host = _take_host(request.headers)
        if not (host in self.site.names or _is_address(host)):
            return _refuse(403, "this server is not called so; open the address that it printed"), False
        origin = request.headers.get("origin")
        if origin is not None and origin != f"http://{request.headers['host']}":
            return _refuse(403, "another page may not ask here"), False
        if request.method in ("POST", "PUT") and request.headers.get("content-type") != "application/json":
            return _refuse(415, "a result is sent as application/json"), False
        if not self.site.token or self._has(request.cookies.get(self._name(request)), self.site.cookie):
            return None, False
        told = request.query_params.get(TOKEN)
        if request.method == "GET" and request.url.path == "/" and self._has(told, self.token):
            self.token = ""
            return None, True
        met = "the address that the server printed lets one browser in, once"
        return _refuse(401, f"{met}; open it, or start the server again for another"), False

    @staticmethod
    def _has(told: str | None, right: str) -> bool:
        return bool(told and right) and secrets.compare_digest((told or "").encode(), right.encode())

    @staticmethod
    def _name(request: Request) -> str:
        """Cookies know hosts and no ports: another server on this one has another."""
        return f"bigvit-edge-{(request.scope.get('server') or ('', 0))[1]}"


def _take_host(headers: Headers) -> str:
    """The host's name without its port, "" where there is not exactly one."""
    told = headers.getlist("host")
    if len(told) != 1:
        return ""
    return told[0].removeprefix("[").partition("]")[0] if told[0].startswith("[") else told[0].partition(":")[0].lower()


def _is_address(host: str) -> bool:
    """No name that resolves to this machine for a moment (DNS rebinding) looks like one."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


async def _read_body(request: Request) -> bytes | Response:
    told = f"a result has at most {MOST_BYTES} bytes"
    length = request.headers.get("content-length", "0")
    if not length.isdecimal() or int(length) > MOST_BYTES:
        return _refuse(413, told)
    data = bytearray()
    try:
        async with asyncio.timeout(BODY_S):
            async for piece in request.stream():
                data += piece
                if len(data) > MOST_BYTES:
                    return _refuse(413, told)
    except (TimeoutError, ClientDisconnect):
        return _refuse(408, f"a result arrives in {BODY_S:g} s")
    return bytes(data)


def _refuse(status: int, why: str) -> Response:
    return PlainTextResponse(why, status, headers={"connection": "close"} if status == 413 else None)


def _explain(request: Request, e: Exception) -> Response:
    return _refuse(400, str(e))


def _explain_system(request: Request, e: Exception) -> Response:
    """A full disk, or a folder that is gone."""
    return _refuse(507, f"it could not be kept ({e.strerror if isinstance(e, OSError) else e})")
