"""Damaged ONNX layers with computed parameters, blocks and normalizations: run, bounded or refused."""

from __future__ import annotations

import itertools

import numpy as np

from karat24.export.onnx import read_onnx
from karat24.feeds import random_feeds
from karat24.refimpl.bounds import bound_for
from karat24.refimpl.engine import compile_graph
from karat24.refimpl.errors import KaratError
from tests.cases import float_layers, onnx_dynamic
from tests.support.lying_onnx import wrong_fields

FILES = 25

KINDS = ("blocks", "computed_conv", "computed_matmul", "computed_to_float", "dynamic_matmul")
CASES = [case for case in onnx_dynamic.cases() if any(kind in case.name for kind in KINDS)][::3]
BOUNDED = [
    layer
    for layer in float_layers.float_layers("hostile")
    if layer.graph.format == "onnx" and layer.name.endswith("-normal")
    if any(kind in layer.name for kind in ("Norm", "NBits", "FusedMatMul"))
]


def test_damaged_layers_run_or_are_refused() -> None:
    """Sizes of blocks, axes, shapes and types that do not fit one another."""
    ran, refused = 0, 0
    for case, seed in itertools.product(CASES, range(FILES)):
        try:
            graph = read_onnx(wrong_fields(case.model, seed))
            compile_graph(graph, "ort-1.31", 1, "spec").run(random_feeds(graph, seed))
            ran += 1
        except KaratError:
            refused += 1
    assert min(ran, refused) > len(CASES) * FILES // 8, (ran, refused)


def test_damaged_float_layers_are_bounded_or_refused() -> None:
    bounded, refused = 0, 0
    for layer, seed in itertools.product(BOUNDED, range(FILES)):
        try:
            (view,) = read_onnx(wrong_fields(layer.content, seed)).views()
            values = [
                None if t is None else np.ones(t.shape, t.dtype) if t.data is None else t.data
                for t in view.inputs
            ]
            bound_for(view)(values)
            bounded += 1
        except KaratError:
            refused += 1
    assert min(bounded, refused) > len(BOUNDED) * FILES // 8, (bounded, refused)
