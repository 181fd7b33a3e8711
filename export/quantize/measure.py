"""What each step of post-training quantization gains, and which of them are worth keeping.

Steps are taken one after the other, each on top of the best scheme so far; a step that does not raise the
signal to noise on the held-out samples is reported and dropped.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

import numpy as np

from karat24.export.quantize.affine import quantize_array
from karat24.export.quantize.calibration import float_runner, observe
from karat24.export.quantize.histogram import Histogram
from karat24.export.quantize.quantize import check_quantizable, prepared, quantize_observed
from karat24.export.quantize.scheme import QuantizationScheme, RangeMethod
from karat24.refimpl.engine import compile_graph
from karat24.refimpl.graph import QUANTIZED_RANGE, Array, Graph
from karat24.refimpl.profiles import CANONICAL

STEPS: Mapping[str, Callable[[QuantizationScheme], QuantizationScheme]] = MappingProxyType(
    {
        "min/max": lambda scheme: replace(scheme, range_method=RangeMethod("minmax")),
        "percentile": lambda scheme: replace(scheme, range_method=RangeMethod("percentile")),
        "least error": lambda scheme: replace(scheme, range_method=RangeMethod("mse")),
        "+ equalization": lambda scheme: replace(scheme, equalize=True),
        "+ bias correction": lambda scheme: replace(scheme, correct_bias=True),
        "+ filter ranges": lambda scheme: replace(scheme, filter_ranges="mse"),
    }
)
"""The steps in order: three ways to choose activations' ranges, then what is added to the best of them."""


@dataclass(frozen=True)
class Deviation:
    """The deviation of quantized outputs from float ones, over all held-out samples.

    ``snr_db``: power of the float outputs over that of the difference. ``psnr_db``: that ratio with the
    square of the float outputs' extent (greatest minus least) for the power. ``mean_error``: mean of
    quantized minus float; ``mean_absolute`` and ``greatest`` of its magnitude, all in the output's units.
    """

    snr_db: float
    psnr_db: float
    mean_error: float
    mean_absolute: float
    greatest: float


@dataclass(frozen=True)
class Gain:
    """One step: what it is called, the whole scheme with it, what that gives, and whether it was kept."""

    step: str
    scheme: QuantizationScheme
    deviation: Deviation
    kept: bool


def steps_of(scheme: QuantizationScheme) -> Sequence[str]:
    """The names of the steps that ``scheme`` can take: 16 bits have no ranges of least error."""
    return [name for name in STEPS if name != "least error" or scheme.activations != "int16"]


def gains(
    graph: Graph,
    calibration: Iterable[Array],
    held_out: Iterable[Array],
    scheme: QuantizationScheme,
    progress: Callable[[Iterable[str]], Iterable[str]] = iter,
) -> list[Gain]:
    """Every step of :func:`steps_of` on a float32 graph, quantized over ``calibration`` and judged on
    ``held_out``, by the oracle under its canonical profile. The scheme of the last row kept is the best.

    ``scheme`` says element types and granularity; its range methods and corrections are replaced.
    ``progress`` wraps the iteration over the steps' names. Errors are those of :func:`quantize_model`.
    """
    calibration, held_out = list(calibration), list(held_out)
    check_quantizable(graph)
    exact = float_outputs(graph, held_out)
    observed: dict[bool, tuple[Graph, Mapping[int, Histogram]]] = {}

    def outputs(tried: QuantizationScheme) -> list[Array]:
        if tried.equalize not in observed:
            changed = prepared(graph, tried)
            observed[tried.equalize] = changed, observe(changed, calibration)
        changed, seen = observed[tried.equalize]
        return quantized_outputs(quantize_observed(changed, seen, calibration, tried), held_out)

    best = replace(scheme, filter_ranges="minmax", equalize=False, correct_bias=False)
    rows: list[Gain] = []
    reached = -math.inf
    for name in progress(steps_of(scheme)):
        tried = STEPS[name](best)
        found = deviation(exact, outputs(tried))
        kept = found.snr_db > reached
        rows.append(Gain(name, tried, found, kept))
        if kept:
            best, reached = tried, found.snr_db
    return rows


def best_of(rows: Sequence[Gain]) -> QuantizationScheme:
    """The scheme of the last row that was kept."""
    return [row.scheme for row in rows if row.kept][-1]


def float_outputs(graph: Graph, samples: Iterable[Array]) -> list[Array]:
    """The first output of a float32 graph for each sample."""
    run = float_runner(graph)
    return [run(sample, number)[0] for number, sample in enumerate(samples)]


def quantized_outputs(graph: Graph, samples: Iterable[Array]) -> list[Array]:
    """The first output of a quantized graph for each real-valued sample, as real values, by the oracle."""
    program = compile_graph(graph, CANONICAL)
    entry, exit_ = graph.tensors[graph.inputs[0]], graph.tensors[graph.outputs[0]]
    scale, zero_point = np.array([entry.scale]), np.array([entry.zero_point])
    outputs = []
    for sample in samples:
        given = quantize_array(sample, scale, zero_point, QUANTIZED_RANGE[entry.dtype], entry.dtype)
        codes = program.run([given]).outputs[0]
        outputs.append((codes.astype(np.float64) - exit_.zero_point) * exit_.scale)
    return outputs


def deviation(exact: Sequence[Array], found: Sequence[Array]) -> Deviation:
    """How far ``found`` is from ``exact``, array by array; infinite dB where all are equal."""
    reference = np.concatenate([values.reshape(-1).astype(np.float64) for values in exact])
    error = np.concatenate([values.reshape(-1).astype(np.float64) for values in found]) - reference
    noise = float(np.mean(error**2))
    extent = float(np.ptp(reference))
    return Deviation(
        _decibels(float(np.mean(reference**2)), noise),
        _decibels(extent**2, noise),
        float(error.mean()),
        float(np.abs(error).mean()),
        float(np.abs(error).max()),
    )


def _decibels(signal: float, noise: float) -> float:
    if noise == 0:
        return math.inf
    return 10 * math.log10(max(signal, 1e-300) / noise)
