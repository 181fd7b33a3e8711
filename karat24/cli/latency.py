"""``karat24 latency``: how long a runtime takes to restore one image, split as in the paper."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from karat24.cli import options as shared

HELP = "time the restoration of one image on a runtime: TomoGAN, stitching, Fine-Tune, total"
EPILOG = """examples:
  karat24 latency tomogan_edgetpu.tflite fine-tune_edgetpu.tflite --delegate edgetpu
  karat24 latency tomogan.tflite --delegate litert-xnnpack --size 512

Medians over the rounds, beside the paper's Table I. The image is random: only time is measured."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's options."""
    parser.add_argument(
        "tomogan", type=Path, metavar="TOMOGAN.tflite", help="TomoGAN, for tiles of its own size"
    )
    parser.add_argument("fine_tune", type=Path, nargs="?", metavar="FINE_TUNE.tflite", help="Fine-Tune")
    delegate = parser.add_argument("--delegate", default="edgetpu", metavar="D", help="default: edgetpu")
    shared.complete_with(delegate, shared.delegate_names)
    parser.add_argument("--size", type=shared.positive, default=1024, help="image height and width (1024)")
    parser.add_argument("--rounds", type=shared.positive, default=5, help="measurements (default: 5)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")


def run(options: argparse.Namespace) -> int:
    """Measures and prints."""
    import numpy as np

    from karat24.delegates import delegate_named
    from karat24.delegates.tflite import TfliteDelegate
    from karat24.latency import load_stage, measure, median
    from karat24.paper import DEVICES
    from karat24.refimpl.errors import UsageError

    tomogan = load_stage(options.tomogan)
    fine_tune = None if options.fine_tune is None else load_stage(options.fine_tune)
    shape = (options.size, options.size, tomogan.image.shape[3])
    image = np.random.default_rng(0).random(shape, np.float32)
    with delegate_named(options.delegate) as delegate:
        if not isinstance(delegate, TfliteDelegate):
            raise UsageError(f"{options.delegate} runs no .tflite tiles; choose a lane of LiteRT, or edgetpu")
        rounds = [measure(delegate, tomogan, fine_tune, image) for _ in range(options.rounds)]
    found = median(rounds)
    seconds = {"tomogan": found.tomogan, "stitching": found.stitching, "fine_tune": found.fine_tune}
    seconds["total"] = found.total
    if options.json:
        print(json.dumps({"delegate": options.delegate, "size": options.size, "seconds": seconds}, indent=1))
        return 0
    rows: list[tuple[str, list[float | None]]] = [
        (f"{options.delegate}, {options.size}×{options.size}", [*seconds.values()])
    ]
    rows += [(f"{d.name} (2019)", [d.tomogan, d.stitching, d.fine_tune, d.total]) for d in DEVICES]
    width = max(len(name) for name, _ in rows)
    print(f"{'seconds per image':{width}}" + "".join(f"{head:>12}" for head in seconds))
    for name, values in rows:
        print(f"{name:{width}}" + "".join("           –" if v is None else f"{v:12.4f}" for v in values))
    return 0
