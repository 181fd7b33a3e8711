"""Finding the first wrong layer: checks that are wrong from a layer on, cannot decide, or are interrupted."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from karat24.cli import main
from karat24.export.tflite import read_tflite, write_tflite
from karat24.golden.bisect import Answer, Part, Record, bisect, each_layer, first_layers, one_layer
from karat24.refimpl.engine import compile_graph
from karat24.refimpl.errors import UsageError
from karat24.refimpl.graph import Graph
from karat24.refimpl.trace import Trace
from tests.support.processes import runs
from tests.support.small_network import small_graph


@pytest.fixture(scope="module")
def graph() -> Graph:
    return small_graph()


@pytest.fixture(scope="module")
def trace(graph: Graph) -> Trace:
    image = np.random.default_rng(0).integers(-128, 128, (1, 8, 8, 3)).astype(np.int8)
    return compile_graph(graph, "litert-2.3-ref", 1).run([image], True).trace


class Wrong:
    """A check that is wrong from layer ``layer`` of the whole model on; it keeps what it was asked."""

    def __init__(
        self, graph: Graph, layer: int, undecided: tuple[str, ...] = (), alone: Answer = "wrong"
    ) -> None:
        self.culprit = graph.view(layer).output().name
        self.undecided, self.alone, self.asked = undecided, alone, []

    def __call__(self, part: Part) -> Answer:
        self.asked.append(part.name)
        if part.name in self.undecided:
            return "undecided"
        made = {view.output().name for view in read_tflite(part.model).views()}
        if self.culprit not in made:
            return "right"
        return self.alone if part.name.startswith("layer") else "wrong"


def layers(graph: Graph) -> range:
    return range(len(graph.layers))


def test_each_layer_is_found_where_it_is_the_first_wrong_one(
    graph: Graph, trace: Trace, tmp_path: Path
) -> None:
    for layer in layers(graph):
        check = Wrong(graph, layer)
        found = bisect(graph, trace, check, Record(tmp_path / f"{layer}.json", "x"))
        assert (found.whole, found.layer, found.alone) == ("wrong", layer, "wrong")
        assert len(check.asked) == len(set(check.asked)) <= 3 + len(graph.layers).bit_length()


def test_a_layer_may_be_right_by_itself(graph: Graph, trace: Trace, tmp_path: Path) -> None:
    found = bisect(graph, trace, Wrong(graph, 2, alone="right"), Record(tmp_path / "r.json", "x"))
    assert (found.layer, found.alone) == (2, "right")


def test_parts_that_cannot_be_decided_are_gone_round(graph: Graph, trace: Trace, tmp_path: Path) -> None:
    """With the middle undecided the neighbours tell; with all around undecided, a range is left."""
    check = Wrong(graph, 0, undecided=("first 2 layers",))
    assert bisect(graph, trace, check, Record(tmp_path / "a.json", "x")).layer == 0
    check = Wrong(graph, 1, undecided=("first 1 layers", "first 2 layers"))
    found = bisect(graph, trace, check, Record(tmp_path / "b.json", "x"))
    assert (found.layer, found.between) == (None, (0, 2))


def test_parts_hand_on_what_later_layers_read(graph: Graph, trace: Trace) -> None:
    """Behind two convolutions the addition reads both: both are outputs, with the oracle's values."""
    part = first_layers(graph, trace, 2)
    assert sorted(part.expected) == ["first", "second"]
    assert list(part.inputs) == ["image"]
    single = one_layer(graph, trace, 2)
    assert sorted(single.inputs) == ["first", "second"]
    assert single.expected["added"].tobytes() == trace.tensors[graph.view(2).output().index].tobytes()


def test_a_search_goes_on_where_it_was(graph: Graph, trace: Trace, tmp_path: Path) -> None:
    path = tmp_path / "record.json"

    class Interrupted(Wrong):
        def __call__(self, part: Part) -> Answer:
            if len(self.asked) == 2:
                raise KeyboardInterrupt
            return super().__call__(part)

    first = Interrupted(graph, 1)
    with pytest.raises(KeyboardInterrupt):
        bisect(graph, trace, first, Record(path, "x"))
    second = Wrong(graph, 1)
    assert bisect(graph, trace, second, Record(path, "x")).layer == 1
    assert not set(first.asked) & set(second.asked)
    third = Wrong(graph, 1)
    assert bisect(graph, trace, third, Record(path, "x")).layer == 1
    assert third.asked == []
    with pytest.raises(UsageError, match="of a search with another model"):
        Record(path, "y")
    path.write_text("{")
    with pytest.raises(UsageError, match="no record of a search"):
        Record(path, "x")


def test_what_was_undecided_is_asked_again(graph: Graph, trace: Trace, tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    whole = f"first {len(graph.layers)} layers"
    assert bisect(graph, trace, Wrong(graph, 1, (whole,)), Record(path, "x")).whole == "undecided"
    assert bisect(graph, trace, Wrong(graph, 1), Record(path, "x")).layer == 1


def test_every_layer_may_be_asked_by_itself(graph: Graph, trace: Trace, tmp_path: Path) -> None:
    answers = each_layer(graph, trace, Wrong(graph, 1), Record(tmp_path / "r.json", "x"))
    assert answers == {layer: "wrong" if layer == 1 else "right" for layer in layers(graph)}


SCRIPT = """
import sys, zipfile, numpy as np
from pathlib import Path
log, code, model, inputs, expected = sys.argv[1:]
names = np.load(expected).files
with open(log, "a") as file:
    file.write(",".join(names) + "|" + ",".join(np.load(inputs).files) + "\\n")
content = Path(model).read_bytes()
sys.exit(int(code) if b"second" in content and names != ["added"] else 0)
"""


@pytest.fixture
def command(tmp_path: Path):
    """A model, and a command that ends with ``code`` for parts that compute ``second``."""
    model, script, log = tmp_path / "small.tflite", tmp_path / "check.py", tmp_path / "log.txt"
    model.write_bytes(write_tflite(small_graph()))
    script.write_text(SCRIPT)

    def arguments(code: int, *more: str) -> list[str]:
        words = f"{sys.executable} {script} {log} {code} {{model}} {{inputs}} {{expected}}"
        return ["bisect", str(model), "--check", words, *more]

    arguments.log, arguments.folder = log, tmp_path / "small.tflite.bisect"
    return arguments


def test_the_command_leaves_the_layer_with_its_inputs(command, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(command(1)) == 1
    out = capsys.readouterr().out
    assert "the first wrong layer is layer 1 (CONV_2D, 'second'); it is wrong by itself, too" in out
    left = read_tflite(command.folder / "layer-1.tflite")
    assert [view.op for view in left.views()] == ["CONV_2D"]
    inputs, expected = (np.load(command.folder / f"layer-1-{name}.npz") for name in ("inputs", "expected"))
    result = compile_graph(left, "litert-2.3-ref", 1).run({"first": inputs["first"]})
    assert np.array_equal(result.outputs[0], expected["second"])
    assert not list(command.folder.glob("part*"))
    asked = command.log.read_text().count("\n")
    assert main(command(1)) == 1
    assert command.log.read_text().count("\n") == asked


def test_the_command_says_what_it_cannot_decide(command, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(command(77)) == 3
    out = capsys.readouterr().out
    assert "the command ended with exit code 77, neither 0 nor 1" in out
    assert "cannot decide the whole model" in out


def test_the_command_finds_nothing_wrong(command, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(command(0)) == 0
    assert "the whole model is right" in capsys.readouterr().out


def test_another_check_is_another_search(command, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(command(0)) == 0
    assert main(command(1)) == 2
    assert "of a search with another model, input, profile or check" in capsys.readouterr().err
    assert json.loads((command.folder / "answers.json").read_text())["answers"]


def test_a_command_that_hangs_is_ended_with_its_children(command, tmp_path: Path) -> None:
    """What it left running would keep the device from the next part."""
    child = tmp_path / "child"
    words = f"sh -c 'sleep 600 & echo $! >> {child}; wait' {{model}}"
    assert main(["bisect", command(0)[1], "--check", words, "--time-limit", "5"]) == 3
    started = child.read_text().split()
    assert len(started) == 1
    while runs(int(started[0])):
        time.sleep(0.05)


def test_a_shell_may_be_the_command(command, capsys: pytest.CaptureFixture[str]) -> None:
    words = 'sh -c "cat {model} | grep -q second && exit 1 || exit 0"'
    assert main(["bisect", command(0)[1], "--check", words]) == 1
    assert "the first wrong layer is layer 1" in capsys.readouterr().out


def test_answers_nobody_gives_are_no_record(tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    path.write_text(json.dumps({"subject": "x", "answers": {"layer 1": "maybe"}}))
    with pytest.raises(UsageError, match="no record of a search"):
        Record(path, "x")


def test_a_runtime_is_asked_by_its_name(command, capsys: pytest.CaptureFixture[str]) -> None:
    model = command(0)[1]
    assert main(["bisect", model, "--delegate", "litert-ref", "--each"]) == 0
    assert capsys.readouterr().out.count("right") == len(small_graph().layers)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--check", "true"], "must say where the model goes"),
        (["--check", "no-such-program {model}"], "cannot be run"),
        (["--check", "run 'it {model}"], "No closing quotation"),
    ],
)
def test_a_check_that_cannot_be_run_is_refused(
    command, arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bisect", command(0)[1], *arguments]) == 2
    assert words in capsys.readouterr().err
