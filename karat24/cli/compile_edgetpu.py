"""``karat24 compile``: a .tflite through the Edge TPU's compiler, and at once proved to carry its source."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from karat24.cli import options as shared

if TYPE_CHECKING:
    from collections.abc import Sequence

    from karat24.delegates.edgetpu_compiler import Compilation
    from karat24.export.edgetpu import CompiledModel
    from karat24.golden.edgetpu import Proof

HELP = "compile a .tflite with Google's edgetpu_compiler, and prove that the result carries its source"
EPILOG = """examples:
  karat24 compile model.tflite

The compiler is found on the PATH, or as KARAT24_EDGETPU_COMPILER names it. Nothing is written
unless it succeeds.

exit codes: 0 compiled and nothing differs from the source, 1 something differs, 2 usage or input
error, 3 the compiler is absent, failed or took too long"""


REASONS_SHOWN = 3
"""Rows of the compiler's table in a message."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's options."""
    shared.add_model(parser)
    parser.add_argument(
        "--output", "-o", type=Path, metavar="F.tflite",
        help="the file to write (default: MODEL_edgetpu.tflite; segments get _segment_0 and so on)",
    )  # fmt: skip
    parser.add_argument(
        "--segments", type=shared.positive, default=1, metavar="N", help="split for a pipeline of N"
    )
    parser.add_argument(
        "--min-runtime", type=shared.positive, metavar="V", help="the oldest runtime to serve"
    )
    parser.add_argument(
        "--search",
        action="store_true",
        help="let the compiler drop layers at the end until the rest compiles",
    )
    parser.add_argument("--several-subgraphs", action="store_true", help="map more than one run of layers")
    parser.add_argument(
        "--intermediate",
        action="append",
        default=[],
        metavar="TENSOR",
        help="end the device's part at TENSOR",
    )
    parser.add_argument("--time-limit", type=float, default=600.0, metavar="S", help="seconds it may take")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")


def run(options: argparse.Namespace) -> int:
    """Compiles, proves, writes."""
    from karat24.delegates.edgetpu_compiler import CompilerOptions, compile_model, find_compiler
    from karat24.export.edgetpu import is_compiled
    from karat24.golden.edgetpu import prove
    from karat24.refimpl.errors import UsageError

    if options.model.suffix.lower() != ".tflite":
        raise UsageError(f"{options.model}: the Edge TPU's compiler takes .tflite files only")
    source = shared.read_graph(options.model)
    if is_compiled(source):
        raise UsageError(f"{options.model}: is compiled for the Edge TPU already")
    outputs = [shared.writable(path) for path in _outputs(options)]
    find_compiler()
    switches = CompilerOptions(
        options.min_runtime,
        options.segments,
        options.search,
        options.several_subgraphs,
        tuple(options.intermediate),
    )
    made = compile_model(options.model.read_bytes(), switches, options.time_limit)
    proof = prove(source, _read(made))
    _write(outputs, made.files)
    _print(made, proof, outputs, options.json)
    return 1 if proof.verdict == "differs" else 0


def _read(made: Compilation) -> list[CompiledModel]:
    """What the compiler wrote. Raises DelegateError where nothing of it is for the device, or unreadable."""
    from karat24.export.edgetpu import compiled_from, is_compiled
    from karat24.export.tflite import read_tflite
    from karat24.refimpl.errors import DelegateError, ModelError

    try:
        graphs = [read_tflite(content) for content in made.files]
        if not any(map(is_compiled, graphs)):
            why = "; ".join(f"{row.op}: {row.status}" for row in made.log.operations[:REASONS_SHOWN])
            raise DelegateError(
                "the compiler leaves all of the model on the CPU, so nothing was written"
                + (f" ({why})" if why else "")
                + "; karat24 check-edgetpu says what to change"
            )
        return [compiled_from(graph) for graph in graphs]
    except ModelError as error:
        raise DelegateError(f"what the compiler wrote cannot be read, so it was not kept: {error}") from None


def _outputs(options: argparse.Namespace) -> list[Path]:
    path: Path = options.output or options.model.with_name(f"{options.model.stem}_edgetpu.tflite")
    if options.segments == 1:
        return [path]
    return [path.with_name(f"{path.stem}_segment_{n}{path.suffix}") for n in range(options.segments)]


def _write(paths: Sequence[Path], contents: Sequence[bytes]) -> None:
    """Each file appears whole, and none where there is no room for all."""
    parts = [path.with_name(path.name + ".part") for path in paths]
    try:
        for part, content in zip(parts, contents, strict=True):
            part.write_bytes(content)
        for part, path in zip(parts, paths, strict=True):
            part.replace(path)
    finally:
        for part in parts:
            part.unlink(missing_ok=True)


def _print(made: Compilation, proof: Proof, outputs: Sequence[Path], as_json: bool) -> None:
    from dataclasses import asdict

    from karat24.golden.edgetpu import conclusion

    if as_json:
        files = [str(path) for path in outputs]
        print(json.dumps({"files": files, "log": asdict(made.log), "proof": proof.as_dict()}, indent=1))
        return
    width = max((len(row.op) for row in made.log.operations), default=0)
    for row in made.log.operations:
        print(f"{row.op:{width}}  {row.count:4}  {row.status}")
    for path, content in zip(outputs, made.files, strict=True):
        print(f"{path}: {len(content):,} bytes, by compiler {made.log.version or 'of an unnamed version'}")
    print(f"{proof.count('on_cpu')} of {len(proof.layers)} layers on the CPU. {conclusion(proof)}")
