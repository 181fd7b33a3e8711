"""Everything that a compiled model holds about itself, as plain data and as text."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from karat24.export.edgetpu.instructions import InstructionStream
from karat24.export.edgetpu.package import Executable, Package
from karat24.export.edgetpu.read import CompiledModel, compiled_from, is_compiled
from karat24.refimpl.flexbuffer import FlexValue
from karat24.refimpl.graph import Graph

ON_CHIP_BYTES = 8 << 20
"""The device's memory for parameters and intermediate images (Coral's data sheets: about 8 MB)."""


def describe(model: CompiledModel) -> dict[str, Any]:
    """Packages, executables, inputs and outputs, and what stayed on the CPU. Plain data, for JSON."""
    return {
        "ops": [
            {
                "layer": op.view.layer.index,
                "inputs": [tensor.name for tensor in op.view.inputs if tensor is not None],
                "outputs": [tensor.name for tensor in op.view.outputs],
                "options": {name: _plain(value) for name, value in op.options.items()},
                **_package(op.package),
            }
            for op in model.ops
        ],
        "cpu_layers": [{"layer": view.layer.index, "op": view.op} for view in model.cpu_layers],
        "caching_tokens": [f"{token:016x}" for token in sorted(model.caching_tokens)],
    }


def describe_graph(graph: Graph) -> dict[str, Any] | None:
    """The description of a graph that was compiled, None for any other.

    Raises ModelError and UnsupportedOp where a package cannot be read.
    """
    return describe(compiled_from(graph)) if is_compiled(graph) else None


def _plain(value: FlexValue) -> int | float | str | list[int] | None:
    """A value as JSON has it."""
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else value


def _package(package: Package) -> dict[str, Any]:
    return {
        "min_runtime_version": package.min_runtime_version,
        "compiler_version": package.compiler_version,
        "model_identifier": package.model_identifier,
        "signature_bytes": package.signature_bytes,
        "keypair_version": package.keypair_version,
        "virtual_chip_id": package.virtual_chip_id,
        "executables": [_executable(executable) for executable in package.executables],
    }


def _executable(executable: Executable) -> dict[str, Any]:
    stream = InstructionStream(executable.instructions)
    return {
        "type": executable.type,
        "version": executable.version,
        "name": executable.name,
        "chip": executable.chip,
        "batch_size": executable.batch_size,
        "parameter_bytes": len(executable.parameters),
        "scratch_bytes": executable.scratch_bytes,
        "narrow_memory_bytes_per_tile": executable.narrow_memory_bytes_per_tile,
        "caching_token": f"{executable.caching_token:016x}",
        "instructions": len(stream),
        "bitstream_bytes": [len(bitstream) for bitstream in executable.instructions],
        "output_stages": stream.stage_count(),
        "relocations": dict(executable.relocations),
        "dma_bytes": dict(executable.dma_bytes),
        "dma_hints": dict(executable.dma_hints),
        "dma_fully_deterministic": executable.dma_fully_deterministic,
        "estimated_cycles": executable.estimated_cycles,
        "uses_dram": executable.uses_dram,
        "inputs": [vars(layer) for layer in executable.inputs],
        "outputs": [vars(layer) for layer in executable.outputs],
    }


def lines(description: dict[str, Any]) -> Iterator[str]:
    """The description as text."""
    for op in description["ops"]:
        yield (
            f"layer {op['layer']} runs on the Edge TPU: needs runtime {op['min_runtime_version']}, "
            f"compiled by {op['compiler_version'] or 'an unnamed version'}"
        )
        for executable in op["executables"]:
            yield from _executable_lines(executable)
    kept = description["cpu_layers"]
    names = ", ".join(f"{view['layer']} {view['op']}" for view in kept)
    yield f"{len(kept)} layers on the CPU: {names}" if kept else "no layer on the CPU"
    cached = sum(
        executable["parameter_bytes"]
        for op in description["ops"]
        for executable in op["executables"]
        if executable["type"] == "PARAMETER_CACHING"
    )
    tokens = ", ".join(description["caching_tokens"])
    yield (
        f"caching token {tokens}: {cached:,} of {ON_CHIP_BYTES:,} bytes on the chip hold parameters between "
        "runs; models of one token share them"
    )


def _executable_lines(executable: dict[str, Any]) -> Iterator[str]:
    yield (
        f"  {executable['type']} for chip {executable['chip']}: {executable['instructions']:,} instructions, "
        f"{executable['output_stages']} output stages, {executable['parameter_bytes']:,} parameter bytes, "
        f"{executable['scratch_bytes']:,} scratch bytes"
    )
    moved = ", ".join(f"{size:,} {kind}" for kind, size in executable["dma_bytes"].items())
    if moved:
        yield f"    bytes moved per run: {moved}"
    for kind in ("inputs", "outputs"):
        for layer in executable[kind]:
            yield f"    {kind[:-1]:6} {_io_line(layer)}"


def _io_line(layer: dict[str, Any]) -> str:
    shape = "x".join(map(str, layer["shape"]))
    numbers = (
        "" if layer["scale"] is None else f" scale {layer['scale']:.6g} zero point {layer['zero_point']}"
    )
    return f"{layer['dtype']} {shape}{numbers}  {layer['name']!r}"
