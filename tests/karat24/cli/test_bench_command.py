"""``karat24 bench``: parity decides, starts and memory are measured, the JSON says everything."""

from __future__ import annotations

import json
import sys
from dataclasses import fields
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from karat24.cli import main
from karat24.contest.contestants import fitting_profile
from karat24.contest.figures import SCHEMA, Contest, Entry
from karat24.export.tflite import write_tflite
from karat24.refimpl.builder import GraphBuilder
from karat24.refimpl.graph import Graph, Quantization
from karat24.refimpl.kernels.jit.isa import FEATURES, why_not
from tests.support.small_network import small_graph

pytest.importorskip("ai_edge_litert", reason="LiteRT is not installed")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "small.tflite"
    path.write_bytes(write_tflite(small_graph()))
    return path


def bench(model: Path, *arguments: str) -> tuple[int, dict[str, Any]]:
    """Exit code and figures of a short contest."""
    figures = model.with_suffix(".json")
    code = main(["bench", str(model), "--rounds", "3", "--json", str(figures), *arguments])
    return code, json.loads(figures.read_text(encoding="utf-8"))


def test_equal_outputs_are_timed_and_everything_is_told(
    model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, found = bench(model, "--against", "litert-ref", "--layers", "--traced", "--no-cold")
    assert code == 0
    assert found["schema"] == SCHEMA
    assert set(found) == {field.name for field in fields(Contest)} | {"schema", "exit_code"}
    assert found["macs"] == 8 * 8 * 9 * (3 * 5 + 5 * 5)
    assert found["machine"]["cpu"]
    plain, traced, runtime = found["entries"]
    for entry in found["entries"]:
        assert set(entry) == {field.name for field in fields(Entry)}
        assert len(entry["seconds"]) >= 3
        assert entry["quartiles"]["lower"] <= entry["quartiles"]["median"] <= entry["quartiles"]["upper"]
        assert entry["gmac_per_s"] == pytest.approx(found["macs"] / entry["quartiles"]["median"] / 1e9)
        assert entry["warm_start"]["to_first_result_s"] > entry["warm_start"]["first_run_s"] > 0
        assert entry["cold_start"] is None
        assert entry["versions"]["python"]
    judge = f"oracle {fitting_profile('litert-ref')}"
    assert [entry["name"] for entry in found["entries"]] == [
        judge, f"{judge} traced", "litert-ref",
    ]  # fmt: skip
    assert plain["isa"] in FEATURES
    assert plain["peak_fraction"] == pytest.approx(plain["gmac_per_s"] / found["peaks"][plain["isa"]])
    assert "ai-edge-litert" in runtime["versions"]
    assert {(p["oracle"], p["other"], p["verdict"]) for p in found["parity"]} == {
        (judge, "litert-ref", "equal"),
        (f"{judge} traced", "litert-ref", "equal"),
        (judge, f"{judge} traced", "equal"),
    }
    assert [layer["op"] for layer in plain["layers"]] == ["CONV_2D", "CONV_2D", "ADD", "MAX_POOL_2D"]
    assert sum(layer["share"] for layer in plain["layers"]) == pytest.approx(1)
    assert [layer["gmac_per_s"] > 0 for layer in traced["layers"]] == [True, True, False, False]
    assert "tells no times" in runtime["layers_why_not"]
    if sys.platform == "linux":
        assert all(entry["peak_memory_bytes"] > 10 * 2**20 for entry in found["entries"])
    printed = capsys.readouterr().out
    assert f"equal: litert-ref and {judge}, all 80 output values" in printed
    assert f"litert-ref / {judge}:" in printed
    assert "every tensor kept / none" in printed


def halving() -> Graph:
    """A convolution that halves its input: every odd value is a tie, which XNNPACK rounds to even."""
    builder = GraphBuilder("halving")
    image = builder.input("image", (1, 4, 4, 4), "int8", Quantization.per_tensor(1.0))
    identity = np.eye(4, dtype=np.int8).reshape(4, 1, 1, 4)
    halves = Quantization((0.5,) * 4, (0,) * 4, 0)
    filter_ = builder.constant("filter", identity, halves)
    bias = builder.constant("bias", np.zeros(4, np.int32), halves)
    output = builder.tensor("half", (1, 4, 4, 4), "int8", Quantization.per_tensor(1.0))
    builder.layer(
        "CONV_2D", [image, filter_, bias], [output], 3,
        padding="SAME", stride_w=1, stride_h=1, dilation_w_factor=1, dilation_h_factor=1,
        fused_activation_function="NONE",
    )  # fmt: skip
    return builder.build([output])


@pytest.mark.parametrize("anyway", [False, True])
def test_outputs_that_differ_are_reported_and_exit_1(
    anyway: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """XNNPACK held to the reference kernels' rounding, on ties."""
    path = tmp_path / "halving.tflite"
    path.write_bytes(write_tflite(halving()))
    code, found = bench(
        path, "--against", "litert-xnnpack", "--profile", "litert-2.3-ref", "--no-cold",
        *["--time-anyway"] * anyway,
    )  # fmt: skip
    assert code == found["exit_code"] == 1
    (parity,) = found["parity"]
    assert parity["verdict"] == "differs"
    assert 0 < parity["differing"] <= parity["values"] == 64
    printed = capsys.readouterr().out
    said = f"{parity['differing']} of 64 output values"
    assert f"DIFFERS: litert-xnnpack and oracle litert-2.3-ref, {said}" in printed
    assert bool(found["ratios"]) == anyway
    assert all(bool(entry["seconds"]) == anyway for entry in found["entries"])
    assert ("nothing was timed" in printed) != anyway


def test_onnx_runtime_is_timed_on_the_converted_model(model: Path) -> None:
    pytest.importorskip("onnxruntime", reason="ONNX Runtime is not installed")
    code, found = bench(model, "--against", "ort", "--layers", "--no-cold", "--threads", "2")
    assert code == 0
    oracle, runtime = found["entries"]
    assert (oracle["format"], oracle["profile"]) == ("onnx", fitting_profile("ort"))
    # A default session leaves in float what reads an int8 edge with two readers.
    assert {"QuantizeLinear", "Conv", "Add"} <= {layer["op"] for layer in runtime["layers"]}
    assert runtime["threads"] == 2


@pytest.mark.slow
def test_every_instruction_set_is_compared_with_the_others(model: Path) -> None:
    sets = [isa for isa in FEATURES if why_not(isa) is None]
    code, found = bench(model, "--no-cold", *(word for isa in sets for word in ("--isa", isa)))
    assert code == 0
    assert [entry["isa"] for entry in found["entries"]] == sets
    assert set(found["peaks"]) == set(sets)
    assert [parity["verdict"] for parity in found["parity"]] == ["equal"] * (len(sets) - 1)


def test_another_profile_is_timed_beside_the_judge(model: Path) -> None:
    code, found = bench(model, "--against", "litert-xnnpack", "--also", "tflm", "--no-cold")
    assert code == 0
    assert {(ratio["oracle"], ratio["runtime"]) for ratio in found["ratios"]} == {
        ("oracle tflm", "litert-xnnpack"),
        (f"oracle {fitting_profile('litert-xnnpack')}", "litert-xnnpack"),
    }


@pytest.mark.slow
def test_a_cold_start_compiles_and_a_warm_one_does_not(model: Path) -> None:
    """In an empty cache directory of its own: whatever this checkout has compiled already does not count."""
    code, found = bench(model)
    assert code == 0
    (entry,) = found["entries"]
    cold, warm = entry["cold_start"], entry["warm_start"]
    assert cold["open_s"] + cold["first_run_s"] > 2 * (warm["open_s"] + warm["first_run_s"])
    assert cold["to_first_result_s"] > cold["first_run_s"]


def test_a_runtime_that_is_missing_is_stopped_with_its_reason(
    model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if find_spec("tflite_runtime"):
        pytest.skip("tflite-runtime is installed in this environment, so it cannot be missing")
    monkeypatch.setenv("KARAT24_TFLITE_PYTHON", "/nonexistent/python")
    code, found = bench(model, "--against", "tflite-2.14-ref", "--no-cold")
    assert code == 3
    oracle, runtime = found["entries"]
    assert oracle["seconds"]
    assert "/nonexistent/python" in runtime["stopped"]
    assert "stopped:" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--against", "nothing"], "there are litert-ref"),
        (["--isa", "sse9"], "no instruction set 'sse9'"),
        (["--profile", "ort-1.31"], "ort-1.31 describes runtimes of .onnx files"),
        (["--also", "none"], "no profile 'none'"),
        (["--json", "no/such/folder/x.json"], "does not exist"),
    ],
)
def test_wrong_use_is_one_line_and_exit_2(
    arguments: list[str], said: str, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", str(model), *arguments]) == 2
    errors = capsys.readouterr().err
    assert said in errors
    assert errors.count("\n") == 1


def test_the_help_says_what_every_column_is(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["bench", "--help"])
    text = capsys.readouterr().out
    for column in ("GMAC/s", "peak", "memory", "cold", "warm"):
        assert f"\n  {column} " in text
