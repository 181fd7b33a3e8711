"""``karat24 diverge``: where two profiles differ on a model, for every input there is."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from karat24.cli import options as shared
from karat24.cli.npz import write_npz

if TYPE_CHECKING:
    from karat24.golden.diverge import Divergence, Example, LayerDivergence
    from karat24.refimpl.graph import Graph
    from karat24.refimpl.profiles import Profile

HELP = "compare two profiles layer by layer for every possible input, without running a runtime"
EPILOG = """examples:
  karat24 diverge model.tflite --profiles litert-2.3-ref litert-2.3-xnnpack
  karat24 diverge model.tflite --profiles litert-2.3-ref litert-2.3-xnnpack --layer 4 --output case.npz
  karat24 export model.tflite --layer 4 --output layer4.tflite
  karat24 verify layer4.tflite --input case.npz --delegate litert-xnnpack --profile litert-2.3-ref

A convolution's outputs are a staircase over its accumulator, an addition is a table
of 65,536 pairs: equal staircases and tables are a proof for all inputs of the layer,
and of unequal ones every difference is counted. What has neither (softmax, means,
pools) is undecided unless both profiles name one rule for it.

exit codes: 0 proved equal, 1 a difference exists, 2 usage or input error, 3 undecided"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's options."""
    shared.add_model(parser)
    profiles = parser.add_argument(
        "--profiles", nargs=2, required=True, metavar=("A", "B"), help="two profiles, see `karat24 profiles`"
    )
    shared.complete_with(profiles, shared.profile_names)
    parser.add_argument("--layer", type=int, metavar="N", help="this layer only")
    parser.add_argument("--all", action="store_true", help="list the layers that are equal, too")
    parser.add_argument("--json", type=Path, metavar="OUT.json", help="write everything as JSON")
    parser.add_argument(
        "--output", type=Path, metavar="CASE.npz",
        help="write inputs of one layer (--layer, else the first with any) that make a difference",
    )  # fmt: skip


def run(options: argparse.Namespace) -> int:
    """Compares, prints the table, writes what was asked for, and returns the exit code."""
    from karat24.golden.diverge import diverge
    from karat24.refimpl.errors import UsageError
    from karat24.refimpl.profiles import profile_for

    for path in (options.json, options.output):
        if path is not None:
            shared.writable(path)
    graph = shared.read_graph(options.model)
    first, second = (profile_for(graph, name) for name in options.profiles)
    graph = layers_of_both(graph, first, second)
    found = diverge(graph, first, second, None if options.layer is None else (options.layer,))
    if options.layer is not None and not found.layers:
        raise UsageError(f"no layer {options.layer}: the graph has {len(graph.layers)}, counted from 0")
    print(table(found, options.all))
    if options.json is not None:
        options.json.write_text(json.dumps(found.to_dict(), indent=1) + "\n", encoding="utf-8")
    if options.output is not None:
        _write_case(options.output, graph, found)
    return found.exit_code()


def layers_of_both(graph: Graph, first: Profile, second: Profile) -> Graph:
    """The graph whose layers both profiles' runtimes run.

    Raises UsageError where one turns QDQ pairs into integer ops and the other does not.
    """
    from karat24.export import graph_under
    from karat24.refimpl.errors import UsageError

    lowered = [graph_under(graph, profile) for profile in (first, second)]
    if [layer.op for layer in lowered[0].layers] != [layer.op for layer in lowered[1].layers]:
        raise UsageError(
            f"{first.name} and {second.name} run different layers of this model: one makes integer ops of "
            "what lies between DequantizeLinear and QuantizeLinear; compare two profiles that agree in that"
        )
    return lowered[0]


def table(found: Divergence, all_layers: bool) -> str:
    """The table for people: layers that are not proved equal, or all, and a summary."""
    from karat24.refimpl.profiles import caveat_of

    shown = [layer for layer in found.layers if all_layers or layer.verdict != "equal"]
    lines = []
    if shown:
        rows = [("layer", "op", "verdict", "differing", "of", "max LSB", "example"), *map(_row, shown)]
        widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
        lines = ["  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in rows]
        lines += [f"  layer {layer.layer}: {layer.reason}" for layer in shown if layer.reason]
        lines.append("")
    counts = dict.fromkeys(("equal", "diverges", "undecided"), 0)
    for layer in found.layers:
        counts[layer.verdict] += 1
    lines.append(
        f"{found.verdict.upper()}: {found.profiles[0]} and {found.profiles[1]}: {counts['equal']} layers "
        f"proved equal for every input, {counts['diverges']} diverge, {counts['undecided']} undecided"
    )
    lines += [f"note: {caveat}" for name in found.profiles if (caveat := caveat_of(name))]
    return "\n".join(lines)


def _row(layer: LayerDivergence) -> tuple[str, ...]:
    if layer.verdict != "diverges":
        return (str(layer.layer), layer.op, layer.verdict, "-", "-", "-", "-")
    what = {"staircase": "accumulators", "table": "values", "pairs": "pairs"}.get(layer.how, "")
    channels = f" in {layer.channels} channels" if layer.channels else ""
    return (
        str(layer.layer), layer.op, layer.verdict, f"{layer.differing:,}",
        f"{layer.examined:,} {what}{channels}", str(layer.max_abs_diff_lsb or "-"), _example(layer.example),
    )  # fmt: skip


def _example(example: Example | None) -> str:
    if example is None:
        return "none found"
    place = ",".join(map(str, example.element))
    what = "" if example.accumulator is None else f" of accumulator {example.accumulator}"
    return f"{example.outputs[0]:g} or {example.outputs[1]:g}{what} at {place}"


def _write_case(path: Path, graph: Graph, found: Divergence) -> None:
    from karat24.refimpl.errors import UsageError

    for layer in found.layers:
        if layer.example is not None:
            named = {graph.tensors[i].name: value for i, value in layer.example.inputs.items()}
            write_npz(path, named)
            print(f"{path}: inputs of layer {layer.layer} ({layer.op}); `karat24 export --layer` cuts it out")
            return
    raise UsageError(f"{path} is not written: no inputs are known on which the two profiles differ")
