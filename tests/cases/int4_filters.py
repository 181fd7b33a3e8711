"""Layers of int8 activations whose filters are int4, two values in a byte."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from karat24.export.tflite import with_lowest_versions
from karat24.refimpl.graph import Array, Graph
from tests.cases.case import Case
from tests.cases.convolution import cases as convolutions

OLD = ("tflite-2.14-ref", "tflite-2.14-builtin")
OPS = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")


def cases() -> list[Case]:
    """The int8 cases of convolution on ties, and a third of the others, with filters cut to four bits."""
    return list(_cut())


def packed(values: Array) -> Array:
    """int8 values of -8 to 7 as bytes, the first in the lower half; an odd last one alone."""
    halves = np.append(values.reshape(-1), np.zeros(values.size % 2, np.int8)).astype(np.uint8) & 15
    return halves[0::2] | (halves[1::2] << 4)


def _cut() -> Iterator[Case]:
    random = 0
    for case in convolutions():
        view = case.graph.view(0)
        if view.op not in OPS or view.output().dtype != "int8" or len(view.inputs) < 3:
            continue
        random += "ties" not in case.edge
        if "ties" not in case.edge and random % 3:
            continue
        broken = dict(case.broken_in)
        if view.op == "FULLY_CONNECTED":
            broken = {**broken, **dict.fromkeys(OLD, "its FULLY_CONNECTED takes no int4 filter")}
            broken["litert-xnnpack"] = "XNNPACK takes it, and how it rounds is not known"
        name = f"{case.name}_int4"
        yield replace(case, name=name, graph=_with_int4(case.graph), broken_in=broken)


def _with_int4(graph: Graph) -> Graph:
    filter_ = graph.view(0).input(1)
    assert filter_.data is not None
    values = filter_.data if np.abs(filter_.data).max() <= 7 else filter_.data >> 4
    tensors = list(graph.tensors)
    tensors[filter_.index] = replace(filter_, dtype="int4", data=packed(values))
    return with_lowest_versions(replace(graph, tensors=tuple(tensors)))
