"""Explaining a difference of the whole model: do its layers under another profile give the bits found?"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from karat24.golden.diff import diff_arrays
from karat24.golden.explain import differs_in_ties
from karat24.refimpl.engine import Program, compile_graph
from karat24.refimpl.errors import KaratError
from karat24.refimpl.graph import Array

TIES = "exact ties, which the runtime's choice of kernel decides, and what follows from them"


class WholeExplainer:
    """Compares values of one run with the oracle's under other ``profiles``, and with its own except for
    ties.

    ``given`` are the values that the oracle takes from the runtime, ``shown`` all that the runtime shows.
    """

    def __init__(
        self,
        program: Program,
        feeds: Mapping[int, Array],
        given: Mapping[int, Array],
        shown: Mapping[int, Array],
        profiles: Iterable[str],
    ) -> None:
        self._program, self._feeds, self._given, self._shown = program, feeds, given, shown
        self._profiles = [name for name in dict.fromkeys(profiles) if name != program.profile.name]
        self._values: dict[str, Mapping[int, Array]] = {}

    def explain(self, tensor: int, found: Array) -> str:
        """The explanation of the values ``found`` of a tensor, or ''."""
        for profile in self._profiles:
            if self._gives(profile, tensor, found):
                return f"every value equals that of the model under {profile}"
        if self._program.profile.open_ties and self._gives("", tensor, found):
            return TIES
        return ""

    def _gives(self, profile: str, tensor: int, found: Array) -> bool:
        if profile not in self._values:
            try:
                self._values[profile] = self._run_under(profile) if profile else self._run_with_its_ties()
            except KaratError:
                self._values[profile] = {}
        value = self._values[profile].get(tensor)
        return value is not None and diff_arrays(value, found).equal

    def _run_under(self, profile: str) -> Mapping[int, Array]:
        graph, threads = self._program.graph, self._program.target.threads
        program = compile_graph(graph, profile, threads, "cheapest", missing="given")
        trace = program.run(self._feeds, trace=True, given=self._given).trace
        assert trace is not None
        return trace.tensors

    def _run_with_its_ties(self) -> Mapping[int, Array]:
        """The oracle's run, with the runtime's values in place of its own where only exact ties differ."""
        constants = {t.index: t.data for t in self._program.graph.tensors if t.data is not None}
        values: dict[int, Array] = {**constants, **self._feeds}
        for step in self._program.steps:
            view = step.view
            if all(tensor.index in self._given for tensor in view.outputs):
                values |= {tensor.index: self._given[tensor.index] for tensor in view.outputs}
                continue
            inputs = [None if tensor is None else values[tensor.index] for tensor in view.inputs]
            result = self._program.run_step(step, inputs, accumulator=True)
            for tensor, own in zip(view.outputs, result.outputs, strict=True):
                found = self._shown.get(tensor.index, own)
                ties = differs_in_ties(view, result.accumulator, own, found)
                values[tensor.index] = found if ties else own
        return values
