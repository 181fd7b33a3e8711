"""Where in a layer's output which rounding methods meet: whole blocks round one way, tails another."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from karat24.refimpl.graph import Array, LayerView
from karat24.refimpl.profiles.rules import Method, Rule
from karat24.refimpl.profiles.tflite.broadcast import inner_loop
from karat24.refimpl.spec.shared.primitives import body_mask

_INNER_LOOPS = frozenset({"ADD", "SUB", "MUL"})
"""Ops whose blocks begin anew with each inner loop of a broadcast."""


@dataclass(frozen=True, eq=False)
class Region:
    """Output elements that each of several rules rounds by one method, ``methods`` in the rules' order.

    ``elements`` is bool in the output's shape, or None where the region is the whole output.
    """

    methods: tuple[Method, ...]
    elements: Array | None

    def channels(self, axis: int, channels: int) -> Array:
        """Whether each index of ``axis`` has an element in the region: bool ``[channel]``."""
        if self.elements is None:
            return np.ones(channels, bool)
        others = tuple(i for i in range(self.elements.ndim) if i != axis % self.elements.ndim)
        return np.asarray(self.elements.any(axis=others))

    def some_elements(self, shape: tuple[int, ...], axis: int, channel: int) -> list[tuple[int, ...]]:
        """Elements of a channel that lie in the region: the one nearest the centre, then the first."""
        inside = np.ones(shape, bool) if self.elements is None else self.elements
        places = np.flatnonzero(np.take(inside, channel, axis=axis).reshape(-1))
        rest = tuple(size for i, size in enumerate(shape) if i != axis % len(shape))
        centre = np.ravel_multi_index([size // 2 for size in rest], rest) if rest else 0
        found = []
        for place in dict.fromkeys((places[np.abs(places - centre).argmin()], places[0])):
            index = [int(i) for i in np.unravel_index(int(place), rest)] if rest else []
            index.insert(axis % len(shape), channel)
            found.append(tuple(index))
        return found


def regions(view: LayerView, rules: Sequence[Rule]) -> list[Region]:
    """The regions of the layer's output under ``rules`` together; every element lies in one."""
    shape = view.output().shape
    if all(rule.tail is None for rule in rules) or math.prod(shape) == 0:
        return [Region(tuple(rule.method for rule in rules), None)]
    run = inner_loop(view).run if view.op in _INNER_LOOPS else None
    masks = [body_mask(shape, rule, run) for rule in rules]
    found: dict[tuple[Method, ...], Array] = {}
    for number in range(2 ** len(rules)):
        bodies = [not number >> i & 1 for i in range(len(rules))]
        here = np.ones(shape, bool)
        methods: list[Method] = []
        for rule, mask, body in zip(rules, masks, bodies, strict=True):
            here &= mask if body else ~mask
            methods.append(rule.method if body or rule.tail is None else rule.tail)
        if here.any():
            found[tuple(methods)] = here | found.get(tuple(methods), False)
    return [Region(methods, elements) for methods, elements in found.items()]
