"""Weights rounded to fixed point: integers of some bits times one power of two for each filter.

The selective paper prunes its networks and stores the remaining weights in 12 bits; it gives no details. Here
the integers are two's complement, with the most fraction bits at which the filter's greatest magnitude fits,
ties to even.
Activations and biases stay as they are.

Source: "Selective Deep Convolutional Neural Network for Low Cost Distorted Image Classification".
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from karat24.export.quantize.affine_layers import AFFINE_LAYERS
from karat24.export.quantize.quantize import check_quantizable
from karat24.refimpl.errors import ModelError, UnsupportedOp, UsageError
from karat24.refimpl.graph import Array, Graph

BITS = 12
"""The paper's width."""

WIDTHS = range(2, 25)
"""Widths whose integers float32 holds, sign included."""


def fraction_bits(values: Array, bits: int = BITS) -> int:
    """The most fraction bits ``f`` at which every value, times ``2^f`` and rounded, fits ``bits`` bits.

    0 for a filter of zeros, negative for values beyond the integers. Raises UsageError for an
    impossible width, ModelError for NaN or infinity."""
    if bits not in WIDTHS:
        raise UsageError(f"fixed point takes {WIDTHS[0]} to {WIDTHS[-1]} bits, not {bits!r}")
    if not np.isfinite(values).all():
        raise ModelError("the filter holds NaN or infinite weights")
    largest = float(np.abs(values).max(initial=0.0))
    if not largest:
        return 0
    # The exponent leaves one bit free for -2^n, and takes one too many for what rounds up to 2^(bits-1).
    estimate = bits - 1 - math.frexp(largest)[1]
    return next(f for f in (estimate + 1, estimate, estimate - 1) if fits(as_integers(values, f), bits))


def fits(integers: Array, bits: int) -> bool:
    """Whether all of some integers are two's complement of ``bits`` bits."""
    return bool(integers.min() >= -(2 ** (bits - 1)) and integers.max() < 2 ** (bits - 1))


def as_integers(values: Array, fraction: int) -> Array:
    """``values * 2^fraction``, rounded, ties to even, as int64."""
    integers: Array = np.rint(np.ldexp(values.astype(np.float64), fraction)).astype(np.int64)
    return integers


def round_fixed_point(graph: Graph, bits: int = BITS) -> Graph:
    """The float32 graph with each filter rounded to fixed point of ``bits`` bits; a weight of 0 stays 0.

    Raises what :func:`fraction_bits` raises, naming the layer, and UnsupportedOp as quantization does.
    """
    check_quantizable(graph)
    tensors = list(graph.tensors)
    for view in graph.views():
        affine = AFFINE_LAYERS.get(view.op)
        if affine is None:
            continue
        filter_ = view.input(affine.filter)
        if filter_.data is None or filter_.dtype != "float32":
            raise UnsupportedOp(f"{view}: {filter_.name!r} is not a float32 constant")
        try:
            fraction = fraction_bits(filter_.data, bits)
        except ModelError as failure:
            raise ModelError(f"{view}: {filter_.name!r}: {failure}") from None
        rounded = np.ldexp(as_integers(filter_.data, fraction).astype(np.float32), -fraction)
        tensors[filter_.index] = replace(filter_, data=rounded)
    return replace(graph, tensors=tuple(tensors))
