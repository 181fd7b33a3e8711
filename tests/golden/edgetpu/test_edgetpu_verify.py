"""Judging an Edge TPU layer by layer: each layer is compiled by itself and run, by stand-ins."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from karat24.cli import main
from karat24.refimpl.profiles import PROFILES
from tests.support.edgetpu_device import Device

CAVEAT = PROFILES["edgetpu"].caveat


@pytest.fixture
def device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Device:
    return Device(tmp_path, monkeypatch)


def verify(device: Device, *more: str) -> tuple[int, dict[int, str], dict[str, object]]:
    """Exit code, verdict per layer, and the report."""
    report = device.folder / "report.json"
    arguments = ["verify", str(device.path), "--delegate", "edgetpu", "--input", str(device.image)]
    code = main([*arguments, "--json", str(report), *more])
    content = json.loads(report.read_text())
    return code, {layer["layer"]: layer["verdict"] for layer in content["layers"]}, content


def test_a_device_that_is_right_passes_and_the_caveat_is_said(
    device: Device, capsys: pytest.CaptureFixture[str]
) -> None:
    page, junit = device.folder / "page.html", device.folder / "junit.xml"
    code, verdicts, content = verify(device, "--html", str(page), "--junit", str(junit))
    assert code == 0
    assert verdicts == dict.fromkeys(range(4), "bit_exact")
    assert content["profile"] == "edgetpu"
    assert content["profile_reason"] == CAVEAT
    assert "BIT_EXACT: edgetpu against edgetpu (the rules of profile edgetpu" in capsys.readouterr().out
    assert "held against no device" in page.read_text()
    assert "held against no device" in junit.read_text()


@pytest.mark.parametrize("layer", [0, 1, 3])
def test_the_wrong_layer_is_the_one_that_differs(device: Device, layer: int) -> None:
    device.does({f"layer {layer}": "off by one"})
    code, verdicts, content = verify(device)
    assert code == 1
    assert {n for n, verdict in verdicts.items() if verdict != "bit_exact"} == {layer}
    assert content["layers"][layer]["verdict"] == "mismatch"
    assert content["layers"][layer]["diff"]["mismatch_count"] == 1


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ("lost", "USB transfer error 5 [LibUsbDataIn]"),
        ("crashes", "died of SIGSEGV"),
        ("hangs", "within 6 s"),
    ],
)
def test_what_goes_wrong_in_one_layer_costs_that_layer(device: Device, how: str, reason: str) -> None:
    """Not compared is no pass: the exit code says so, though the whole model is right."""
    device.does({"layer 2": how})
    code, verdicts, content = verify(device, "--time-limit", "6")
    assert code == 3
    assert verdicts == {0: "bit_exact", 1: "bit_exact", 2: "not_compared", 3: "bit_exact"}
    assert reason in content["layers"][2]["reason"]
    assert content["outputs"][0]["verdict"] == "bit_exact"


def test_a_layer_that_does_not_compile_is_not_compared(device: Device) -> None:
    device.cannot_compile("layer 1")
    code, verdicts, content = verify(device)
    assert (code, verdicts[1], verdicts[2]) == (3, "not_compared", "bit_exact")
    assert "Internal compiler error" in content["layers"][1]["reason"]


def test_a_library_too_old_for_the_layers_is_no_comparison(
    device: Device, capsys: pytest.CaptureFixture[str]
) -> None:
    device.is_old()
    assert main(["verify", str(device.path), "--delegate", "edgetpu"]) == 3
    assert "needs Edge TPU runtime 12" in capsys.readouterr().err


def test_each_layer_is_compiled_once_for_all_samples(device: Device) -> None:
    """The device has no answer to random inputs; what counts is what the compiler was asked for."""
    arguments = ["verify", str(device.path), "--delegate", "edgetpu", "--samples", "3"]
    assert main(arguments) == 3
    assert len(device.compiled) == len(set(device.compiled)) == 5


def bisect(device: Device, *more: str) -> int:
    return main(["bisect", str(device.path), "--delegate", "edgetpu", "--input", str(device.image), *more])


def test_bisecting_finds_the_first_layer(device: Device, capsys: pytest.CaptureFixture[str]) -> None:
    parts = ("first 3 layers", "first 4 layers", "layer 2")
    device.does(dict.fromkeys(parts, "off by one"))
    assert bisect(device) == 1
    out = capsys.readouterr().out
    assert f"note: {CAVEAT}" in out
    assert "the first wrong layer is layer 2 (CONV_2D, 'c'); it is wrong by itself, too" in out
    answers = json.loads((device.folder / "chain.tflite.bisect" / "answers.json").read_text())["answers"]
    assert answers == {
        "first 4 layers": "wrong", "first 2 layers": "right", "first 3 layers": "wrong", "layer 2": "wrong",
    }  # fmt: skip
    assert len(device.compiled) == 4


def test_bisecting_goes_round_a_part_the_device_dies_of(
    device: Device, capsys: pytest.CaptureFixture[str]
) -> None:
    parts = ("first 4 layers", "layer 3")
    device.does({**dict.fromkeys(parts, "off by one"), "first 2 layers": "crashes"})
    assert bisect(device) == 1
    assert "the first wrong layer is layer 3 (FULLY_CONNECTED, 'd')" in capsys.readouterr().out


def test_another_profile_may_be_asked_for_and_the_caveat_is_not_its(device: Device) -> None:
    """One value off by one under TFLite's profile, too: nothing explains it."""
    device.does({"layer 1": "off by one"})
    code, verdicts, content = verify(device, "--profile", "litert-2.3-ref")
    assert (code, verdicts[1]) == (1, "mismatch")
    assert (content["profile"], content["profile_reason"]) == ("litert-2.3-ref", "")
