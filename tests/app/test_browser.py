"""Files in a real browser's runtimes, beside the same files in this machine's own."""

import base64
import io
import json
import re
import shutil
import struct
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from bigvit_edge.app.offers import Offer, list_offers
from bigvit_edge.app.packages import PACKAGES
from bigvit_edge.app.server import Site
from bigvit_edge.app.web import PACKAGE
from bigvit_edge.artifact import Verified
from bigvit_edge.bench.agent import PIP
from bigvit_edge.bench.frame_reader import UNTOLD
from bigvit_edge.errors import UserError
from bigvit_edge.export.inference import find_entry
from bigvit_edge.manifest import read_manifest
from bigvit_edge.results import Frames, Turn, read_result
from bigvit_edge.runtime import tflite
from bigvit_edge.runtime.opening import open_entry
from tests.app.chromium import Tab, open_chromium
from tests.app.made import ELSEWHERE, export_tiny, make_page, serving
from tests.native import need_cores


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_tiny(tmp_path_factory.mktemp("browser") / "bundle", "--format", "litert,onnx", "--keep", "0.25,0.5")


@pytest.fixture(scope="module")
def offers(bundle: Path) -> dict[str, Offer]:
    found, left_out = list_offers([bundle])
    assert left_out == []
    return found


@pytest.fixture(scope="module")
def site(offers: dict[str, Offer], tmp_path_factory: pytest.TempPathFactory) -> Site:
    return make_page(offers, tmp_path_factory.mktemp("site"))


@pytest.fixture(scope="module")
def tab(site: Site, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tab]:
    folder = tmp_path_factory.mktemp("chromium")
    with serving(site) as port, open_chromium(folder, f"--host-resolver-rules=MAP {ELSEWHERE} 127.0.0.1") as tab:
        tab.port = port
        enter(tab, "127.0.0.1")
        yield tab


def enter(tab: Tab, host: str, width: int = 1280, dark: bool = False) -> None:
    tab.open(f"http://{host}:{tab.port}/", width, dark)
    tab.wait("document.querySelector('form button')")
    tab.evaluate("import('./browser.js').then(module => { window.host = module.host; return 1 })")


def ask(tab: Tab, script: str, *words: Any) -> Any:
    """What a function's body gives; `words` are its arguments."""
    names = [f"w{i}" for i in range(len(words))]
    return tab.evaluate(f"(async ({', '.join(names)}) => {{ {script} }})({', '.join(map(json.dumps, words))})")


def list_methods(offers: dict[str, Offer]) -> list[tuple[Offer, dict[str, Any]]]:
    return [(offer, method) for offer in offers.values() for method in offer.told["methods"]]


def test_answers_are_those_of_the_native_runtimes(tab: Tab, offers: dict[str, Offer]) -> None:
    noise = np.random.default_rng(1)
    for offer, method in list_methods(offers):
        run = open_entry(offer.path.parent, find_entry(offer.path), 1, method["name"])
        image = noise.standard_normal(run.image).astype(np.float32)
        told = ask(
            tab, "return await host.classify(w0, w1, Float32Array.from(w2))", offer.told, method,
            image.ravel().tolist(),
        )  # fmt: skip
        np.testing.assert_allclose(told, run(image)[0], atol=1e-4, rtol=0, err_msg=f"{offer.told['name']} {method}")
        other = ask(tab, "return await host.classify(w0, w1, new Float32Array(w2))", offer.told, method, 3072)
        assert np.abs(np.array(other) - told).max() > 1e-3  # it looks at the image


def test_a_file_has_all_its_keep_ratios(offers: dict[str, Offer], bundle: Path) -> None:
    verified: list[Verified] = [m for entry in read_manifest(bundle).artifacts for m in entry.methods]
    assert [method["keep"] for _, method in list_methods(offers)] == [method.keep for method in verified]
    assert {offer.told["format"] for offer in offers.values()} == {"onnx", "litert"} <= set(PIP)


def test_isolation_and_threads_are_read_back(tab: Tab, offers: dict[str, Offer]) -> None:
    need_cores(2)
    open_one = "const r = await host.open(w0, w1, {threads: 2}); await r.close(); return r.ready"
    by_format = {offer.told["format"]: (offer.told, method) for offer, method in list_methods(offers)}
    for told, method in by_format.values():
        for count in (1, 2, 3):  # workers that have been told to run a thread, whatever was asked for
            ready = ask(tab, open_one.replace("2", str(count)), told, method)
            assert (ready["threads"], ready["build"]["threads"], ready["build"]["isolated"]) == (count, count, True)
        assert ready["build"]["tick_us"] < 50
        assert ready["build"]["mean_ms"] == pytest.approx(ready["build"]["tick_us"] / 50)
    enter(tab, ELSEWHERE)
    try:
        assert "not isolated across origins: whatever is asked for, it has one thread" in tab.read()
        assert ask(tab, "return (await host.surroundings()).isolated") is False
        assert ask(tab, "return (await host.machine()).limits.usable") == 1
        for told, method in by_format.values():
            ready = ask(tab, open_one.replace("2", "1"), told, method)
            assert (ready["threads"], ready["build"]["threads"], ready["build"]["isolated"]) == (1, 1, False)
            assert ready["build"]["tick_us"] >= 50
            said = ask(
                tab, f"{open_one.replace('const', 'try { const')} }} catch (e) {{ return e.message }}", told, method
            )
            assert said.startswith(f"2 threads for {told['name']}; expected 1: so many ")
    finally:
        enter(tab, "127.0.0.1")


def test_who_asks_a_runtime_that_has_ended_is_told_so(tab: Tab, offers: dict[str, Offer]) -> None:
    """It would wait for ever for its answer."""
    script = (
        "const {Worker: Kept} = self; let worker;"
        "self.Worker = class extends Kept { constructor(...words) { super(...words); worker = this; } };"
        "const r = await host.open(w0, w1, {threads: 1}).finally(() => { self.Worker = Kept; });"
        "worker.dispatchEvent(new ErrorEvent('error', {message: 'no memory'})); worker.terminate();"
        "const said = await r.run(0, 1, 0).catch((error) => error.message); await r.close(); return said"
    )
    offer, method = list_methods(offers)[0]
    assert ask(tab, script, offer.told, method) == "its runtime ended (no memory)"


def test_a_turn_has_what_a_result_wants_and_no_time_shorter_than_the_clock_tells(
    tab: Tab, offers: dict[str, Offer]
) -> None:
    script = (
        "const r = await host.open(w0, w1, {threads: 1});"
        "const turns = [await r.run(0.05, 3, 0), await r.run(0, 4, 20)];"
        "const frames = await r.frames(0, 2, 20), memory = await r.memory(); await r.close();"
        "const other = await host.open({...w0, preprocessing: null}, w1, {threads: 1});"
        "const lack = await other.frames(0, 2, 0); await other.close();"
        "return {ready: r.ready, turns, memory, frames, lack}"
    )
    for offer, method in list_methods(offers)[::2]:
        found = ask(tab, script, offer.told, method)
        free, paced = found["turns"]
        assert found["lack"] == {"lack": UNTOLD}
        assert len(found["frames"]["label_ms"]) == 2
        assert found["frames"]["end_ns"] - found["frames"]["start_ns"] >= 40e6
        made_here = {"temp_c", "part"}
        assert set(free) == {field.name for field in fields(Turn)} - made_here
        assert min(free["times_ms"]) > 0
        assert free["end_ns"] - free["start_ns"] >= 50e6
        assert len(free["times_ms"]) >= 3
        assert len(paced["times_ms"]) == 4
        assert paced["end_ns"] - paced["start_ns"] >= 80e6
        assert paced["start_ns"] >= free["end_ns"]
        assert found["memory"]["peak_bytes"] > offer.told["bytes"]
        assert found["ready"]["image_floats"] == 3 * 32 * 32
        assert found["ready"]["first_ms"] > 0


def test_a_bench_is_posted_and_read_by_the_command_line(tab: Tab, offers: dict[str, Offer], site: Site) -> None:
    tab.console.clear()
    models = [offer.told for offer in offers.values()]
    script = """
      const { measure } = await import("./measure.js");
      const models = await host.models();
      const cases = [].concat(...models.map((model) => model.methods.map((method) => ({ model, method }))));
      const plan = { cases, clusters: [], threads: null, rounds: 2, minutes: 0, fps: 0, energy: true, name: "a.json" };
      await measure(host, plan, { step() {}, round() {} });
      return [await host.results(), await host.read("a.json")]
    """
    listed, text = ask(tab, script)
    (path,) = [site.inbox.folder / name for name in site.inbox.list_names()]
    assert [each["name"] for each in listed] == ["a.json"]
    assert path.read_text() == text
    result = read_result(path)
    assert result.complete
    assert re.fullmatch(r"browser:\w+ \d+ on \w+", result.device)
    assert result.command == ("bigvit-edge", "app", "web")
    assert {(row.file, row.sha256, row.keep) for row in result.rows} == {
        (model["name"], model["sha256"], method["keep"]) for model in models for method in model["methods"]
    }
    for row in result.rows:
        assert (row.launch, row.cpu_ms, len(row.turns), row.error) == ("browser", None, 2, "")
        assert row.build
        assert row.build["backend"].startswith("WebAssembly")
        assert row.surroundings
        assert row.surroundings.isolated
        assert "Chrome" in row.surroundings.agent
        assert row.energy == "not available: a browser tells no power"
        assert isinstance(row.frame, Frames)
        assert (row.frame.frame, row.frame.prepared_by) == ("1080x1920 RGBA, upright", "picture.js")
        assert 0 < min(row.frame.prepare_times_ms) < min(row.frame.label_times_ms)
    assert len({row.runtime for row in result.rows}) == 2
    assert [line for line in tab.console if "GPU" not in line] == []  # what LiteRT.js says where there is none
    ask(tab, "await host.remove('a.json')")
    assert site.inbox.list_names() == []
    hold = "await host.hold('one'); return await host.hold('two').then(() => '', (e) => e.message)"
    assert ask(tab, hold) == "another tab of this browser is measuring: both would be slower"
    ask(tab, "await host.release(); await host.hold('three'); await host.release()")


@pytest.mark.parametrize(("width", "dark"), [(1280, False), (360, True)])
def test_the_screens_by_keys_and_for_readers(
    tab: Tab, site: Site, offers: dict[str, Offer], width: int, dark: bool
) -> None:
    def check() -> str:
        assert tab.find_violations() == []
        assert tab.find_overflow() <= 0
        return tab.read()

    enter(tab, "127.0.0.1", width, dark)
    assert "These are a browser's figures, of WebAssembly" in check()
    tab.evaluate(
        "document.querySelector('[name=rounds]').value = 1; document.querySelector('[name=threads]').value = 1"
    )
    for _ in range(30):
        tab.press("Tab")
        if tab.evaluate("document.activeElement.textContent") == "Start measuring":
            break
    tab.press("Enter")
    tab.wait("location.hash.startsWith('#result/') && document.querySelector('dl')")
    said = check()
    assert "These are a browser's figures, of WebAssembly" in said
    assert re.search(r"litert @litertjs/core \S+, WebAssembly, XNNPACK, with 1 thread\n", said), said
    (name,) = site.inbox.list_names()
    result = read_result(site.inbox.folder / name)
    assert result.complete
    means = [row for row in result.rows if row.build and min(row.turns[0].times_ms) < row.build["mean_ms"]]
    assert said.count("each the mean of as many images as took") == len(means)
    tab.evaluate("location.hash = '#results'")
    tab.wait("document.querySelector('#screen li button')")
    check()
    tab.evaluate("location.hash = '#picture'")
    tab.wait("document.querySelector('#screen select')")
    check()
    file = io.BytesIO()
    Image.effect_noise((40, 48), 90).convert("RGB").save(file, "PNG")
    pick(tab, "a.png", file.getvalue(), "document.querySelector('#screen button').click(); await 0")
    tab.wait("document.querySelector('#found ol')")
    assert "Answer" in check()
    handle = next(iter(site.inbox._kept))
    site.inbox.remove(handle)


def test_the_token_opens_the_page_and_is_gone_from_its_address(tab: Tab, site: Site) -> None:
    with serving(replace(site, token="once" * 10)) as port:
        tab.open(f"http://127.0.0.1:{port}/?token={'once' * 10}")
        for _ in range(2):  # and loaded anew, by the cookie
            tab.wait("document.querySelectorAll('[name=model]').length")
            assert tab.evaluate("location.href") == f"http://127.0.0.1:{port}/"
            assert tab.evaluate("document.cookie") == ""
            tab.open(f"http://127.0.0.1:{port}/")
        tab.evaluate(f"location.href = 'http://localhost:{port}/?token={'once' * 10}'")  # another host has no cookie
        tab.wait("document.body.innerText.includes('lets one browser in, once')")
    enter(tab, "127.0.0.1")


def spoil(offers: dict[str, Offer]) -> dict[str, tuple[str, bytes]]:
    by_format = {offer.told["format"]: offer.path.read_bytes() for offer in offers.values()}
    return {
        "a foreign .onnx": ("a.onnx", b"\x89PNG, and more of a picture" * 40),
        "a cut .onnx": ("a.onnx", by_format["onnx"][:-5000]),
        "an empty .onnx": ("a.onnx", b""),
        "a foreign .tflite": ("a.tflite", b"\x89PNG, and more of a picture" * 40),
        "a cut .tflite": ("a.tflite", by_format["litert"][:3000]),
        "an empty .tflite": ("a.tflite", b""),
        "an .onnx called .tflite": ("a.tflite", by_format["onnx"]),
        "a name of neither": ("a.pte", by_format["onnx"]),
    }


PICK = """
  const held = new DataTransfer();
  if (w0) held.items.add(new File([Uint8Array.from(atob(w1), (letter) => letter.charCodeAt(0))], w0));
  const click = HTMLInputElement.prototype.click;
  HTMLInputElement.prototype.click = function () {
    if (w0) this.files = held.files;
    this.dispatchEvent(new Event(w0 ? "change" : "cancel"));
  };
"""


def pick(tab: Tab, name: str | None, data: bytes, then: str) -> Any:
    """As a person picks a file, or none."""
    script = f"{PICK} try {{ {then} }} finally {{ HTMLInputElement.prototype.click = click; }}"
    return ask(tab, script, name, base64.b64encode(data).decode())


@pytest.mark.parametrize("what", ["onnx", "tflite"])
def test_a_file_of_the_persons_own_is_opened_in_the_page(tab: Tab, offers: dict[str, Offer], what: str) -> None:
    offer = next(offer for offer in offers.values() if offer.path.suffix == f".{what}")
    then = """
      const model = await host.pick();
      const last = model.methods[model.methods.length - 1];
      const logits = await host.classify(model, last, new Float32Array(3072).fill(0.5));
      return { model, logits: Array.from(logits) };
    """
    told = pick(tab, f"mine.{what}", offer.path.read_bytes(), then)
    assert told["model"]["sha256"] == offer.told["sha256"]
    names = [method["name"] for method in told["model"]["methods"]]
    assert names == ([None] if what == "onnx" else ["keep_0_25", "keep_0_5"])
    run = open_entry(offer.path.parent, find_entry(offer.path), 1, offer.told["methods"][-1]["name"])
    np.testing.assert_allclose(told["logits"], run(np.full(run.image, 0.5, np.float32))[0], atol=1e-4)


@pytest.mark.parametrize("what", [
    "a foreign .onnx", "a cut .onnx", "an empty .onnx", "a foreign .tflite", "a cut .tflite", "an empty .tflite",
    "an .onnx called .tflite", "a name of neither",
])  # fmt: skip
def test_what_is_no_model_is_said(tab: Tab, offers: dict[str, Offer], what: str) -> None:
    name, data = spoil(offers)[what]
    said = pick(tab, name, data, "return await host.pick().then(() => '', (error) => error.message)")
    assert said.startswith(f"{name}"), said
    assert ("cannot open it" in said) != (name == "a.pte")
    assert "\n" not in said
    assert pick(tab, None, b"", "return await host.pick()") is None


def test_a_picture_is_upright_and_in_its_own_colours(tab: Tab) -> None:
    quarters = Image.new("RGB", (32, 16), (255, 0, 0))
    quarters.paste((0, 0, 255), (16, 0, 32, 16))
    exif = Image.Exif()
    exif[274] = 6  # turned by a quarter
    file = io.BytesIO()
    quarters.save(file, "JPEG", quality=100, subsampling=0, exif=exif)
    then = "const p = await host.picture('gallery'); return [p.width, p.height, Array.from(p.data)]"
    width, height, data = pick(tab, "a.jpg", file.getvalue(), then)
    pixels = np.array(data).reshape(height, width, 4)
    assert (width, height) == (16, 32)
    np.testing.assert_allclose(pixels[4, 8], (255, 0, 0, 255), atol=4)
    np.testing.assert_allclose(pixels[28, 8], (0, 0, 255, 255), atol=4)
    said = pick(tab, "a.jpg", b"none", "return await host.picture('gallery').then(() => '', (error) => error.message)")
    assert said == "a.jpg, which this browser cannot read; expected a picture, as PNG or JPEG"


def rename_op(data: bytes, what: str) -> bytes:
    """The file with an op that no runtime has: of a .tflite a custom one, named at its end."""
    if what == "onnx":
        return data.replace(b"\x22\x03Add", b"\x22\x03Adx", 1)  # of NodeProto: the op's type, and how long it is
    edited = bytearray(data + bytes(-len(data) % 4))
    layout = len(edited)
    table = layout + 12
    edited += struct.pack("<6H", 12, 16, 12, 4, 0, 8)  # of an OperatorCode: where its fields are
    edited += struct.pack("<iIiI", table - layout, 12, 32, 32)  # BuiltinOperator_CUSTOM
    edited += struct.pack("<I", 3) + b"Adx\0"
    place = tflite.read_root(edited).find_vector(tflite.OPERATOR_CODES)
    struct.pack_into("<I", edited, place, table - place)
    return bytes(edited)


@pytest.mark.parametrize("what", ["onnx", "tflite"])
def test_an_op_that_the_browser_lacks_is_named(tab: Tab, offers: dict[str, Offer], what: str) -> None:
    data = next(offer.path.read_bytes() for offer in offers.values() if offer.path.suffix == f".{what}")
    said = pick(
        tab, f"a.{what}", rename_op(data, what), "return await host.pick().then(() => '', (error) => error.message)"
    )
    runtime = {"onnx": "onnxruntime-web", "tflite": "LiteRT.js"}[what]
    assert said.startswith(f"a.{what}: {runtime} lacks an op of it, in WebAssembly ("), said
    assert "Adx" in said


def test_files_that_no_browser_runs_are_left_out_and_said(bundle: Path, tmp_path: Path) -> None:
    alone, damaged, foreign = (tmp_path / f"{name}.tflite" for name in ("alone", "damaged", "foreign"))
    shutil.copy(next(bundle.glob("*.tflite")), alone)
    damaged.write_bytes(alone.read_bytes()[:900])
    foreign.write_bytes(rename_op(alone.read_bytes(), "tflite"))
    (tmp_path / "a.bve").write_bytes(b"never read")
    found, left_out = list_offers([alone, damaged, foreign, tmp_path / "a.bve"])
    assert left_out == [
        "damaged.tflite is left out: it is no .tflite, or a damaged one",
        "foreign.tflite is left out: LiteRT.js has no op Adx", "a.bve is left out: no browser runs bve",
    ]  # fmt: skip
    (told,) = (offer.told for offer in found.values())
    assert [method["name"] for method in told["methods"]] == ["keep_0_25", "keep_0_5"]
    assert told["preprocessing"]["size"] == 32
    assert len(told["labels"]) == 10
    with pytest.raises(UserError, match=r"a\.bve: no browser runs bve; expected an \.onnx or a \.tflite"):
        list_offers([tmp_path / "a.bve"])


def test_the_version_that_the_page_tells_is_the_one_that_is_served() -> None:
    (core,) = (package for package in PACKAGES if package.name == "@litertjs/core")
    assert f'const VERSION = "{core.version}";' in (PACKAGE / "app/page/worker.js").read_text()
