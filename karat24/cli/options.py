"""Options and small pieces several commands share."""

from __future__ import annotations

import argparse
import math
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from karat24.delegates.protocol import Delegate
    from karat24.export.onnx import Flavour
    from karat24.refimpl.engine import Progress
    from karat24.refimpl.graph import Array, Format, Graph
    from karat24.refimpl.step import Step


def add_model(parser: argparse.ArgumentParser) -> None:
    """The positional MODEL."""
    parser.add_argument("model", type=Path, metavar="MODEL", help="a quantized model file (.tflite, .onnx)")


def add_subgraph(parser: argparse.ArgumentParser) -> None:
    """``--subgraph``."""
    parser.add_argument(
        "--subgraph",
        type=subgraph,
        metavar="S",
        help="one of several in a .tflite file, by number, name or signature",
    )


def subgraph(text: str) -> int | str:
    """argparse type: a subgraph's number, its name or that of a signature."""
    return int(text) if text.isdecimal() else text


def add_profile(parser: argparse.ArgumentParser, otherwise: str) -> None:
    """``--profile``; ``otherwise`` says what is taken without it."""
    option = parser.add_argument(
        "--profile",
        metavar="P",
        help=f"arithmetic profile, see `karat24 profiles`, or NAME.json (default: {otherwise})",
    )
    complete_with(option, profile_names)


def add_delegate_command(source: argparse._ActionsContainer) -> None:
    """``--delegate-command``."""
    source.add_argument(
        "--delegate-command",
        metavar="C",
        help="runtime of your own, such as 'runner {model} {inputs} {outputs}': reads input_0.npy … in one "
        "folder and writes output_0.npy … to another",
    )


def add_delegate_folder(source: argparse._ActionsContainer) -> None:
    """``--delegate-folder``."""
    source.add_argument(
        "--delegate-folder",
        type=Path,
        metavar="DIR",
        help="a device that runs elsewhere: DIR/… get model and inputs/input_0.npy …, and wait for "
        "outputs/output_0.npy …",
    )


def unlisted_runtime(options: argparse.Namespace, format: Format, profile: str) -> Delegate:
    """The delegate of ``--delegate-command`` or ``--delegate-folder``."""
    from karat24.delegates.command import CommandDelegate
    from karat24.delegates.folder import FolderDelegate

    if options.delegate_folder is not None:
        return FolderDelegate(options.delegate_folder, format, profile)
    return CommandDelegate(options.delegate_command, format, profile, options.time_limit)


def tell_waiting(delegate: Delegate) -> None:
    """Says on standard error what a device's folder waits for."""
    from karat24.delegates.folder import FolderDelegate

    if isinstance(delegate, FolderDelegate) and delegate.waiting:
        sys.stderr.write(
            f"{len(delegate.waiting)} models wait in {delegate.folder}: run each model.{delegate.format} on "
            "its inputs/input_0.npy …, write its outputs/output_0.npy …, then repeat this command\n"
        )


def complete_with(option: argparse.Action, names: Callable[[], Iterable[str]]) -> None:
    """Lets the shell complete the option's value with ``names``, asked for only then."""
    vars(option)["completer"] = lambda **_: list(names())


def profile_names() -> Iterable[str]:
    """Every arithmetic profile."""
    from karat24.refimpl.profiles import PROFILES

    return PROFILES


def delegate_names() -> Iterable[str]:
    """Every runtime, here or not."""
    from karat24.delegates import delegate_names

    return delegate_names()


def network_names() -> Iterable[str]:
    """The networks that ship."""
    from karat24.refimpl.networks import NETWORKS

    return NETWORKS


def scheme_names() -> Iterable[str]:
    """Every quantization scheme."""
    from karat24.export.quantize import PRESETS

    return PRESETS


def add_feeds(parser: argparse.ArgumentParser) -> None:
    """``--input`` and ``--seed``."""
    parser.add_argument(
        "--input", "-i", type=Path, nargs="+", default=[], metavar="F",
        help="input values: one .npz (arrays by input name), or one .npy or image per model input; real "
        "values are quantized as the model says",
    )  # fmt: skip
    parser.add_argument(
        "--input-range", type=float, nargs=2, metavar=("LOW", "HIGH"),
        help="values of --input that stand for the whole range of the model's input, for raw measurements "
        "(such as 0 4095 of a 12-bit detector)",
    )  # fmt: skip
    parser.add_argument("--seed", type=int, default=0, help="seed of the random input used without --input")


def add_threads(parser: argparse.ArgumentParser) -> None:
    """``--threads``; the bits never depend on it."""
    parser.add_argument("--threads", type=positive, default=None, metavar="N", help="threads of the oracle")


def add_implementation(parser: argparse.ArgumentParser) -> None:
    """``--implementation`` and ``--verbose``; the bits depend on neither."""
    parser.add_argument(
        "--implementation", choices=("cheapest", "kernels", "spec"), default="cheapest",
        help="how the oracle computes layers: by compiled kernels, by the slow definitions, or (default) by "
        "a slow definition where that takes less time than compiling its kernel, once, on this machine",
    )  # fmt: skip
    parser.add_argument(
        "--verbose", action="store_true", help="say how each of the oracle's layers was computed"
    )


def positive(text: str) -> int:
    """argparse type: an integer of at least 1."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is not at least 1")
    return value


def read_graph(path: Path, subgraph: int | str | None = None) -> Graph:
    """The model file as a graph; ``subgraph`` is one of a .tflite file's. Raises UsageError when there is no
    such file or subgraph."""
    from karat24.export import read_model
    from karat24.refimpl.errors import UsageError

    require_model_file(path)
    if subgraph is None:
        return read_model(path)
    if path.suffix.lower() != ".tflite":
        raise UsageError(f"{path}: --subgraph chooses in .tflite files; an .onnx file has one graph")
    from karat24.export.tflite import read_tflite

    return read_tflite(path, subgraph)


CONVERSIONS = {
    ".keras": "tf.lite.TFLiteConverter.from_keras_model",
    ".h5": "tf.lite.TFLiteConverter.from_keras_model",
    ".pb": "tf.lite.TFLiteConverter.from_saved_model, or tf2onnx",
    ".pt": "torch.onnx.export, or litert-torch",
    ".pth": "torch.onnx.export, or litert-torch",
    ".pt2": "torch.onnx.export, or litert-torch",
    ".engine": "nothing: give the .onnx file it was built from",
    ".plan": "nothing: give the .onnx file it was built from",
}
"""Suffix of another format to the tool that converts it to a file that karat24 reads."""


def require_model_file(path: Path) -> None:
    """Raises UsageError for a path that is not a .tflite or .onnx file, and says what to give instead."""
    from difflib import get_close_matches

    from karat24.refimpl.errors import UsageError

    if path.is_dir():
        raise UsageError(f"{path}: is a directory; name the .tflite or .onnx file")
    if not path.is_file():
        beside = os.listdir(path.parent) if path.parent.is_dir() else []
        close = get_close_matches(path.name, beside, 1)
        raise UsageError(f"{path}: no such file" + (f"; there is {path.parent / close[0]}" if close else ""))
    if path.suffix.lower() in CONVERSIONS:
        raise UsageError(
            f"{path}: karat24 reads .tflite and .onnx files; convert it with "
            f"{CONVERSIONS[path.suffix.lower()]}"
        )


def warn(graph: Graph, command: str) -> None:
    """Prints to stderr what in the model is likely a mistake."""
    from karat24.inspection.remarks import AXIS_LEFT_OUT, remarks

    for remark in remarks(graph, (AXIS_LEFT_OUT,)):
        print(f"karat24 {command}: warning: {remark.text}", file=sys.stderr)


def sized_for_feeds(graph: Graph, options: argparse.Namespace) -> Graph:
    """The graph with the sizes that ``--input`` brings, where the model leaves them open."""
    from karat24.feeds import sized_for

    files = [path for path in options.input if path.is_file()]
    return sized_for(graph, files) if graph.format == "tflite" and files == options.input else graph


def feeds_of(graph: Graph, options: argparse.Namespace, offset: int = 0) -> dict[int, Array]:
    """Feeds from ``--input``, else random from ``--seed`` + ``offset``."""
    from karat24.feeds import load_feeds, random_feeds
    from karat24.refimpl.errors import UsageError

    span = tuple(options.input_range) if options.input_range else None
    if span is not None and not (options.input and -math.inf < span[0] < span[1] < math.inf):
        raise UsageError("--input-range takes a finite LOW below HIGH and goes with --input")
    if options.input:
        loaded = load_feeds(graph, options.input, span)
        for note in loaded.notes:
            print(f"karat24 {options.command}: {note}", file=sys.stderr)
        return loaded.feeds
    return random_feeds(graph, options.seed + offset)


def cases_of(graph: Graph, options: argparse.Namespace) -> list[dict[int, Array]]:
    """All feeds of ``--input``, which may be a case of several images, else ``--samples`` random ones."""
    from karat24.feeds import stacked_feeds

    one = len(options.input) == 1 and not options.input_range
    stacked = stacked_feeds(graph, options.input[0]) if one else []
    return stacked or [feeds_of(graph, options, sample) for sample in range(options.samples)]


def progress(options: argparse.Namespace) -> Progress:
    """A bar on a terminal's stderr, and before the first run what is compiled, and compiling it.

    With ``--verbose`` a line says which layers are computed in which way.
    """
    announced = False

    def bar(steps: Sequence[Step]) -> Iterator[Step]:
        nonlocal announced
        if not announced:
            _compile(steps, options.verbose)
        announced = True
        yield from progress_bar(steps)

    return bar


def _compile(steps: Sequence[Step], verbose: bool) -> None:
    from karat24.refimpl.cheapest import codes_to_compile, seconds_to_compile
    from karat24.refimpl.kernels.jit.code import Code, compile_ahead, processes_for
    from karat24.refimpl.kernels.jit.compile_cache import cache_directory

    computed = [step for step in steps if not step.missing]
    layers = [(step.view, step.kernel) for step in computed]
    if seconds := seconds_to_compile(layers):
        codes = [code for code in codes_to_compile(layers) if isinstance(code, Code)]
        processes = processes_for(codes)
        if sys.stderr.isatty():
            print(
                f"karat24: compiling kernels for this processor, about {seconds / processes:.0f} s, once; "
                f"they are kept in {cache_directory()}",
                file=sys.stderr,
            )
        compile_ahead(codes)
    if verbose:
        for way, by_spec in (("compiled kernels", False), ("slow definitions", True)):
            indices = [f"{step.view.layer.index}" for step in computed if step.by_spec == by_spec]
            print(f"karat24: layers by {way}: {', '.join(indices) or 'none'}", file=sys.stderr)


def progress_bar(steps: Sequence[Step]) -> Iterator[Step]:
    """A bar on a terminal's stderr once a run has lasted a second."""
    from tqdm import tqdm

    yield from tqdm(steps, desc="karat24", unit="layer", delay=1.0, leave=False, disable=None)


def writable(path: Path) -> Path:
    """The path, once its folder exists and can be written. Raises UsageError."""
    from karat24.refimpl.errors import UsageError

    if path.is_dir():
        raise UsageError(f"{path}: is a directory; name a file to write")
    if not path.parent.is_dir():
        raise UsageError(f"{path}: folder {path.parent} does not exist; create it first")
    if not os.access(path.parent, os.W_OK):
        raise UsageError(f"{path}: folder {path.parent} cannot be written")
    return path


def add_network(parser: argparse.ArgumentParser) -> None:
    """Options of the shipped networks."""
    parser.add_argument(
        "--height",
        type=positive,
        help="input height, a multiple of 8 (default: 64, or 32 for vgg16 and others)",
    )
    parser.add_argument(
        "--width", type=positive, help="input width, a multiple of 8 (default: as for --height)"
    )
    parser.add_argument(
        "--upsampling", choices=("bilinear", "transposed"), default="bilinear", help="TomoGAN's variant"
    )
    parser.add_argument(
        "--weights",
        type=Path,
        metavar="F.npz",
        help="weights (default: the trained ones that ship, else seeded random ones)",
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of whatever is random")


def network_weights(name: str, options: argparse.Namespace) -> dict[str, Array] | None:
    """The weights asked for, else the trained ones that ship, else None.

    Raises UsageError for an unknown network, an unreadable file, or a scheme nothing was trained for.
    """
    from karat24.refimpl.errors import UsageError
    from karat24.refimpl.networks import NETWORKS, load_weights, trained_weights

    if name not in NETWORKS:
        raise UsageError(f"no network {name!r}; known: {', '.join(NETWORKS)}")
    aware, scheme = getattr(options, "aware", False), getattr(options, "scheme", "int8")
    if options.weights:
        if aware:
            raise UsageError("--aware names shipped weights and --weights a file; give one of the two")
        return load_weights(options.weights)
    weights = trained_weights(name, options.upsampling, scheme, aware)
    if aware and weights is None:
        raise UsageError(
            f"no weights ship for {name} ({options.upsampling}) trained to be quantized in {scheme}; "
            "leave out --aware"
        )
    return weights


def float_network(name: str, options: argparse.Namespace, weights: dict[str, Array] | None = None) -> Graph:
    """The named network with ``weights``, else those of :func:`network_weights`, whose errors it raises.

    A size that was not asked for is put into ``options``.
    """
    from karat24.refimpl.networks import network, usual_size

    if weights is None:
        weights = network_weights(name, options)
    options.height = options.height or usual_size(name)
    options.width = options.width or usual_size(name)
    return network(name, options.height, options.width, options.upsampling, weights, options.seed)


def write_graph(graph: Graph, path: Path, flavour: Flavour | None = None) -> None:
    """Writes .tflite or .onnx, as the suffix says, and a line about it.

    ``flavour`` is the form of an .onnx file of an 8-bit model: QDQ for a graph in TFLite layout, the graph's
    own for one in ONNX layout unless it is given. Raises UsageError where the graph cannot take that form.
    """
    from karat24.export.files import file_format, write_model
    from karat24.refimpl.errors import UsageError

    if file_format(path) == "tflite":
        if graph.format == "onnx":
            raise UsageError(f"{path}: an .onnx model can only be written as .onnx; name such a file")
        if flavour is not None:
            raise UsageError(f"{path}: --flavour is a form of .onnx files; name one, or leave --flavour out")
        content = write_model(graph, "tflite")
    else:
        from karat24.cli.flavours import float_layers, onnx_content

        content, graph = onnx_content(graph, flavour)
        if flavour == "qoperator" and graph.format == "onnx" and (floats := float_layers(graph)):
            print(f"{path}: in floating point, as in ONNX Runtime, stay {', '.join(floats)}")
    path.write_bytes(content)
    print(f"{path}: {len(content):,} bytes, {len(graph.layers)} layers")
