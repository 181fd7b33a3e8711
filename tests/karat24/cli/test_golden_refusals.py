"""What ``karat24 golden`` cannot compare is in every report, under its name, and passes nowhere."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest

from karat24.cli import main
from karat24.delegates import conformance_models
from karat24.export import read_model
from karat24.export.tflite import write_tflite
from karat24.feeds import random_feeds
from karat24.golden import report as report_module
from karat24.refimpl.engine import compile_graph
from karat24.refimpl.graph import Array
from tests.support.command_runner import RUNNER, command
from tests.support.folder_device import run_device
from tests.support.int8_networks import plain
from tests.support.small_network import small_graph


@pytest.fixture(autouse=True)
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model and its golden in the working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GITHUB_ACTIONS", raising=False)
    Path("small.tflite").write_bytes(write_tflite(small_graph()))
    assert main(["golden", "record", "small.tflite"]) == 0
    return Path("small.tflite.golden.json")


def other_model() -> Path:
    path = Path("other.tflite")
    path.write_bytes(write_tflite(plain()))
    return path


def test_a_golden_is_of_the_model_it_is_named_by(small: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A copied golden names the model it was recorded of, which is there and unchanged: it says nothing of
    the one asked about."""
    model = other_model()
    shutil.copy(small, "other.tflite.golden.json")
    for named in (["other.tflite"], ["other.tflite", "."], [".", "other.tflite"]):
        assert main(["golden", "check", *named]) == 3, named
    assert "stale: recorded of small.tflite" in capsys.readouterr().err
    assert main(["golden", "accept", "other.tflite", "--yes"]) == 0
    assert "model: small.tflite" in capsys.readouterr().out
    assert main(["golden", "check", "other.tflite"]) == 0
    model.rename("moved.tflite")
    Path("other.tflite.golden.json").rename("moved.tflite.golden.json")
    assert main(["golden", "check", "moved.tflite"]) == 0, "the same model in another place"


def test_every_report_names_what_cannot_be_compared(
    small: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stale golden, a damaged one, a model without one and a path that is none, beside one that passes."""
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    other_model()
    assert main(["golden", "record", "other.tflite"]) == 0
    other_model().write_bytes(write_tflite(plain(seed=5)))
    Path("damaged.golden.json").write_bytes(small.read_bytes()[:-9])
    Path("third.tflite").write_bytes(write_tflite(plain(seed=6)))
    files = ["--json", "r.json", "--junit", "r.xml", "--html", "r.html"]
    assert main(["golden", "check", ".", "nothing.tflite", "--models", ".", *files]) == 3
    refused = ["other.tflite.golden.json", "damaged.golden.json", "third.tflite", "nothing.tflite"]
    entries = json.loads(Path("r.json").read_text(encoding="utf-8"))
    assert [entry["golden"] for entry in entries if "error" not in entry] == [str(small)]
    assert sorted(entry["golden"] for entry in entries if "error" in entry) == sorted(refused)
    assert {entry["exit_code"] for entry in entries} == {0, 3}
    require_schema(entries)
    suites = ElementTree.parse("r.xml").getroot()
    assert suites.get("errors") == "4"
    assert sorted(suite.get("name", "") for suite in suites if suite.get("errors") == "1") == sorted(refused)
    page = Path("r.html").read_text(encoding="utf-8")
    out = capsys.readouterr().out
    for name in refused:
        assert f"not compared</span> {name}</h2>" in page
        assert f"::error file={name},title=not_compared::" in out


def require_schema(content: object) -> None:
    jsonschema = pytest.importorskip("jsonschema", reason="jsonschema is not installed")
    path = Path(report_module.__file__).parent / "reports" / "report.schema.json"
    schema = json.loads(path.read_text(encoding="utf-8"))
    assert list(jsonschema.Draft202012Validator(schema).iter_errors(content)) == []


def test_one_golden_that_cannot_be_compared_is_reported(small: Path) -> None:
    """No file of an earlier, better day is left where only one golden is named."""
    Path("r.xml").write_text("<testsuites/>", encoding="utf-8")
    small.write_bytes(small.read_bytes()[:-9])
    assert main(["golden", "check", str(small), "--junit", "r.xml"]) == 3
    assert ElementTree.parse("r.xml").getroot().get("errors") == "1"


def newer(path: Path) -> None:
    """A golden as a later karat24 may write it."""
    body = (
        path.read_text(encoding="utf-8").replace('"version": 1,', '"version": 2,').rpartition('"checksum"')[0]
    )
    checksum = hashlib.sha256(body.encode()).hexdigest()
    path.write_text(f'{body}"checksum": "{checksum}"\n}}\n', encoding="utf-8")


@pytest.mark.parametrize("spoil", [newer, lambda path: path.write_bytes(path.read_bytes()[:-9])])
def test_what_cannot_be_read_keeps_its_arrays(spoil: object, capsys: pytest.CaptureFixture[str]) -> None:
    """A golden of a newer version, or a damaged one that git can bring back: its arrays are not left over."""
    command = ["golden", "record", "small.tflite", "--name", "kept", "--keep", "all"]
    assert main(command) == 0
    spoil(Path("small.tflite.kept.golden.json"))  # type: ignore[operator]
    before = sorted(Path().iterdir())
    assert main(["golden", "prune", "--yes"]) == 0
    assert sorted(Path().iterdir()) == before
    capsys.readouterr()
    assert main(["golden", "list"]) == 3
    assert capsys.readouterr().out.count("small.tflite") >= 2, "the others are listed, too"


def test_names_do_not_drive_the_terminal(small: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = small.read_text(encoding="utf-8").replace('"name": "first"', '"name": "\\u001b]0;title\\u0007"')
    body = text.rpartition('"checksum"')[0]
    checksum = hashlib.sha256(body.encode()).hexdigest()
    small.write_text(f'{body}"checksum": "{checksum}"\n}}\n', encoding="utf-8")
    assert "u001b" in text
    assert main(["golden", "show", str(small)]) == 0
    assert "\x1b" not in capsys.readouterr().out


@pytest.mark.parametrize(
    "options",
    [
        ["--seed", "-1"],
        ["--input-range", "0", "1"],
        ["--input", "x.npy", "--input-range", "nan", "1"],
        ["--input", "x.npy", "--input-range", "1", "1"],
    ],
)
def test_a_recipe_that_means_nothing_is_refused(options: list[str]) -> None:
    np.save("x.npy", np.zeros((1, 8, 8, 3), np.float32))
    assert main(["golden", "record", "small.tflite", "--name", "other", *options]) == 2
    assert not Path("small.tflite.other.golden.json").exists()


def test_a_link_to_nothing_is_a_golden_that_is_missing(small: Path) -> None:
    Path("lost.golden.json").symlink_to("nowhere")
    assert main(["golden", "check"]) == main(["golden", "list"]) == 3
    assert main(["golden", "check", str(small)]) == 0


def run_of(model: str) -> dict[int, Array]:
    graph = read_model(Path(model))
    trace = compile_graph(graph).run(random_feeds(graph, 0), trace=True).trace
    assert trace is not None
    return dict(trace.tensors)


def test_an_output_alone_can_pass_where_that_is_asked_for(small: Path) -> None:
    (output,) = read_model(Path("small.tflite")).outputs
    values = run_of("small.tflite")[output]
    np.save("y.npy", values)
    check = ["golden", "check", str(small), "--recorded", "y.npy", "--recorded-tensor", str(output)]
    assert main(check) == 3
    assert main([*check, "--only-recorded"]) == 0
    np.save("y.npy", values ^ 1)
    assert main([*check, "--only-recorded"]) == 1
    assert main(["golden", "check", str(small), "--only-recorded"]) == 2, "nothing is recorded"


def test_an_inner_tensor_alone_does_not_pass(small: Path) -> None:
    graph = read_model(Path("small.tflite"))
    index = graph.layers[0].outputs[0]
    np.save("inner.npy", run_of("small.tflite")[index])
    check = ["golden", "check", str(small), "--recorded", "inner.npy", "--recorded-tensor", str(index)]
    assert main([*check, "--only-recorded"]) == 3


def test_one_source_of_values_at_a_time(small: Path) -> None:
    with pytest.raises(SystemExit) as raised:
        main(["golden", "check", str(small), "--delegate", "litert-ref", "--recorded", "dump.npz"])
    assert raised.value.code == 2


def test_a_command_is_a_runtime_to_record_and_to_check(capsys: pytest.CaptureFixture[str]) -> None:
    """One that shows two of its tensors: held to the oracle's golden, and recorded without a profile."""
    Path("runner.py").write_text(RUNNER, encoding="utf-8")
    Path("chain.tflite").write_bytes(write_tflite(conformance_models.chain()))
    runner = ["--delegate-command", command("runner.py")]
    assert main(["golden", "record", "chain.tflite"]) == 0
    assert main(["golden", "check", "chain.tflite", *runner]) == 3, "layers that it hides are not compared"
    assert "outputs of the whole model: 1 bit_exact" in capsys.readouterr().out
    own = ["chain.tflite", "--folder", "own"]
    assert main(["golden", "record", *own, *runner]) == 0
    golden = Path("own/chain.tflite.golden.json")
    assert "profile none" in capsys.readouterr().out
    assert list(golden.parent.glob("*.npz")), "values of an opaque runtime are kept"
    assert main(["golden", "check", str(golden), *runner]) == 0
    assert main(["golden", "check", str(golden)]) == 3
    assert "is no delegate here" in capsys.readouterr().err
    spoilt = RUNNER.replace("[5, -7, 0]", "[5, -7, 9]")
    Path("runner.py").write_text(spoilt, encoding="utf-8")
    assert main(["golden", "check", str(golden), *runner]) == 1
    assert main(["golden", "accept", str(golden), *runner, "--yes"]) == 0
    assert main(["golden", "check", str(golden), *runner]) == 0


def test_a_device_behind_a_folder_is_asked_and_judged(
    small: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    device = ["--delegate-folder", "device"]
    assert main(["golden", "check", str(small), *device]) == 3
    assert "wait" in capsys.readouterr().err
    assert run_device(Path("device"), "litert-2.3-ref") == 1
    assert main(["golden", "check", str(small), *device]) == 3
    assert "outputs of the whole model: 1 bit_exact" in capsys.readouterr().out


def test_a_reader_that_leaves_makes_no_match(small: Path) -> None:
    """``karat24 … | head`` under ``pipefail``: a difference that nobody read is no exit code 0."""
    script = "from karat24.cli import main; raise SystemExit(main())"
    shown = [sys.executable, "-c", script, "golden", "show", str(small)]
    root = str(Path(__file__).resolve().parents[3])
    process = subprocess.Popen(shown, stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": root})
    assert process.stdout is not None
    process.stdout.close()
    assert process.wait() == 141


def test_what_a_device_gave_is_a_golden_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    """Its values are kept; the oracle and another dump are held against them, and its input must be named."""
    graph = read_model(Path("small.tflite"))
    values = run_of("small.tflite")
    np.save("x.npy", values[graph.inputs[0]])
    np.savez("dump.npz", **{str(index): array for index, array in values.items()})
    record = ["golden", "record", "small.tflite", "--name", "board", "--recorded", "dump.npz"]
    assert main(record) == 2
    assert "was fed" in capsys.readouterr().err
    record += ["--input", "x.npy"]
    assert main([*record, "--profile", "tflm"]) == 0
    golden = "small.tflite.board.golden.json"
    assert main(["golden", "check", golden]) == 3
    assert "recorded by 'recording'" in capsys.readouterr().err
    assert main(["golden", "check", golden, "--delegate", "oracle"]) == 0
    assert main(["golden", "check", golden, "--recorded", "dump.npz"]) == 0
    values[graph.outputs[0]] = values[graph.outputs[0]] ^ 1
    np.savez("dump.npz", **{str(index): array for index, array in values.items()})
    assert main(["golden", "check", golden, "--recorded", "dump.npz"]) == 1
    assert main(["golden", "accept", golden, "--recorded", "dump.npz", "--yes"]) == 0
    assert main(["golden", "check", golden, "--recorded", "dump.npz"]) == 0
    assert main(["golden", "check", golden, "--delegate", "oracle"]) == 1
    np.savez("dump.npz", **{str(graph.outputs[0]): values[graph.outputs[0]].view(np.uint8)})
    assert main([*record[:3], "--name", "unsigned", *record[5:]]) == 3, "nothing says how to read it"
    assert "in the tensor's own form" in capsys.readouterr().err
    Path("console.txt").write_text(" ".join(map(str, values[graph.outputs[0]].reshape(-1))))
    printed = ["--recorded", "console.txt", "--input", "x.npy"]
    assert main(["golden", "record", "small.tflite", "--name", "printed", *printed]) == 0
    check = ["golden", "check", "small.tflite.printed.golden.json", "--recorded", "console.txt"]
    assert main(check) == 0, "what is hidden is no part of it"


def test_an_overlay_is_of_a_file_s_own_layers(small: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["golden", "check", str(small), "--overlay", "o.json"]) == 0
    assert set(json.loads(Path("o.json").read_text(encoding="utf-8"))["results"]) == {"0", "1", "2", "3"}
    Path("model.onnx").write_bytes(b"")
    assert main(["verify", "model.onnx", "--delegate", "ort", "--overlay", "o.json"]) == 2
    assert "layers of its own" in " ".join(capsys.readouterr().err.split())
