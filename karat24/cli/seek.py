"""``karat24 seek``: inputs of a whole model on which many channels round at a threshold, or saturate."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from karat24.cli import options as shared
from karat24.cli.npz import write_npz

if TYPE_CHECKING:
    from karat24.refimpl.graph import Graph
    from karat24.seeking import Sought

HELP = "seek inputs of a model on which many channels of many layers round at a threshold, or saturate"
EPILOG = """examples:
  karat24 seek model.tflite --output case.npz
  karat24 seek model.tflite --images 8 --time-limit 600 --output case.npz --json coverage.json
  karat24 seek model.tflite --profile litert-2.3-ref --beside litert-2.3-xnnpack --output case.npz
  karat24 verify model.tflite --input case.npz --delegate litert-xnnpack --cumulative

A tie is a threshold of a channel that an accumulator touches from either side: there a runtime
that rounds otherwise is seen. With --beside only thresholds on which two profiles part
count. Ends are the least and the greatest output of each channel. The table says what the case
meets, and what as many random inputs meet on average. For a device that runs whole models only;
where layers can be cut out, `karat24 verify --certify` meets every threshold there is.

exit codes: 0 written, 2 usage or input error, 3 no layer has a threshold"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's options."""
    shared.add_model(parser)
    shared.add_subgraph(parser)
    shared.add_profile(parser, "the canonical one of the model's format")
    beside = parser.add_argument(
        "--beside", metavar="P2", help="only thresholds that this profile places elsewhere"
    )
    shared.complete_with(beside, shared.profile_names)
    parser.add_argument(
        "--output", "-o", type=Path, required=True, metavar="CASE.npz",
        help="the case: an array per input, with one axis more in front where it has several images",
    )  # fmt: skip
    parser.add_argument(
        "--images", type=shared.positive, default=1, metavar="N", help="images of the case (default: 1)"
    )
    parser.add_argument(
        "--time-limit", type=float, default=60.0, metavar="S", help="seconds of search (default: 60)"
    )
    parser.add_argument(
        "--runs", type=shared.positive, metavar="R",
        help="runs of the network in place of a time: the same case again for one seed",
    )  # fmt: skip
    parser.add_argument("--seed", type=int, default=0, help="seed of the search")
    parser.add_argument(
        "--random-sets", type=shared.positive, default=4, metavar="M",
        help="sets of as many random inputs to compare with (default: 4)",
    )  # fmt: skip
    parser.add_argument("--json", type=Path, metavar="OUT.json", help="write the coverage as JSON")
    shared.add_threads(parser)


def run(options: argparse.Namespace) -> int:
    """Seeks, writes the case, prints its coverage."""
    from karat24.export import graph_under
    from karat24.refimpl.profiles import profile_for
    from karat24.seeking import seek

    for path in (options.output, options.json):
        if path is not None:
            shared.writable(path)
    graph = shared.read_graph(options.model, options.subgraph)
    profile = profile_for(graph, options.profile)
    beside = None if options.beside is None else profile_for(graph, options.beside)
    graph = graph_under(graph, profile)
    sought = seek(
        graph,
        profile,
        other=beside,
        images=options.images,
        seconds=options.time_limit,
        runs=options.runs,
        seed=options.seed,
        random_sets=options.random_sets,
        threads=options.threads,
        say=_say,
    )
    _write(options.output, graph, sought)
    print(table(sought))
    if options.json is not None:
        options.json.write_text(json.dumps(sought.to_dict(), indent=1) + "\n", encoding="utf-8")
    return 0


def _say(what: str) -> None:
    if sys.stderr.isatty():
        print(f"\r\033[Kkarat24 seek: {what}", end="\r", file=sys.stderr, flush=True)


def _write(path: Path, graph: Graph, sought: Sought) -> None:
    import numpy as np

    arrays = {}
    for index in graph.inputs:
        images = [feed[index] for feed in sought.feeds]
        arrays[graph.tensors[index].name] = images[0] if len(images) == 1 else np.stack(images)
    write_npz(path, arrays)


def table(sought: Sought) -> str:
    """Layer by layer what the case meets and what random inputs meet, and a summary."""
    rows: list[tuple[str, ...]] = [
        ("layer", "op", "ties", "random", "of", "channels on ties", "ends", "random", "of")
    ]
    for found, (ties, ends) in zip(sought.coverage, sought.random, strict=True):
        cells = (found.layer, found.op, f"{found.ties:,}", f"{ties:,.1f}", f"{found.of_ties:,}")
        on_ties = f"{found.channels_on_ties} of {found.channels}"
        rows.append((*map(str, cells), on_ties, str(found.ends), f"{ends:.1f}", str(found.of_ends)))
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ["  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in rows]
    lines += [f"layer {layer}: nothing is sought: {reason}" for layer, reason in sought.left_out.items()]
    met, by_random = sum(c.ties for c in sought.coverage), sum(ties for ties, _ in sought.random)
    channels = sum(c.channels_on_ties for c in sought.coverage)
    needed = str(sought.random_needed or f"more than {sought.random_tried}")
    of_ties, of_channels = (sum(getattr(c, of) for c in sought.coverage) for of in ("of_ties", "channels"))
    lines.append(
        f"\n{met:,} ties of {of_ties:,} in {channels:,} of {of_channels:,} channels; "
        f"images: {len(sought.feeds)}; runs: {sought.runs:,}"
    )
    if sought.factor is not None and sought.factor_by_layer is not None:
        lines.append(
            f"as many random inputs meet {by_random:,.0f}: the case has {sought.factor:.2f} times as many, "
            f"in the mean of layers {sought.factor_by_layer:.2f} times; "
            f"random inputs that together meet as many: {needed}"
        )
    return "\n".join(lines)
