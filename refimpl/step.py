"""A step: one layer checked, its rounding settled, and its kernel prepared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from karat24.refimpl.contract import Kernel, Target, Values, accumulator_dtype
from karat24.refimpl.errors import ModelError, UnsupportedOp
from karat24.refimpl.graph import DTYPES, Array, LayerView
from karat24.refimpl.kernels import KERNELS
from karat24.refimpl.ops import OPS, STATES, check_supported
from karat24.refimpl.profiles import Profile, Rule, rules_of
from karat24.refimpl.profiles.rules import GIVEN, OF_ARM, WITHOUT_KERNEL

Implementation = Literal["kernels", "spec", "cheapest"]


@dataclass(frozen=True)
class LayerResult:
    """One layer's outputs and, where asked for and defined, its accumulators."""

    outputs: tuple[Array, ...]
    accumulator: Array | None = None


@dataclass(frozen=True)
class Step:
    """One layer made ready: its rule, its kernel, and the tensors that no later layer reads.

    ``missing`` is '' or says why the oracle lacks the layer, whose outputs must then be given.
    ``by_spec``: the kernel is the op's spec behind a kernel's interface.
    """

    view: LayerView
    rule: Rule
    kernel: Kernel
    accumulates: bool
    last_uses: tuple[int, ...] = field(default=())
    missing: str = ""
    by_spec: bool = False

    def run(
        self, values: Values, accumulator: bool = False, outputs: Sequence[Array] | None = None
    ) -> LayerResult:
        """Runs the layer on ``values``, one array per input, and writes to ``outputs``, else to new arrays.

        Raises UnsupportedOp for a missing layer.
        """
        if self.missing:
            raise UnsupportedOp(self.missing)
        if outputs is None:
            outputs = [np.empty(t.shape, DTYPES[t.dtype]) for t in self.view.outputs]
        acc = None
        if accumulator and self.accumulates:
            acc = np.empty(self.view.outputs[0].shape, accumulator_dtype(self.view))
        self.kernel(values, outputs, acc)
        return LayerResult(tuple(outputs), acc)

    def left(self, values: Values) -> dict[int, Array]:
        """What a run on ``values`` leaves in the layer's variables, by tensor index."""
        op = OPS.get(self.view.op)
        if self.missing or op is None or op.leaves is None:
            return {}
        variables = (self.view.input(position) for position in STATES[self.view.op])
        states = op.leaves(self.view, values, self.rule)
        return {tensor.index: state for tensor, state in zip(variables, states, strict=True)}


def check_layer(view: LayerView, profile: Profile) -> Rule:
    """How ``profile`` rounds the layer. Raises UnsupportedOp where the oracle lacks it, ModelError where
    it is malformed."""
    check_supported(view)
    return profile.rule(view)


def prepare_step(
    view: LayerView,
    profile: Profile,
    target: Target,
    implementation: Implementation = "kernels",
) -> Step:
    """Checks one layer, settles how ``profile`` rounds it and prepares its kernel."""
    return prepare_checked(view, check_layer(view, profile), target, implementation, ())


def prepare_checked(
    view: LayerView, rule: Rule, target: Target, implementation: Implementation, last_uses: tuple[int, ...]
) -> Step:
    """A checked layer, made ready."""
    prepare = KERNELS.get(view.op) if has_kernel(view, rule) else None
    kernel = None if implementation == "spec" or prepare is None else prepare(view, rule, target)
    accumulates = OPS[view.op].accumulates
    if kernel is None:
        return Step(view, rule, _spec_as_kernel(view, rule), accumulates, last_uses, by_spec=True)
    return Step(view, rule, kernel, accumulates, last_uses)


def has_kernel(view: LayerView, rule: Rule) -> bool:
    """Whether a kernel was written for the rule: for some of Arm none was, and a profile in a file may have
    rules of its own."""
    of_arm = rule.method in WITHOUT_KERNEL or rule.overflow in OF_ARM
    return not of_arm and rule in rules_of(view.op)


def step_by_spec(step: Step) -> Step:
    """The step with its op's spec in place of its kernel."""
    return replace(step, kernel=_spec_as_kernel(step.view, step.rule), by_spec=True)


def missing_step(view: LayerView, reason: str, last_uses: tuple[int, ...]) -> Step:
    """A layer whose outputs are given."""

    def refuse(inputs: Values, outputs: Sequence[Array], accumulator: Array | None) -> None:  # noqa: ARG001
        raise UnsupportedOp(reason)

    return Step(view, GIVEN, refuse, False, last_uses, reason)


def _spec_as_kernel(view: LayerView, rule: Rule) -> Kernel:
    """The slow definition behind the kernel's interface."""
    spec = OPS[view.op].spec

    def run(inputs: Values, outputs: Sequence[Array], accumulator: Array | None) -> None:
        result = spec(view, inputs, rule)
        for given, computed in zip(outputs, result.outputs, strict=True):
            if computed.shape != given.shape:
                raise ModelError(
                    f"{view}: the file says shape {given.shape}, it computes to {computed.shape}"
                )
            given[...] = computed
        if accumulator is not None:
            if result.accumulator is None:
                raise ModelError(f"{view}: its spec gives no accumulators")
            accumulator[...] = result.accumulator

    return run
