"""Which layers a program computes by their specs, because that is cheaper than to compile their kernels.

A layer's spec and its kernel give equal bits. The kernel is many times faster, but on a machine that never
ran it, its loop has to be compiled, which takes seconds; the spec runs at once. For a loop that is not
compiled yet, the times that the specs of all layers with this loop would take are added up. If the sum is
less than the time of compiling, these layers run by their specs. What was compiled is kept, and used.

The times are estimates, measured on one core of 2024 (Zen 4): one number for each kind of loop. Specs and the
compiler are programs of one thread, so another processor changes both times by about one factor. A Xeon of
2.8 GHz compiles a dense convolution in 3.2 s (estimate: 2.0) and average pooling in 0.8 s (1.0).
"""

from __future__ import annotations

import math
from collections.abc import Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

import numpy as np

from karat24.refimpl.contract import Compiled, Kernel
from karat24.refimpl.cost import WEIGHTED
from karat24.refimpl.graph import DTYPES, Array, LayerView, Tensor

LAYER_SECONDS, VALUE_SECONDS, PRODUCT_SECONDS = 1e-3, 1e-7, 3e-9
"""Seconds of a spec: per layer, per value that it reads or writes, and per product."""

SLOW_VALUES: Mapping[str, float] = MappingProxyType({"CAST": 1e-6, "L2_NORMALIZATION": 6e-5, "SOFTMAX": 6e-5})
"""Seconds for a value, of specs that compute value by value in Python."""

SLOW_PRODUCTS: Mapping[str, float] = MappingProxyType({"ConvTranspose": 1e-7})
"""Seconds for a product, of specs that round after each one."""


def layers_by_spec(layers: Sequence[tuple[LayerView, Kernel]], runs: int) -> frozenset[int]:
    """Indices of the layers whose specs, in ``runs`` runs, take less time than compiling their loops."""
    return frozenset(
        view.layer.index
        for loop in _uncompiled_loops(layers)
        if runs * sum(map(spec_seconds, loop.users)) < loop.seconds
        for view in loop.users
    )


def seconds_to_compile(layers: Sequence[tuple[LayerView, Kernel]]) -> float:
    """An estimate of the time, in seconds, of compiling what the layers need; 0 where nothing is missing."""
    return sum(loop.seconds for loop in _uncompiled_loops(layers))


def codes_to_compile(layers: Sequence[tuple[LayerView, Kernel]]) -> Sequence[Hashable]:
    """The functions that have to be compiled, each once, those that take longest first."""
    loops = sorted(_uncompiled_loops(layers), key=lambda loop: -loop.seconds)
    return tuple(dict.fromkeys(code for loop in loops for code in loop.codes))


@dataclass
class _Loop:
    """A loop that is not compiled: the time of compiling it, its functions, and the layers that need it."""

    seconds: float
    codes: list[Hashable] = field(default_factory=list)
    users: list[LayerView] = field(default_factory=list)


def _uncompiled_loops(layers: Sequence[tuple[LayerView, Kernel]]) -> Collection[_Loop]:
    loops: dict[Hashable, _Loop] = {}
    for view, kernel in layers:
        if isinstance(kernel, Compiled):
            codes = kernel.uncompiled(
                [None if tensor is None else _array(tensor) for tensor in view.inputs],
                [_array(tensor) for tensor in view.outputs],
            )
            if codes:
                loop = loops.setdefault(codes[0], _Loop(kernel.compile_seconds))
                loop.codes += codes
                loop.users.append(view)
    return loops.values()


def spec_seconds(view: LayerView) -> float:
    """An estimate of the time of one run of a layer's spec, in seconds."""
    tensors = [t for t in (*view.inputs, *view.outputs) if t is not None and not t.is_constant]
    values = sum(math.prod(tensor.shape) for tensor in tensors)
    products = WEIGHTED[view.op].macs(view) if view.op in WEIGHTED else 0
    return (
        LAYER_SECONDS
        + values * SLOW_VALUES.get(view.op, VALUE_SECONDS)
        + products * SLOW_PRODUCTS.get(view.op, PRODUCT_SECONDS)
    )


def _array(tensor: Tensor) -> Array:
    """An array like the one the layer will run on; the values of a computed tensor are undefined."""
    return np.empty(tensor.shape, DTYPES[tensor.dtype]) if tensor.data is None else tensor.data
