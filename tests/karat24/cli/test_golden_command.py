"""``karat24 golden``: exit codes that mean what they say, and nothing written unasked."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from karat24.cli import main
from karat24.export import read_model
from karat24.export.tflite import write_tflite
from karat24.feeds import random_feeds
from karat24.refimpl.engine import compile_graph
from tests.support.small_network import small_graph


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model without a golden, in the working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GITHUB_ACTIONS", raising=False)
    path = tmp_path / "small.tflite"
    path.write_bytes(write_tflite(small_graph()))
    return path


@pytest.fixture
def golden(model: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    assert main(["golden", "record", str(model)]) == 0
    capsys.readouterr()
    return model.with_name("small.tflite.golden.json")


def change(model: Path) -> None:
    model.write_bytes(model.read_bytes() + b"\0" * 4)


def test_unchanged_is_0(golden: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in ([], [str(golden)], ["small.tflite"], ["."], ["--models", "."]):
        assert main(["golden", "check", *arguments]) == 0, arguments
    assert "BIT_EXACT" in capsys.readouterr().out


def test_different_values_are_1(model: Path, golden: Path, capsys: pytest.CaptureFixture[str]) -> None:
    graph = read_model(model)
    trace = compile_graph(graph).run(random_feeds(graph, 0), trace=True).trace
    assert trace is not None
    values = {f"{index}": values for index, values in trace.tensors.items()}
    np.savez("dump.npz", **values)
    assert main(["golden", "check", str(golden), "--recorded", "dump.npz"]) == 0
    last = str(graph.layers[2].outputs[0])
    values[last] = values[last] ^ 1
    np.savez("dump.npz", **values)
    command = [
        "golden",
        "check",
        str(golden),
        "--recorded",
        "dump.npz",
        "--json",
        "r.json",
        "--junit",
        "r.xml",
    ]
    assert main(command) == 1
    assert "layer" in capsys.readouterr().out
    (report,) = json.loads(Path("r.json").read_text(encoding="utf-8"))
    assert report["first_divergence"]["layer"] == 2
    assert 'failures="1"' in Path("r.xml").read_text(encoding="utf-8")


def test_missing_is_3(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in ([], ["small.tflite"], ["absent.golden.json"], ["absent"]):
        assert main(["golden", "check", *arguments]) == 3, arguments
    assert main(["golden", "show", "absent.golden.json"]) in (2, 3)
    assert "golden" in capsys.readouterr().err


def test_a_model_without_golden_is_3(golden: Path, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model.with_name("other.tflite").write_bytes(model.read_bytes())
    assert main(["golden", "check"]) == 0
    assert main(["golden", "check", "--models", "."]) == 3
    assert "other.tflite: no golden" in capsys.readouterr().err


def test_stale_and_damaged_are_3_and_hide_nothing(golden: Path, model: Path) -> None:
    """One that differs is found beside one that is damaged and one that is stale."""
    assert main(["golden", "record", str(model), "--name", "damaged"]) == 0
    damaged = model.with_name("small.tflite.damaged.golden.json")
    damaged.write_bytes(damaged.read_bytes()[:-5])
    assert main(["golden", "check"]) == 3
    assert main(["golden", "check", str(golden)]) == 0
    assert main(["golden", "list"]) == 3
    change(model)
    assert main(["golden", "check", str(golden)]) == 3
    assert main(["golden", "list"]) == 3


def test_accept_shows_and_writes_only_when_told(
    golden: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    change(model)
    before = golden.read_bytes()
    assert main(["golden", "accept"]) == 1
    said = capsys.readouterr()
    assert "model: small.tflite" in said.out
    assert "--yes" in said.err
    assert golden.read_bytes() == before
    assert main(["golden", "accept", "--yes"]) == 0
    assert golden.read_bytes() != before
    assert main(["golden", "check"]) == 0
    assert main(["golden", "accept"]) == 0, "nothing to accept needs no answer"


def test_record_overwrites_nothing(golden: Path, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = golden.read_bytes()
    assert main(["golden", "record", str(model), "--seed", "1"]) == 2
    assert "accept" in capsys.readouterr().err
    assert golden.read_bytes() == before
    assert main(["golden", "record", str(model), "--seed", "1", "--name", "one"]) == 0
    assert main(["golden", "record", str(model), "--name", "../one"]) == 2


def test_prune_removes_what_nothing_needs(golden: Path, model: Path) -> None:
    for name in ("a", "b"):
        command = ["golden", "record", str(model), "--name", name, "--keep", "all", "--folder", "goldens"]
        assert main(command) == 0
    moved = Path("goldens") / "small.tflite.a.golden.json"
    (Path("goldens") / ".killed.x.karat24-tmp").write_bytes(b"")
    assert len(list(Path("goldens").iterdir())) == 5
    moved.unlink()  # its arrays are left without a golden
    assert main(["golden", "prune"]) == 1
    assert len(list(Path("goldens").iterdir())) == 4, "nothing without --yes"
    assert main(["golden", "prune", "--yes"]) == 0
    assert {path.name.split(".")[2] for path in Path("goldens").iterdir()} == {"b"}
    assert main(["golden", "check"]) == 0
    model.unlink()
    assert main(["golden", "prune", "--yes"]) == 0
    assert not golden.exists()
    assert not list(Path("goldens").iterdir())


def test_show_lists_layers(golden: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["golden", "show", str(golden)]) == 0
    out = capsys.readouterr().out
    assert out.count("CONV_2D") == 2
    assert "seed 0" in out


@pytest.mark.parametrize("form", ["npz", "folder", "npy", "bin", "c"])
def test_every_form_of_a_recording(
    model: Path, golden: Path, capsys: pytest.CaptureFixture[str], form: str
) -> None:
    """What ``verify --recorded`` takes, ``golden check --recorded`` takes: the output alone leaves the other
    layers not compared, a folder and an archive hold all of them."""
    graph = read_model(model)
    trace = compile_graph(graph).run(random_feeds(graph, 0), trace=True).trace
    assert trace is not None
    (output,) = graph.outputs
    last = trace.tensors[output]
    dump = Path("dump" if form == "folder" else f"dump.{form}")
    if form == "folder":
        dump.mkdir()
        for index, values in trace.tensors.items():
            np.save(dump / f"{index}.npy", values)
    elif form == "npz":
        np.savez(dump, **{str(index): values for index, values in trace.tensors.items()})
    elif form == "npy":
        np.save(dump, last)
    elif form == "bin":
        dump.write_bytes(last.tobytes())
    else:
        dump.write_text(f"const int8_t out[] = {{{', '.join(map(str, last.reshape(-1).tolist()))}}};")
    command = ["golden", "check", str(golden), "--recorded", str(dump), "--json", "r.json"]
    whole = form in ("folder", "npz")
    if not whole:
        command += ["--recorded-tensor", str(output)]
    assert main(command) == (0 if whole else 3)
    (report,) = json.loads(Path("r.json").read_text(encoding="utf-8"))
    assert [found["verdict"] for found in report["outputs"]] == ["bit_exact"]
    compared = [layer["verdict"] for layer in report["layers"]]
    assert compared == (["bit_exact"] if whole else ["not_compared"]) * 3 + ["bit_exact"]


def test_recorded_tensor_needs_a_recording(golden: Path) -> None:
    assert main(["golden", "check", str(golden), "--recorded-tensor", "3"]) == 2


def test_annotations_where_github_reads_them(
    golden: Path, model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    assert main(["golden", "check"]) == 0
    assert "::error" not in capsys.readouterr().out
    np.savez("dump.npz", **{"6": np.zeros((1, 8, 8, 5), np.int8)})
    assert main(["golden", "check", str(golden), "--recorded", "dump.npz"]) == 1
    assert "::error file=" in capsys.readouterr().out
