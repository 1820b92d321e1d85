import http.client
import json
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from bigvit_edge.app import inbox
from bigvit_edge.app.server import Site
from bigvit_edge.app.web import listen
from bigvit_edge.errors import UserError
from bigvit_edge.results import read_result
from tests.app.made import JSON, ask, make_sent, make_site, serving

TOKEN = "t0ken" * 8


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return make_site(tmp_path)


@pytest.fixture
def port(site: Site) -> Iterator[int]:
    with serving(site) as port:
        yield port


def test_the_page_and_its_models_are_served_isolated(port: int) -> None:
    status, body, headers = ask(port, "/")
    assert (status, body[:15]) == (200, b"<!doctype html>")
    assert headers["cross-origin-opener-policy"] == "same-origin"
    assert headers["cross-origin-embedder-policy"] == "require-corp"
    assert "default-src 'none'" in headers["content-security-policy"]
    assert "http" not in headers["content-security-policy"]
    assert json.loads(ask(port, "/models")[1]) == [{"id": "0", "name": "a.onnx"}]
    assert ask(port, "/models/0")[1] == b"the model's bytes"


@pytest.mark.parametrize(
    "path",
    [
        "/secret.txt", "/../secret.txt", "/%2e%2e/secret.txt", "/models/..%2f..%2fsecret.txt", "/models/../secret.txt",
        "/results/../../secret.txt", "/results/..%2fsecret.txt", "/results/%2fetc%2fpasswd", "//etc/passwd",
        "/index.html/../secret.txt", "/models/1", "/models/00", "/models/0/", "/results/.json", "/results/web-*.json",
    ],
)  # fmt: skip
def test_nothing_else_is(port: int, path: str) -> None:
    assert ask(port, path)[0] == 404


def test_a_model_that_changed_is_not_what_its_hash_says(port: int, site: Site) -> None:
    site.offers["0"].path.write_bytes(b"other bytes")
    status, body, _ = ask(port, "/models/0")
    assert (status, b"a.onnx was changed" in body) == (409, True)


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "localhost.evil.example", "", "127.0.0.1.nip"])
def test_a_name_that_is_not_ours_is_refused_on_loopback_too(port: int, host: str) -> None:
    for path, method in (("/", "GET"), ("/models/0", "GET"), ("/results", "POST")):
        assert ask(port, path, method, headers={"host": host, **JSON})[0] == 403


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:9", "127.0.0.1:1234", "[::1]:80", "192.168.1.2"])
def test_our_names_and_plain_addresses_are_taken(port: int, host: str) -> None:
    assert ask(port, "/", headers={"host": host})[0] == 200


def test_two_names_are_none(port: int) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port)
    connection.putrequest("GET", "/", skip_host=True)
    connection.putheader("host", "localhost")
    connection.putheader("host", "evil.example")
    connection.endheaders()
    assert connection.getresponse().status in (400, 403)
    connection.close()


def test_another_origin_may_send_nothing(port: int, site: Site, tmp_path: Path) -> None:
    data = make_sent(tmp_path)
    for origin in ("http://evil.example", "null", "http://127.0.0.1:1"):
        assert ask(port, "/results", "POST", data, {**JSON, "origin": origin})[0] == 403
    assert ask(port, "/results", "POST", data, {"content-type": "text/plain"})[0] == 415  # what a form may send
    assert site.inbox.list_names() == []
    assert ask(port, "/results", "POST", data, {**JSON, "origin": f"http://127.0.0.1:{port}"})[0] == 201


# ---- the token -------------------------------------------------------------------------------------------------------


def test_the_token_lets_one_browser_in_once(tmp_path: Path) -> None:
    with serving(make_site(tmp_path, token=TOKEN)) as port:
        for path in ("/", "/models", "/models/0", "/results", "/?token=", "/?token=wrong", f"/models?token={TOKEN}"):
            assert ask(port, path)[0] == 401, path
        assert ask(port, f"/?token={TOKEN}", "HEAD")[0] == 401  # a preview takes nobody's place
        status, _, headers = ask(port, f"/?token={TOKEN}")
        cookie = headers["set-cookie"]
        assert status == 200
        assert "HttpOnly" in cookie
        assert "SameSite=Strict" in cookie
        assert TOKEN not in cookie
        assert ask(port, f"/?token={TOKEN}")[0] == 401
        held = {"cookie": cookie.partition(";")[0]}
        for path in ("/", "/models", "/models/0", "/results"):
            assert ask(port, path, headers=held)[0] == 200
        assert ask(port, "/results", "POST", make_sent(tmp_path), {**JSON, **held})[0] == 201
        assert ask(port, "/", headers={"cookie": held["cookie"][:-1]})[0] == 401
        assert ask(port, "/", headers={**held, "host": "evil.example"})[0] == 403


# ---- results ---------------------------------------------------------------------------------------------------------


def test_a_result_is_kept_whole_under_a_name_of_ours(port: int, site: Site, tmp_path: Path) -> None:
    status, body, _ = ask(port, "/results", "POST", make_sent(tmp_path), JSON)
    assert status == 201
    name = json.loads(body)["name"]
    path = site.inbox.folder / name
    assert read_result(path).device == "browser:Test 1"
    assert json.loads(ask(port, "/results")[1]) == [name]
    assert ask(port, f"/results/{name}")[1] == path.read_bytes()
    assert [path.name for path in site.inbox.folder.iterdir()] == [name]


def test_results_so_far_replace_each_other_and_nobody_elses(port: int, site: Site, tmp_path: Path) -> None:
    first = json.loads(ask(port, "/results", "POST", make_sent(tmp_path), JSON)[1])
    other = json.loads(ask(port, "/results", "POST", make_sent(tmp_path), JSON)[1])
    longer = make_sent(tmp_path, precision="fp32")
    assert ask(port, f"/results/{first['handle']}", "PUT", longer, JSON)[0] == 200
    assert (site.inbox.folder / first["name"]).read_bytes() == longer
    assert (site.inbox.folder / other["name"]).read_bytes() != longer
    for handle in (first["name"], "x", "..%2fsecret.txt", "%2e%2e"):
        assert ask(port, f"/results/{handle}", "PUT", longer, JSON)[0] == 404
        assert ask(port, f"/results/{handle}", "DELETE")[0] == 404
    assert (tmp_path / "secret.txt").read_text() == "not served"
    assert len(list(site.inbox.folder.iterdir())) == 2
    assert ask(port, f"/results/{first['handle']}", "DELETE")[0] == 204
    assert ask(port, f"/results/{first['handle']}", "PUT", longer, JSON)[0] == 404
    assert site.inbox.list_names() == [other["name"]]


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda data: data[:-20], b"cannot be understood"),
        (lambda data: data.replace(b'"a.bve"', b'"b.bve"'), b"was edited"),
        (lambda data: data.replace(b'"version": 1', b'"version": 2'), b"version 2"),
        (lambda data: b"[1]", b"no object"),
        (lambda data: b"[" * 100_000, b"cannot be understood"),
        (lambda data: b"\xff\xfe", b"cannot be understood"),
        (lambda data: b'{"version": 1, "rows": NaN}', b"NaN"),
        (lambda data: b"", b"cannot be understood"),
    ],
)
def test_a_damaged_result_leaves_nothing(port: int, site: Site, tmp_path: Path, spoil, says: bytes) -> None:  # type: ignore[no-untyped-def]
    status, body, _ = ask(port, "/results", "POST", spoil(make_sent(tmp_path)), JSON)
    assert status == 400
    assert says in body
    assert str(tmp_path).encode() not in body
    assert list(site.inbox.folder.iterdir()) == []
    kept = json.loads(ask(port, "/results", "POST", make_sent(tmp_path), JSON)[1])
    before = (site.inbox.folder / kept["name"]).read_bytes()
    assert ask(port, f"/results/{kept['handle']}", "PUT", spoil(make_sent(tmp_path)), JSON)[0] == 400
    assert (site.inbox.folder / kept["name"]).read_bytes() == before


def test_nothing_from_a_page_passes_for_a_device(port: int, tmp_path: Path) -> None:
    for fields in ({"device": "local"}, {"launch": "local"}, {"launch": "app"}):
        status, body, _ = ask(port, "/results", "POST", make_sent(tmp_path, **fields), JSON)
        assert (status, b"no browser measured it" in body) == (400, True)


def test_too_much_is_refused_before_it_is_read(
    port: int, site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    claimed = {**JSON, "content-length": str(inbox.MOST_BYTES + 1)}
    assert ask(port, "/results", "POST", b"x", claimed)[0] == 413
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    piece = bytes(2**20)
    pieces = iter([piece] * (inbox.MOST_BYTES // len(piece) + 1))
    try:
        connection.request("POST", "/results", pieces, JSON, encode_chunked=True)
        status = connection.getresponse().status
    except (BrokenPipeError, ConnectionResetError):  # it hung up in the middle of it
        status = 413
    assert status == 413
    connection.close()
    monkeypatch.setattr(inbox, "MOST_RESULTS", 1)
    assert ask(port, "/results", "POST", make_sent(tmp_path), JSON)[0] == 201
    assert ask(port, "/results", "POST", make_sent(tmp_path), JSON)[0] == 400
    assert len(site.inbox.list_names()) == 1


def test_a_folder_that_is_no_more_is_said(port: int, site: Site, tmp_path: Path) -> None:
    site.inbox.folder.write_text("a file is in its place")
    status, body, _ = ask(port, "/results", "POST", make_sent(tmp_path), JSON)
    assert (status, b"could not be kept" in body) == (507, True)


# ---- where it listens ------------------------------------------------------------------------------------------------


def test_a_port_that_is_taken_is_said() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        number = taken.getsockname()[1]
        with pytest.raises(UserError, match=f"port {number} .Address already in use.*choose another --port"):
            listen("127.0.0.1", number)


def test_a_host_that_is_not_this_machines_is_said() -> None:
    with pytest.raises(UserError, match=r"no\.such\.host\.invalid"):
        listen("no.such.host.invalid", 0)
    with pytest.raises(UserError, match="a free port of this machine"):
        listen("192.0.2.1", 0)


def test_any_free_port_is_printed() -> None:
    address = listen("127.0.0.1", 0, "a b")
    with address.socket:
        assert address.url == f"http://127.0.0.1:{address.port}/?token=a+b"
        assert address.is_loopback
    everywhere = listen("0.0.0.0", 0)
    with everywhere.socket:
        assert "0.0.0.0" not in everywhere.url  # nobody can open that
        assert everywhere.name in everywhere.url
        assert not everywhere.is_loopback
