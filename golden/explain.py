"""Explaining a layer's difference: does another profile's rule give the bits found, on equal inputs?"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np

from karat24.refimpl.engine import Program
from karat24.refimpl.errors import KaratError
from karat24.refimpl.graph import Array, LayerView
from karat24.refimpl.profiles import PROFILES, Profile
from karat24.refimpl.step import Implementation, Step, prepare_step

FILTER_AND_DATA = {
    "CONV_2D": (1, 0),
    "DEPTHWISE_CONV_2D": (1, 0),
    "FULLY_CONNECTED": (1, 0),
    "TRANSPOSE_CONV": (1, 2),
    "QLinearConv": (3, 0),
    "QLinearMatMul": (3, 0),
    "com.microsoft:QGemm": (3, 0),
}
"""Positions of the filter and of the data among a layer's inputs, for ops with accumulators."""


class Explainer:
    """Compares one layer of a program with every other profile's rule."""

    def __init__(self, program: Program, layer: int) -> None:
        self._program, self._layer = program, layer
        self.profiles: set[str] = set()
        """The profiles that explained something so far."""

    @cached_property
    def alternatives(self) -> tuple[tuple[str, Step], ...]:
        """``(profile name, prepared layer)`` for each profile that rounds this layer in another way.

        Profiles that were never compared with their runtime are left out. A layer runs by its spec where it
        does so in the program, so that no kernel is compiled for an explanation.
        """
        own = self._program.steps[self._layer]
        way: Implementation = "spec" if own.by_spec else "kernels"
        rules = [own.rule]
        found: list[tuple[str, Step]] = []
        for profile in PROFILES.values():
            if profile.format != self._program.graph.format or profile.caveat:
                continue
            try:
                rule = profile.rule(own.view)
                if rule in rules or rule.method == "unspecified":
                    continue
                found.append((profile.name, prepare_step(own.view, profile, self._program.target, way)))
            except KaratError:
                continue
            rules.append(rule)
        return tuple(found)

    def explain(self, inputs: Sequence[Array | None], outputs: Sequence[Array]) -> str:
        """The profile and rule under which ``inputs`` give exactly ``outputs``, or ''."""
        for name, step in self.alternatives:
            result = self._program.run_step(step, inputs)
            if all(_same(a, b) for a, b in zip(result.outputs, outputs, strict=True)):
                self.profiles.add(name)
                return f"every value equals {name}: {step.rule}"
        return ""


def differs_in_ties(view: LayerView, accumulator: Array | None, expected: Array, found: Array) -> bool:
    """True when all differing values are one step away and their real results are exact ties."""
    if accumulator is None or expected.shape != found.shape or expected.dtype != found.dtype:
        return False
    differing = expected != found
    step = np.abs(found[differing].astype(np.int64) - expected[differing].astype(np.int64))
    return tie_distance(view, accumulator, differing) == 0 and bool((step == 1).all())


def open_ties_reason(
    profile: Profile, view: LayerView, accumulator: Array | None, expected: Array, found: Array
) -> str:
    """What explains differences in exact ties where ``profile`` leaves them open, else ''."""
    if profile.open_ties and differs_in_ties(view, accumulator, expected, found):
        return "exact ties, which the runtime's choice of kernel decides"
    return ""


def _same(first: Array, second: Array) -> bool:
    return first.dtype == second.dtype and first.shape == second.shape and first.tobytes() == second.tobytes()


def tie_distance(view: LayerView, accumulator: Array, differing: Array) -> float | None:
    """The largest distance, in LSBs, of the differing elements' real results from a rounding tie.

    The real result is ``acc * s_in * s_filter / s_out`` in float64. A distance of 0 is an exact
    tie, 0.5 is the largest possible. None for ops without accumulators.
    """
    real = real_results(view, accumulator) if differing.any() else None
    if real is None:
        return None
    real = real[differing]
    return float(np.abs(np.abs(real - np.floor(real)) - 0.5).max())


def real_results(view: LayerView, accumulator: Array) -> Array | None:
    """``acc * s_in * s_filter / s_out`` in float64, shaped as the output; None without accumulators."""
    positions = FILTER_AND_DATA.get(view.op)
    if positions is None:
        return None
    filter_, data, output = view.input(positions[0]), view.input(positions[1]), view.output()
    if filter_.quantization is None or output.dtype == "float32":
        return None
    scale = np.array(filter_.quantization.scale, np.float64) * data.scale / output.scale
    if view.op == "QLinearConv":
        scale = scale.reshape(-1, *[1] * (accumulator.ndim - 2))
    return np.asarray(accumulator * scale, np.float64)
