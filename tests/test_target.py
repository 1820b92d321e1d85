"""Presets and the settings that change them."""

import pytest

from bigvit_edge import target
from bigvit_edge.errors import UserError
from bigvit_edge.target import list_settings, list_targets, load_target, override


@pytest.mark.parametrize("name", list_targets())
def test_every_preset_loads(name: str) -> None:
    preset = load_target(name)
    assert preset.name == name
    assert preset.summary


def test_unknown_target_suggests_the_nearest() -> None:
    with pytest.raises(UserError, match=r"unknown target 'andriod'.*did you mean android"):
        load_target("andriod")


def test_settings_are_typed_and_leave_the_preset_alone() -> None:
    preset = load_target("android")
    changed = override(
        preset,
        ["formats=litert", "limits.int8_cosine=0.9", "limits.images=7", "quant.keep_float=router,head", "threads=2"],
    )
    assert changed.formats == ("litert",)
    assert changed.limits.int8_cosine == 0.9
    assert changed.limits.images == 7
    assert changed.quant.keep_float == ("router", "head")
    assert changed.threads == 2
    assert changed.limits.top1_agreement == preset.limits.top1_agreement
    assert load_target("android") == preset != changed


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("limits.int8_cosin=0.9", "unknown setting 'limits.int8_cosin'.*did you mean limits.int8_cosine"),
        ("name=x", "unknown setting 'name'"),
        ("limits=1", "unknown setting 'limits'"),
        ("threads", "'threads'; expected key=value"),
        ("threads=two", "threads=two; expected a whole number"),
        ("threads=0", r"expected a whole number from 1 to 64"),
        ("limits.images=0", r"expected a number from 1 to 1000"),
        ("limits.fp32_max_abs=-1", r"expected a number from 0 to inf"),
        ("formats=litert,litert", r"expected each word once"),
        ("formats=litret", "unknown word 'litret' in formats.*did you mean litert"),
        ("formats=", "formats is empty"),
        ("precisions=int9", "unknown word 'int9' in precisions.*did you mean int8"),
    ],
)
def test_bad_setting(setting: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        override(load_target("android"), [setting])


def test_the_last_of_one_setting_counts() -> None:
    assert override(load_target("host"), ["precisions=fp32", "precisions=int8"]).precisions == ("int8",)


@pytest.mark.parametrize(
    ("settings", "calibrates"),
    [
        (["formats=onnx", "precisions=fp32,int8"], False),
        (["formats=onnx", "precisions=int8-static"], True),
        (["formats=bve", "precisions=fp32"], False),
        (["formats=bve,onnx", "precisions=int8"], True),
    ],
)
def test_what_calibrates(settings: list[str], calibrates: bool) -> None:
    assert override(load_target("host"), settings).calibrates() == calibrates


def test_every_leaf_can_be_set() -> None:
    keys = list_settings()
    assert {"formats", "quant.keep_float", "limits.top1_agreement"} <= set(keys)
    assert not {"name", "summary", "limits", "quant"} & set(keys)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"name": "x", "summary": "s"}, r"no 'formats' in x.toml"),
        (
            {"name": "x", "summary": "s", "formats": ["litert"], "quant": 3},
            r"x.toml: quant = 3; expected a table",
        ),
        (
            {"name": "x", "summary": "s", "formats": ["litert"], "thread": 3},
            r"unknown key 'thread'.*did you mean threads",
        ),
        ({"name": "x", "summary": "s", "formats": "litert"}, r"x.toml: formats = 'litert'"),
    ],
)
def test_a_malformed_preset_is_named(data: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        target._build(target.Target, data, "x.toml")


@pytest.mark.parametrize(
    ("settings", "backends"),
    [
        (["backend=native"], {"executorch": "native", "litert": "native", "onnx": "", "bve": ""}),
        (["backend=coreml"], {"executorch": "coreml", "litert": "xnnpack", "onnx": "", "bve": ""}),
        ([], {"executorch": "xnnpack", "litert": "xnnpack", "onnx": "", "bve": ""}),
    ],
)
def test_what_a_format_delegates_to(settings: list[str], backends: dict[str, str]) -> None:
    chosen = override(load_target("host"), [f"formats={','.join(backends)}", *settings])
    assert {name: chosen.find_backend(name) for name in backends} == backends
    native = {name for name in backends if chosen.is_native(name)}
    assert native == {"bve", *(name for name, backend in backends.items() if backend == "native")}
    needed = {f"{name}.native" for name in native - {"bve"}} | ({"coreml"} if "backend=coreml" in settings else set())
    assert set(chosen.list_modules()) == set(backends) | needed


@pytest.mark.parametrize("settings", [["formats=litert"], ["formats=executorch", "backend=native"], ["formats=onnx"]])
def test_the_dispatch_kernel_is_executorchs_alone(settings: list[str]) -> None:
    chosen = override(load_target("host"), [*settings, "dispatch=kernel"])
    with pytest.raises(UserError, match="expected executorch files with backend=xnnpack"):
        chosen.list_cells()
    override(load_target("host"), ["formats=executorch", "dispatch=kernel"]).list_cells()


def test_pixels_lie_as_a_formats_users_expect_or_as_asked() -> None:
    image = override(load_target("host"), ["input=image", "formats=litert,onnx,executorch,bve"])
    assert [image.find_layout(name) for name in image.formats] == ["NHWC", "NCHW", "NCHW", "NCHW"]
    assert [image.takes_pixels(name) for name in image.formats] == [True, True, True, False]
    asked = override(image, ["layout=NHWC"])
    asked.list_cells()
    assert [asked.find_layout(name) for name in asked.formats] == ["NHWC", "NHWC", "NHWC", "NCHW"]
    assert not override(image, ["input=tensor"]).takes_pixels("litert")
    assert not override(image, ["backend=coreml"]).takes_pixels("executorch")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["input=image", "layout=NCHW"], "layout=NCHW for litert; expected NHWC"),
        (["layout=NHWC"], "layout=NHWC for litert, onnx, bve with input=tensor"),
        (["input=image", "formats=coreml", "layout=NHWC"], "layout=NHWC for coreml with input=image"),
        (["input=image", "formats=bve", "layout=NCHW"], "layout=NCHW for bve"),
        (["input=image", "formats=executorch", "backend=coreml", "layout=NHWC"], "layout=NHWC for executorch"),
        (["input=picture"], "unknown word 'picture' in input"),
        (["input=image", "layout=HWC"], "unknown word 'HWC' in layout"),
    ],
)
def test_a_layout_that_a_format_cannot_have_is_refused(settings: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        override(load_target("host"), settings).list_cells()
