"""``karat quantize``: a float network to an int8 .tflite file."""

from __future__ import annotations

import argparse
from pathlib import Path

from karat.cli import options as shared

HELP = "quantize one of the shipped networks over a representative dataset and write a .tflite file"
EPILOG = """examples:
  karat quantize tomogan --height 64 --width 64 --output tomogan.tflite
  karat quantize tomogan --calibration slices.npy --scheme uint8-2019 --output tomogan.tflite

The calibration file holds float32 [samples, y, x, channel] in the network's own units;
without one, simulated tomography slices are used. The same input gives the same bytes."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's options."""
    network = parser.add_argument("network", metavar="NETWORK", help="tomogan or fine-tune")
    shared.complete_with(network, shared.network_names)
    shared.add_network(parser)
    parser.add_argument(
        "--calibration",
        type=Path,
        metavar="F.npy",
        help="representative inputs, float32 [samples, y, x, channel]",
    )
    scheme = parser.add_argument(
        "--scheme", default="int8", metavar="S",
        help="int8 (per-channel filters), int8-mobile (the same with uint8 inputs and outputs), "
        "uint8-2019 (one scale per tensor, as in 2019), int8-symmetric (default: int8)",
    )  # fmt: skip
    shared.complete_with(scheme, shared.scheme_names)
    parser.add_argument(
        "--range",
        default=None,
        choices=("minmax", "percentile", "mse"),
        help="how activation ranges are chosen",
    )
    parser.add_argument("--output", "-o", type=Path, required=True, metavar="FILE.tflite")


def run(options: argparse.Namespace) -> int:
    """Calibrates, quantizes, writes."""
    from dataclasses import replace

    from export.quantize import PRESETS, RangeMethod, quantize_model
    from karat.calibration import calibration_samples, signal_to_noise
    from refimpl.errors import UsageError

    shared.writable(options.output)
    if options.output.suffix != ".tflite":
        raise UsageError(f"{options.output}: quantized networks are written as .tflite")
    if options.scheme not in PRESETS:
        raise UsageError(f"no scheme {options.scheme!r}; known: {', '.join(PRESETS)}")
    scheme = PRESETS[options.scheme]
    if options.range is not None:
        scheme = replace(scheme, range_method=RangeMethod(options.range))
    graph = shared.float_network(options.network, options)
    samples = calibration_samples(graph, options.calibration, options.seed)
    quantized = quantize_model(graph, samples, scheme)
    shared.write_graph(quantized, options.output)
    cost = f"signal to noise against the float network: {signal_to_noise(graph, quantized, samples):.1f} dB"
    if scheme.symmetric_activations:
        usual = quantize_model(graph, samples, replace(scheme, symmetric_activations=False))
        cost += f" ({signal_to_noise(graph, usual, samples):.1f} dB with zero points)"
    print(cost)
    return 0
