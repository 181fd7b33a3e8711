"""``karat24 quantize``: a float network to a quantized .tflite file, and what each step of it gains."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from karat24.cli import options as shared

if TYPE_CHECKING:
    from karat24.export.quantize import Gain, QuantizationScheme
    from karat24.refimpl.graph import Array, Graph

HELP = "quantize one of the shipped networks over a representative dataset and write a .tflite file"
EPILOG = """examples:
  karat24 quantize tomogan --height 64 --width 64 --output tomogan.tflite
  karat24 quantize tomogan --calibration slices.npy --scheme uint8-2019 --output tomogan.tflite
  karat24 quantize tomogan --target edgetpu --output tomogan.tflite
  karat24 quantize tomogan --scheme int16x8 --output tomogan.tflite
  karat24 quantize tomogan --aware --output tomogan.tflite
  karat24 quantize tomogan --ranges mse --no-equalize --output tomogan.tflite
  karat24 quantize tomogan --scheme uint8-2019 --report-gains
  karat24 quantize tomogan --calibration slices.npy --best --output tomogan.tflite

The calibration file holds float32 [samples, y, x, channel] in the network's own units;
without one, simulated tomography slices are used. The same input gives the same bytes.
--report-gains and --best judge on inputs that were not calibrated on: every fourth tile of
the calibration file, or simulated slices of another split."""

TARGET_SCHEMES = {"edgetpu": "uint8-2019"}
"""The scheme a device's files are quantized in unless another is asked for."""

HELD_OUT_EVERY = 4
"""Every fourth tile of a calibration file is held out to judge on."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's options."""
    network = parser.add_argument(
        "network", metavar="NETWORK",
        help="tomogan, fine-tune, chained (both in one file), slice-selector; or with random weights vgg16, "
        "vgg16-0.75, -0.5, -0.25, resnet50 and its widths, tiny-5, tiny-3",
    )  # fmt: skip
    shared.complete_with(network, shared.network_names)
    shared.add_network(parser)
    parser.add_argument(
        "--calibration", type=Path, metavar="F.npy",
        help="representative inputs, float32 [samples, y, x, channel]",
    )  # fmt: skip
    scheme = parser.add_argument(
        "--scheme", metavar="S",
        help="int8 (per-channel filters), int8-mobile (the same with uint8 inputs and outputs), "
        "uint8-2019 (one scale per tensor, as in 2019), int8-symmetric, int16x8 (int16 activations, int8 "
        "filters) (default: int8)",
    )  # fmt: skip
    parser.add_argument(
        "--target", choices=tuple(TARGET_SCHEMES),
        help="the device the file is for: uint8 inputs and outputs in the scheme of 2019, and the limits of "
        "the device's compiler are checked before anything is written",
    )  # fmt: skip
    shared.complete_with(scheme, shared.scheme_names)
    parser.add_argument(
        "--aware", action="store_true",
        help="the shipped weights trained to be quantized in this scheme, in the ranges they learnt; nothing "
        "is calibrated (--weights with learnt ranges in the file does the same)",
    )  # fmt: skip
    steps = parser.add_argument_group("steps (default: those that gained on trained TomoGAN in the scheme)")
    steps.add_argument(
        "--ranges", default=None, choices=("minmax", "percentile", "mse"),
        help="range of an activation: all values seen; all but 0.01%% at either end; or the one that loses "
        "least, squared (default: minmax, which clips no rare bright structure)",
    )  # fmt: skip
    steps.add_argument(
        "--filter-ranges", default=None, choices=("minmax", "mse"),
        help="range of a filter: all its weights, or the one that loses least, squared",
    )  # fmt: skip
    steps.add_argument(
        "--equalize", action=argparse.BooleanOptionalAction, default=None,
        help="rescale channels between layers, which changes nothing in float, so that none is lost beside "
        "a larger one; for schemes with one scale per tensor",
    )  # fmt: skip
    steps.add_argument(
        "--correct-bias", action=argparse.BooleanOptionalAction, default=None,
        help="take the mean error of every channel over the calibration inputs out of its bias",
    )  # fmt: skip
    steps.add_argument(
        "--best", action="store_true", help="try the steps one after the other and keep those that gain"
    )
    parser.add_argument(
        "--report-gains", action="store_true",
        help="print what each step gains over the ones before it (needs no --output)",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print the gains as JSON instead of a table")
    parser.add_argument("--output", "-o", type=Path, metavar="FILE.tflite", help="the file to write")


def run(options: argparse.Namespace) -> int:
    """Calibrates, quantizes, writes; or reports."""
    from karat24.export.quantize import PRESETS, best_of, quantize_learnt, quantize_model
    from karat24.refimpl.errors import UsageError
    from karat24.refimpl.networks import learnt_ranges
    from karat24.tomography.calibration_inputs import calibration_samples

    _check(options)
    if options.scheme is None:
        options.scheme = TARGET_SCHEMES.get(options.target, "int8")
    if options.scheme not in PRESETS:
        raise UsageError(f"no scheme {options.scheme!r}; known: {', '.join(PRESETS)}")
    scheme = _with_steps(PRESETS[options.scheme], options)
    weights = shared.network_weights(options.network, options)
    graph = shared.float_network(options.network, options, weights)
    learnt = learnt_ranges(weights)
    if learnt:
        _check_learnt(options)
    elif not _float_runtime():
        raise UsageError(
            "calibrating runs the float network on ONNX Runtime: pip install 'karat24[onnx]', or give "
            "--aware, which needs no calibration"
        )
    samples = calibration_samples(graph, options.calibration, options.seed)
    if options.best or options.report_gains:
        rows = _gains(graph, samples, scheme, options)
        if options.report_gains:
            _print(rows, options)
        if options.best:
            scheme = best_of(rows)
    if options.output is not None:
        quantized = (
            quantize_learnt(graph, learnt, scheme) if learnt else quantize_model(graph, samples, scheme)
        )
        _write(graph, quantized, samples, scheme, options)
    return 0


def _check(options: argparse.Namespace) -> None:
    from karat24.refimpl.errors import UsageError

    if options.output is None:
        if not options.report_gains:
            raise UsageError("nothing to do: give --output FILE.tflite, or --report-gains")
    else:
        shared.writable(options.output)
        if options.output.suffix != ".tflite":
            raise UsageError(f"{options.output}: quantized networks are written as .tflite")
    if options.json and (not options.report_gains or options.output is not None):
        raise UsageError("--json prints the gains and nothing else: with --report-gains, without --output")
    chosen = (options.ranges, options.filter_ranges, options.equalize, options.correct_bias)
    if options.best and any(value is not None for value in chosen):
        raise UsageError(
            "--best chooses the steps itself; leave out --ranges, --filter-ranges, --equalize and "
            "--correct-bias"
        )


def _check_learnt(options: argparse.Namespace) -> None:
    from karat24.refimpl.errors import UsageError

    chosen = (options.ranges, options.filter_ranges, options.equalize, options.correct_bias)
    if options.best or options.report_gains or any(value is not None for value in chosen):
        raise UsageError(
            "these weights come with the ranges they learnt, which leaves no step to choose; "
            "leave out --ranges, --filter-ranges, --equalize, --correct-bias, --best and --report-gains"
        )


def _with_steps(scheme: QuantizationScheme, options: argparse.Namespace) -> QuantizationScheme:
    """The preset with what was asked for instead."""
    from dataclasses import replace

    from karat24.export.quantize import RangeMethod

    if options.ranges is not None:
        scheme = replace(scheme, range_method=RangeMethod(options.ranges))
    if options.filter_ranges is not None:
        scheme = replace(scheme, filter_ranges=options.filter_ranges)
    if options.equalize is not None:
        scheme = replace(scheme, equalize=options.equalize)
    if options.correct_bias is not None:
        scheme = replace(scheme, correct_bias=options.correct_bias)
    return scheme


def _gains(
    graph: Graph, samples: Sequence[Array], scheme: QuantizationScheme, options: argparse.Namespace
) -> list[Gain]:
    from collections.abc import Iterable

    from tqdm import tqdm

    from karat24.export.quantize import gains
    from karat24.refimpl.errors import FeedError
    from karat24.tomography.calibration_inputs import held_out_samples

    if options.calibration is None:
        held_out: Sequence[Array] = held_out_samples(graph, options.seed)
    else:
        held_out = samples[HELD_OUT_EVERY - 1 :: HELD_OUT_EVERY]
        samples = [s for i, s in enumerate(samples) if i % HELD_OUT_EVERY != HELD_OUT_EVERY - 1]
        if not held_out:
            raise FeedError(
                f"{options.calibration}: {len(samples)} tiles of {options.height}×{options.width}; judging "
                f"steps takes at least {HELD_OUT_EVERY}, of which one is held out"
            )

    def progress(names: Iterable[str]) -> Iterable[str]:
        yield from tqdm(names, "measuring steps", delay=1, leave=False, disable=None)

    return gains(graph, samples, held_out, scheme, progress)


def _print(rows: Sequence[Gain], options: argparse.Namespace) -> None:
    import json
    import math
    from dataclasses import asdict

    if options.json:
        found = [asdict(row) for row in rows]
        for content in found:  # JSON has no infinity: equal outputs have no ratio
            content["deviation"] = {
                name: value if math.isfinite(value) else None for name, value in content["deviation"].items()
            }
        print(json.dumps(found, indent=1))
        return
    print(f"{options.network}, {options.scheme}: quantized against float, on held-out inputs")
    print(f"{'step':20}{'SNR':>10}{'PSNR':>10}{'mean error':>13}{'mean |error|':>14}{'greatest':>10}")
    for row in rows:
        d = row.deviation
        kept = "" if row.kept else "  dropped"
        print(
            f"{row.step:20}{d.snr_db:7.2f} dB{d.psnr_db:7.2f} dB{d.mean_error:+13.5f}{d.mean_absolute:14.5f}"
            f"{d.greatest:10.4f}{kept}"
        )


def _write(
    graph: Graph,
    quantized: Graph,
    samples: Sequence[Array],
    scheme: QuantizationScheme,
    options: argparse.Namespace,
) -> None:
    from dataclasses import replace

    from karat24.export.quantize import quantize_model
    from karat24.tomography.calibration_inputs import signal_to_noise

    if options.target == "edgetpu":
        _hold_to_edgetpu(quantized, options)
    shared.write_graph(quantized, options.output)
    if not _float_runtime():
        print("signal to noise against the float network: not measured; pip install 'karat24[onnx]'")
        return
    cost = f"signal to noise against the float network: {signal_to_noise(graph, quantized, samples):.1f} dB"
    if scheme.symmetric_activations and scheme.activations == "int8":
        usual = quantize_model(graph, samples, replace(scheme, symmetric_activations=False))
        cost += f" ({signal_to_noise(graph, usual, samples):.1f} dB with zero points)"
    print(cost)


def _float_runtime() -> bool:
    """Whether the float network can be run here."""
    from importlib.util import find_spec

    return all(find_spec(name) is not None for name in ("onnx", "onnxruntime"))


def _hold_to_edgetpu(graph: Graph, options: argparse.Namespace) -> None:
    """Refuses to write what the device does not take, and says what its compiler may leave on the CPU."""
    from karat24.export.edgetpu.check import check_graph
    from karat24.refimpl.errors import UsageError

    ends = [graph.tensors[index] for index in (*graph.inputs, *graph.outputs)]
    signed = [tensor.name for tensor in ends if tensor.dtype != "uint8"]
    if signed:
        raise UsageError(
            f"--target edgetpu gives and takes uint8, and the scheme {options.scheme} makes {signed[0]!r} "
            f"{ends[0].dtype}; leave out --scheme, or take int8-mobile"
        )
    checks = check_graph(graph)
    broken = [check for check in checks if check.outcome == "stays"]
    if broken:
        raise UsageError(f"the Edge TPU does not take layer {broken[0].layer}: {broken[0].reasons[0]}")
    for check in checks:
        if check.outcome == "may_stay":
            print(f"layer {check.layer} ({check.op}, {check.name!r}): {check.reasons[0]}")
