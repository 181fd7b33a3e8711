"""The search: every kind of mistake in turn, within a limit of work."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from types import MappingProxyType

import numpy as np

from karat24.golden.attribution import bias, filters, padding, parameters
from karat24.golden.attribution.hypothesis import Cut, Kind
from karat24.golden.attribution.result import Attribution, Cause, WorstValue
from karat24.golden.attribution.saturation import saturation
from karat24.golden.attribution.suspect import Suspect
from karat24.golden.attribution.threads import thread_count
from karat24.golden.attribution.weight_bit import weight_bit
from karat24.refimpl.contract import Values
from karat24.refimpl.engine import Program
from karat24.refimpl.graph import Array, Graph

MOST_LAYER_WORK, MOST_WORK = 1 << 36, 1 << 38
"""Most work of trying changes of one layer, and of all layers of a comparison (see ``Suspect.cost``)."""

MOST_WORST = 3

KINDS: Mapping[str, Kind] = MappingProxyType(
    {
        "zero point off": parameters.zero_points,
        "scale off in its last bit": parameters.last_bits,
        "scale of another tensor": parameters.scales_of_others,
        "bias missing": bias.missing,
        "bias off by one": bias.off_by_one,
        "bias of another channel": bias.of_another_channel,
        "one weight bit": weight_bit,
        "channels swapped": filters.channels_swapped,
        "filter transposed": filters.transposed,
        "filter flipped": filters.flipped,
        "padding with 0": padding.zero_padding,
        "windows off by one": padding.offset,
        "wrong fused activation": parameters.activations,
        "narrow accumulator": saturation,
        "other thread count": thread_count,
    }
)
"""Every kind of mistake, in the order they are tried: the smaller first."""

OTHER_MODEL = "stale model"


class Search:
    """Looks for the cause of differences in layers of ``program``, within a limit of work for all of them.

    ``others`` are named versions of the model whose layers are tried as well.
    """

    def __init__(self, program: Program, others: Sequence[tuple[str, Graph]] = ()) -> None:
        self._program, self._left = program, MOST_WORK
        self._kinds = dict(KINDS)
        if others:
            self._kinds[OTHER_MODEL] = partial(filters.of_another_model, others=others)

    def attribute(self, layer: int, inputs: Values, found: Sequence[Array]) -> Attribution:
        """Which single mistakes in a layer give exactly ``found`` for ``inputs`` (constants included).

        Each kind is searched, also after one was found: what is named is all that the values allow.
        """
        suspect = Suspect(self._program, layer, inputs, found)
        own = suspect.own.outputs
        if any(a.dtype != b.dtype or a.shape != b.shape for a, b in zip(own, found, strict=True)):
            return Attribution((), ())
        left = min(self._left, MOST_LAYER_WORK)
        causes, tried, cut = [], [], []
        for name, kind in self._kinds.items():
            places = []
            for hypothesis in kind(suspect):
                if isinstance(hypothesis, Cut):
                    cut.append(hypothesis.reason)
                    continue
                cost = suspect.cost if hypothesis.view is not None else 0
                if cost > left:
                    cut.append(f"{name} not tried to its end, which takes too long")
                    break
                left, self._left = left - cost, self._left - cost
                if name not in tried:
                    tried.append(name)
                if hypothesis.explains(suspect):
                    places.append(hypothesis.place)
            if places:
                causes.append(Cause(name, tuple(places)))
        worst = () if causes else _worst(suspect)
        return Attribution(tuple(causes), tuple(tried), tuple(cut), worst)


def _worst(suspect: Suspect) -> tuple[WorstValue, ...]:
    """The values of the first output that differ most, with what lies beside them."""
    expected, found = suspect.own.outputs[0], suspect.found[0]
    with np.errstate(invalid="ignore", over="ignore"):
        gap = np.abs(found.astype(np.float64) - expected.astype(np.float64)).reshape(-1)
    order = np.argsort(-gap, kind="stable")[:MOST_WORST]
    along = expected.ndim - 2 if expected.ndim > 1 and suspect.graph.format == "tflite" else expected.ndim - 1
    return tuple(
        _described(suspect, tuple(int(i) for i in np.unravel_index(flat, expected.shape)), along)
        for flat in order.tolist()
        if gap[flat] > 0
    )


def _described(suspect: Suspect, index: tuple[int, ...], along: int) -> WorstValue:
    expected, found, acc = suspect.own.outputs[0], suspect.found[0], suspect.own.accumulator

    def beside(step: int) -> tuple[float, float] | None:
        place = list(index)
        if not index or not 0 <= index[along] + step < expected.shape[along]:
            return None
        place[along] += step
        return float(expected[tuple(place)]), float(found[tuple(place)])

    return WorstValue(
        index,
        float(expected[index]),
        float(found[index]),
        None if acc is None else int(acc[index]),
        beside(-1),
        beside(1),
    )
