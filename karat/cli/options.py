"""Options and small pieces several commands share."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from export.onnx import Flavour
    from refimpl.engine import Step
    from refimpl.graph import Array, Graph


def add_model(parser: argparse.ArgumentParser) -> None:
    """The positional MODEL."""
    parser.add_argument("model", type=Path, metavar="MODEL", help="a quantized model file (.tflite, .onnx)")


def add_profile(parser: argparse.ArgumentParser, otherwise: str) -> None:
    """``--profile``; ``otherwise`` says what is taken without it."""
    option = parser.add_argument(
        "--profile",
        metavar="P",
        help=f"arithmetic profile, see `karat profiles` (default: {otherwise})",
    )
    complete_with(option, profile_names)


def complete_with(option: argparse.Action, names: Callable[[], Iterable[str]]) -> None:
    """Lets the shell complete the option's value with ``names``, asked for only then."""
    vars(option)["completer"] = lambda **_: list(names())


def profile_names() -> Iterable[str]:
    """Every arithmetic profile."""
    from refimpl.profiles import PROFILES

    return PROFILES


def delegate_names() -> Iterable[str]:
    """Every runtime, here or not."""
    from delegates import DELEGATES

    return DELEGATES


def network_names() -> Iterable[str]:
    """The networks that ship."""
    from refimpl.networks import NETWORKS

    return NETWORKS


def scheme_names() -> Iterable[str]:
    """Every quantization scheme."""
    from export.quantize import PRESETS

    return PRESETS


def add_feeds(parser: argparse.ArgumentParser) -> None:
    """``--input`` and ``--seed``."""
    parser.add_argument(
        "--input", "-i", type=Path, nargs="+", default=[], metavar="F",
        help="input values: one .npz (arrays by input name), or one .npy or image per model input",
    )  # fmt: skip
    parser.add_argument("--seed", type=int, default=0, help="seed of the random input used without --input")


def add_threads(parser: argparse.ArgumentParser) -> None:
    """``--threads``; the bits never depend on it."""
    parser.add_argument("--threads", type=positive, default=None, metavar="N", help="threads of the oracle")


def positive(text: str) -> int:
    """argparse type: an integer of at least 1."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is not at least 1")
    return value


def read_graph(path: Path) -> Graph:
    """The model file as a graph. Raises UsageError when there is no such file."""
    from export import read_model
    from refimpl.errors import UsageError

    if not path.is_file():
        raise UsageError(f"{path}: {'is a directory' if path.is_dir() else 'no such file'}")
    return read_model(path)


def feeds_of(graph: Graph, options: argparse.Namespace, offset: int = 0) -> dict[int, Array]:
    """Feeds from ``--input``, else random from ``--seed`` + ``offset``."""
    from karat.feeds import load_feeds, random_feeds

    if options.input:
        return load_feeds(graph, options.input)
    return random_feeds(graph, options.seed + offset)


def progress_bar(steps: Sequence[Step]) -> Iterator[Step]:
    """A bar on a terminal's stderr once a run has lasted a second."""
    from tqdm import tqdm

    yield from tqdm(steps, desc="karat", unit="layer", delay=1.0, leave=False, disable=None)


def writable(path: Path) -> Path:
    """The path, once its folder exists and can be written. Raises UsageError."""
    from refimpl.errors import UsageError

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
        "--height", type=positive, default=64, help="input height, a multiple of 8 (default: 64)"
    )
    parser.add_argument(
        "--width", type=positive, default=64, help="input width, a multiple of 8 (default: 64)"
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
    from refimpl.errors import UsageError
    from refimpl.networks import NETWORKS, load_weights, trained_weights

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
    """The named network with ``weights``, else those of :func:`network_weights`, whose errors it raises."""
    from refimpl.networks import network

    if weights is None:
        weights = network_weights(name, options)
    return network(name, options.height, options.width, options.upsampling, weights, options.seed)


def write_graph(graph: Graph, path: Path, flavour: Flavour | None = None) -> None:
    """Writes .tflite or .onnx, as the suffix says, and a line about it.

    ``flavour`` is the form of an .onnx file of a quantized graph: of a TFLite-style one ``qdq`` where none is
    said, of one in ONNX layout its own. Raises UsageError for a flavour the file cannot have.
    """
    from refimpl.errors import UsageError

    if path.suffix == ".tflite":
        from export.tflite import write_tflite

        if flavour is not None:
            raise UsageError(f"{path}: --flavour {flavour} is a form of .onnx files")
        content = write_tflite(graph)
    elif path.suffix == ".onnx":
        graph = in_flavour(graph, flavour)
        content = _onnx(graph, flavour or "qdq")
    else:
        raise UsageError(f"{path}: name a .tflite or .onnx file")
    path.write_bytes(content)
    print(f"{path}: {len(content):,} bytes, {len(graph.layers)} layers")


def in_flavour(graph: Graph, flavour: Flavour | None) -> Graph:
    """The graph itself, or where it is in ONNX layout and ``qoperator`` is asked for, with integer ops.

    Raises UsageError for a float graph, and for what would have to be taken apart or made symmetric.
    """
    from refimpl.errors import UsageError

    if flavour is None:
        return graph
    ops = {layer.op for layer in graph.layers}
    integers = sorted(op for op in ops if op.rpartition(":")[2].startswith(("QLinear", "QGemm")))
    if graph.format != "onnx":
        if not any(tensor.dtype in ("int8", "uint8") for tensor in graph.tensors):
            raise UsageError(f"--flavour {flavour} is a form of quantized models; this one is float")
        return graph
    if not integers and "QuantizeLinear" not in ops and "DequantizeLinear" not in ops:
        raise UsageError(f"--flavour {flavour} is a form of quantized models; this one is float")
    if flavour == "qoperator":
        from export.onnx import lower_qdq

        return lower_qdq(graph, int8_allowed=True)
    if flavour == "qdq" and not integers:
        return graph
    raise UsageError(
        f"--flavour {flavour}: an .onnx model is not taken apart again"
        + (f", and this one has {', '.join(integers)}" if integers else "")
        + "; give the .tflite model it was made of, or export the float model in that form"
    )


def _onnx(graph: Graph, flavour: Flavour) -> bytes:
    from export.onnx import write_float_onnx, write_onnx, write_quantized_onnx

    if graph.format == "onnx":
        return write_onnx(graph)
    if any(tensor.dtype in ("int8", "uint8") and tensor.quantization for tensor in graph.tensors):
        return write_quantized_onnx(graph, flavour)
    return write_float_onnx(graph)
