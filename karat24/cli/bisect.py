"""``karat24 bisect``: the first layer a device or command gets wrong, left as a model of its own."""

from __future__ import annotations

import argparse
import hashlib
import io
import shlex
import subprocess
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from karat24.cli import options as shared

if TYPE_CHECKING:
    from collections.abc import Mapping

    from karat24.golden.bisect import Answer, Check, Part
    from karat24.refimpl.graph import Array, Graph
    from karat24.refimpl.trace import Trace

HELP = "find the first layer a runtime, device or command of yours gets wrong"
EPILOG = """examples:
  karat24 bisect model.tflite --check './on-device.sh {model} {inputs} {expected}'
  karat24 bisect model.tflite --delegate edgetpu --each

The command is run once per part of the model, without a shell (--check 'sh -c "a {model} | b"'
has one), and all it started is ended with it. {model} is a .tflite,
{inputs} and {expected} are .npz files with arrays by tensor name. It says right with exit
code 0, wrong with 1; anything else is undecided, and other parts are tried instead.

Answers are kept in the folder: run the same command again to go on. The wrong layer is left
there as a model of its own, with its inputs and what the oracle computes.

exit codes: 0 all is right, 1 a layer is wrong, 2 usage or input error, 3 undecided"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's options."""
    shared.add_model(parser)
    shared.add_feeds(parser)
    shared.add_profile(parser, "the one that describes the delegate; for a command litert-2.3-ref")
    asked = parser.add_mutually_exclusive_group(required=True)
    asked.add_argument(
        "--check", metavar="CMD", help="a command with {model}, {inputs} and perhaps {expected}"
    )
    delegate = asked.add_argument("--delegate", metavar="D", help="a runtime, see `karat24 delegates`")
    shared.complete_with(delegate, shared.delegate_names)
    parser.add_argument(
        "--each", action="store_true", help="check every layer by itself, rather than first layers"
    )
    parser.add_argument(
        "--folder",
        type=Path,
        metavar="DIR",
        help="where answers and the layer are kept (default: MODEL.bisect)",
    )
    parser.add_argument("--time-limit", type=float, default=600.0, metavar="S", help="seconds per check")


def run(options: argparse.Namespace) -> int:
    """Searches, prints, and leaves the wrong layers in the folder."""
    from karat24.golden.bisect import Record, bisect, each_layer, one_layer
    from karat24.refimpl.engine import compile_graph
    from karat24.refimpl.errors import UsageError
    from karat24.refimpl.profiles import caveat_of

    graph = shared.read_graph(options.model)
    if graph.format != "tflite":
        raise UsageError(f"{options.model}: bisect takes .tflite files")
    if options.check is not None and "{model}" not in options.check:
        raise UsageError("--check must say where the model goes: {model}")
    profile = _profile_of(options)
    feeds = shared.feeds_of(graph, options)
    trace = compile_graph(graph, profile, implementation="cheapest").run(feeds, True).trace
    assert trace is not None
    if caveat := caveat_of(trace.profile):
        print(f"note: {caveat}")
    folder: Path = options.folder or options.model.with_name(options.model.name + ".bisect")
    folder.mkdir(parents=True, exist_ok=True)
    subject = _digest(options, graph, trace.tensors, trace.profile)
    record = Record(folder / "answers.json", subject)
    with ExitStack() as running:
        check = _command(options, folder) if options.check is not None else _delegate(options, running)
        if options.each:
            return _each(graph, trace, each_layer(graph, trace, check, record), folder)
        found = bisect(graph, trace, check, record)
    if found.whole != "wrong":
        print(
            "the whole model is right"
            if found.whole == "right"
            else "the check cannot decide the whole model"
        )
        return 0 if found.whole == "right" else 3
    if found.layer is None:
        assert found.between is not None
        first, last = found.between
        print(f"the first wrong layer is one of {first} to {last}; the check cannot decide the parts between")
        return 3
    part = one_layer(graph, trace, found.layer)
    where = _leave(part, folder)
    alone = {
        "wrong": "it is wrong by itself, too",
        "right": "by itself it is right: it is wrong only behind the layers before it",
        "undecided": "by itself the check cannot decide it",
    }
    print(f"the first wrong layer is {graph.view(found.layer)}; {alone[found.alone or 'undecided']}")
    print(f"left in {where}, with its inputs and the oracle's outputs beside it")
    return 1


def _each(graph: Graph, trace: Trace, answers: Mapping[int, Answer], folder: Path) -> int:
    from karat24.golden.bisect import one_layer

    for layer, answer in answers.items():
        print(f"{layer:4}  {graph.layers[layer].op:24} {answer}")
    wrong = [layer for layer, answer in answers.items() if answer == "wrong"]
    for layer in wrong:
        _leave(one_layer(graph, trace, layer), folder)
    return 1 if wrong else 3 if "undecided" in answers.values() else 0


def _profile_of(options: argparse.Namespace) -> str | None:
    """The profile asked for, else the delegate's own; a command is held to the canonical one.

    Raises CannotCompare for a delegate that no profile describes.
    """
    from karat24.delegates import delegate_named
    from karat24.refimpl.errors import CannotCompare

    if options.profile or options.delegate is None:
        chosen: str | None = options.profile
        return chosen
    with delegate_named(options.delegate) as made:
        if not made.profile:
            raise CannotCompare(f"no profile describes {made.name}; choose one with --profile")
        return made.profile


def _digest(options: argparse.Namespace, graph: Graph, tensors: Mapping[int, Array], profile: str) -> str:
    """What an answer depends on: model, inputs, profile, and the command or delegate that is asked."""
    digest = hashlib.sha256(options.model.read_bytes())
    for index in graph.inputs:
        digest.update(tensors[index].tobytes())
    digest.update(f"{profile} {options.check} {options.delegate}".encode())
    return digest.hexdigest()


def _delegate(options: argparse.Namespace, running: ExitStack) -> Check:
    """Right where every output is the oracle's, bit for bit."""
    from karat24.delegates import delegate_named
    from karat24.export import read_model
    from karat24.golden.undefined import cleared
    from karat24.refimpl.errors import DelegateError, DelegateUnavailable

    delegate = running.enter_context(delegate_named(options.delegate, time_limit=options.time_limit))

    def check(part: Part) -> Answer:
        try:
            run = delegate.run(part.model, dict(part.inputs), tensors="outputs")
            run = cleared(read_model(part.model), run)
        except DelegateUnavailable:
            raise
        except DelegateError as error:
            print(f"{part.name}: {error}")
            return "undecided"
        found = zip(run.outputs, part.expected.values(), strict=True)
        return "right" if all(a.tobytes() == b.tobytes() for a, b in found) else "wrong"

    return check


def _command(options: argparse.Namespace, folder: Path) -> Check:
    from karat24.delegates.programs import run_program
    from karat24.refimpl.errors import UsageError

    try:
        command = shlex.split(options.check)
    except ValueError as error:
        raise UsageError(f"--check {options.check!r}: {error}") from None

    def check(part: Part) -> Answer:
        paths = {"model": folder / "part.tflite", "inputs": folder / "part-inputs.npz"}
        paths["expected"] = folder / "part-expected.npz"
        paths["model"].write_bytes(part.model)
        paths["inputs"].write_bytes(_npz(part.inputs))
        paths["expected"].write_bytes(_npz(part.expected))
        words = command
        for name, path in paths.items():
            words = [word.replace("{" + name + "}", str(path)) for word in words]
        try:
            code = run_program(words, options.time_limit)
        except subprocess.TimeoutExpired:
            print(f"{part.name}: no answer within {options.time_limit:g} s")
            return "undecided"
        except OSError as error:
            raise UsageError(f"{words[0]}: cannot be run ({error.strerror})") from None
        finally:
            for path in paths.values():
                path.unlink(missing_ok=True)
        if code not in (0, 1):
            print(f"{part.name}: the command ended with exit code {code}, neither 0 nor 1")
        return "right" if code == 0 else "wrong" if code == 1 else "undecided"

    return check


def _npz(arrays: Mapping[str, Array]) -> bytes:
    """Arrays by name; a name may hold anything, so it is not taken as a keyword."""
    from zipfile import ZipFile

    import numpy as np

    content = io.BytesIO()
    with ZipFile(content, "w") as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w") as member:
                np.lib.format.write_array(member, np.ascontiguousarray(array), allow_pickle=False)
    return content.getvalue()


def _leave(part: Part, folder: Path) -> Path:
    """Writes the part, its inputs and outputs under its name."""
    name = part.name.replace(" ", "-")
    path = folder / f"{name}.tflite"
    path.write_bytes(part.model)
    (folder / f"{name}-inputs.npz").write_bytes(_npz(part.inputs))
    (folder / f"{name}-expected.npz").write_bytes(_npz(part.expected))
    return path
