"""How far a tensor is from its golden, and whether its layer or its inputs are to blame."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from karat24.golden.attribution import Attribution, Search
from karat24.golden.diff import ArrayDiff, diff_arrays
from karat24.golden.explain import Explainer, open_ties_reason, tie_distance
from karat24.golden.goldens.files import stored_arrays, values_digest
from karat24.golden.goldens.manifest import Golden, GoldenTensor
from karat24.golden.goldens.observe import Observed, observe_oracle
from karat24.golden.goldens.recorded import Mishap
from karat24.golden.located import Located, locate
from karat24.golden.report import Origin, Verdict
from karat24.refimpl import __version__
from karat24.refimpl.engine import Feeds, Program, compile_graph, resolve_feeds
from karat24.refimpl.errors import CannotCompare, KaratError
from karat24.refimpl.graph import Array


@dataclass(frozen=True)
class Found:
    """What is known of one tensor; see ``report.LayerVerdict``."""

    verdict: Verdict
    diff: ArrayDiff | None = None
    reason: str = ""
    origin: Origin = ""
    tie: float | None = None
    located: Located | None = None
    attribution: Attribution | None = None


class Differences:
    """The tensors of a run whose hashes are not the golden's."""

    def __init__(
        self,
        path: Path,
        golden: Golden,
        observed: Observed,
        feeds: Feeds,
        differing: Sequence[int],
        threads: int | None,
    ) -> None:
        self._path, self._golden, self._observed = path, golden, observed
        self._feeds, self._differing, self._threads = feeds, frozenset(differing), threads

    def of_layer(self, tensor: GoldenTensor) -> Found:
        """The difference of a tensor that a layer writes, and its origin."""
        values = self._observed.tensors[tensor.tensor]
        if values.shape != tensor.shape or str(values.dtype) != tensor.dtype:
            return Found(
                "mismatch",
                reason=f"the golden has {tensor.dtype} {tensor.shape}, "
                f"the run gave {values.dtype} {values.shape}",
            )
        diff, unknown = self._diff(tensor.tensor, values, tensor.sha256)
        arisen = self._arisen(tensor)
        reasons = "; ".join(filter(None, (arisen.reason, unknown)))
        located = self._located(tensor.tensor, values, diff)
        return replace(arisen, diff=diff, reason=reasons, located=located)

    def of_mishap(self, index: int, mishap: Mishap) -> Found:
        """Values that are the golden's after another reading, as they stand."""
        expected = self._observed.tensors[index]
        located = locate(expected, mishap.values, self._observed.graph.format)
        diff = diff_arrays(expected, mishap.values)
        return Found("mismatch", diff, mishap.reason, "introduced", located=located)

    def of_output(self, index: int, values: Array, digest: str) -> Found:
        """The difference of an output of the model."""
        diff, unknown = self._diff(index, values, digest)
        return Found("mismatch", diff, unknown, located=self._located(index, values, diff))

    def _located(self, index: int, values: Array, diff: ArrayDiff | None) -> Located | None:
        """Where differing values lie, as far as the golden's values are known."""
        return None if diff is None else locate(self.expected[index], values, self._observed.graph.format)

    def _diff(self, index: int, values: Array, digest: str) -> tuple[ArrayDiff | None, str]:
        """The difference from the golden's values, or why these are not known."""
        expected = self.expected.get(index)
        if expected is None or values_digest(expected) != digest:
            return None, self._unknown or f"the hash differs; {self._why_no_values()}"
        try:
            return diff_arrays(expected, values), ""
        except CannotCompare as error:
            return None, str(error)

    def _why_no_values(self) -> str:
        if not self._golden.from_oracle:
            return "the golden keeps no values to say how far (record with --keep all)"
        before = self._golden.recorded_by
        return f"karat24 {__version__} no longer computes the golden's values, as {before} did"

    @cached_property
    def expected(self) -> Mapping[int, Array]:
        """The golden's values where they can be had: kept beside it, or computed again by the oracle."""
        kept = stored_arrays(self._path, self._golden, {*self._differing, *self._golden.outputs})
        if self._differing <= kept.keys() or self._program is None:
            return kept
        try:
            again = observe_oracle(
                self._observed.graph, self._golden.profile, self._feeds, threads=self._threads
            )
        except KaratError:
            return kept
        return {**again.tensors, **kept}

    @property
    def _unknown(self) -> str:
        return "" if self._golden.profile else "the hash differs; no profile can compute the golden's values"

    @cached_property
    def _program(self) -> Program | None:
        """The layers under the golden's profile; None where it has none."""
        if not self._golden.profile:
            return None
        try:
            return compile_graph(self._observed.graph, self._golden.profile, self._threads, missing="given")
        except KaratError:
            return None

    def _arisen(self, tensor: GoldenTensor) -> Found:
        """Where a difference arose, and why: does the layer give that on the inputs the run had?"""
        program, unknown = self._program, Found("mismatch")
        if program is None or not 0 <= tensor.layer < len(program.steps):
            return unknown
        view = program.steps[tensor.layer].view
        if tensor.tensor not in view.layer.outputs:
            return unknown
        position = view.layer.outputs.index(tensor.tensor)
        try:
            inputs = [None if t is None else self._value(t.index, t.data) for t in view.inputs]
            outputs = [self._observed.tensors[output.index] for output in view.outputs]
        except KeyError:
            return unknown
        inherited = any(t is not None and t.index in self._differing for t in view.inputs)
        try:
            own = program.run_layer(tensor.layer, inputs, accumulator=True)
        except KaratError as error:
            return replace(unknown, reason=str(error))
        same = all(np.array_equal(a, b, equal_nan=True) for a, b in zip(own.outputs, outputs, strict=True))
        if same and inherited:
            return Found("mismatch", reason="inherited: exact on the inputs the run had", origin="inherited")
        if same:  # the oracle itself has changed: nothing of ours gives the golden's values
            return Found("mismatch", origin="introduced")
        tie = None
        if own.accumulator is not None:
            tie = tie_distance(view, own.accumulator, own.outputs[position] != outputs[position])
        reason = Explainer(program, tensor.layer).explain(inputs, outputs) or open_ties_reason(
            program.profile, view, own.accumulator, own.outputs[position], outputs[position]
        )
        if reason:
            return Found("explained", reason=reason, origin="introduced", tie=tie)
        cause = self._search.attribute(tensor.layer, inputs, outputs)
        return Found("mismatch", reason=str(cause), origin="introduced", tie=tie, attribution=cause)

    @cached_property
    def _search(self) -> Search:
        assert self._program is not None
        return Search(self._program)

    def _value(self, index: int, constant: Array | None) -> Array:
        """What the run had in a tensor: a constant, a feed, or what a layer wrote. Raises KeyError."""
        if constant is not None:
            return constant
        if index in self._fed:
            return self._fed[index]
        return self._observed.tensors[index]

    @cached_property
    def _fed(self) -> Mapping[int, Array]:
        return resolve_feeds(self._observed.graph, self._feeds)
