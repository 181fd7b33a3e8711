"""Ops that only move 8-bit values, written as ONNX: every value arrives where the oracle puts it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
import pytest

from karat24.export.onnx import read_onnx, to_onnx, write_quantized_onnx
from karat24.export.onnx.layout import from_onnx_layout, to_onnx_layout
from karat24.export.tflite import with_lowest_versions
from karat24.refimpl.builder import GraphBuilder
from karat24.refimpl.engine import compile_graph
from karat24.refimpl.errors import UnsupportedOp
from karat24.refimpl.graph import Array, Graph, Quantization
from tests.support.ort_session import LEVEL, session

X = Quantization.per_tensor(0.05, -3)
IMAGE, ROWS, VOLUME = (2, 6, 5, 4), (6, 8), (3, 2, 5, 2, 3)


def ints(*values: Any) -> Array:
    return np.array(values, np.int32)


def layer(
    op: str,
    shape: Sequence[int],
    outputs: Sequence[Sequence[int]],
    *constants: Array,
    data: int = 0,
    **attributes: Any,
) -> Graph:
    """One layer; its activation ``[shape]`` stands at position ``data`` among the constants."""
    builder = GraphBuilder("one")
    x = builder.input("x", shape, "int8", X)
    inputs = [builder.constant(f"c{i}", values) for i, values in enumerate(constants)]
    inputs.insert(data, x)
    ys = [builder.tensor(f"y{i}", sizes, "int8", X) for i, sizes in enumerate(outputs)]
    builder.layer(op, inputs, ys, **attributes)
    return with_lowest_versions(builder.build(tuple(ys)))


def strided(shape, out, begin, end, strides, **masks: int) -> Graph:  # type: ignore[no-untyped-def]
    names = ("begin_mask", "end_mask", "ellipsis_mask", "new_axis_mask", "shrink_axis_mask")
    given = {name: masks.get(name, 0) for name in names}
    return layer(
        "STRIDED_SLICE", shape, [out], ints(*begin), ints(*end), ints(*strides), offset=False, **given
    )


def gather(shape, out, positions: Array, **attributes: int) -> Graph:  # type: ignore[no-untyped-def]
    return layer("GATHER", shape, [out], positions, **{"batch_dims": 0, **attributes})


def looked_up() -> Graph:
    """A constant table and positions the model is fed with."""
    builder = GraphBuilder("table")
    positions = builder.input("x", (2, 3), "int32")
    values = np.random.default_rng(3).integers(-128, 128, (7, 5)).astype(np.int8)
    table = builder.constant("table", values, X)
    y = builder.tensor("y", (2, 3, 5), "int8", X)
    builder.layer("GATHER", (table, positions), (y,), axis=0, batch_dims=0)
    return with_lowest_versions(builder.build((y,)))


CASES: dict[str, Callable[[], Graph]] = {
    "slice of an image": lambda: layer("SLICE", IMAGE, [(1, 3, 5, 2)], ints(1, 2, 0, 1), ints(1, 3, -1, 2)),
    "slice of rows": lambda: layer("SLICE", ROWS, [(2, 8)], ints(3, 0), ints(2, -1)),
    "strides": lambda: strided(IMAGE, (2, 3, 2, 2), (0, 0, 1, 1), (2, 6, 5, 4), (1, 2, 2, 2)),
    "backwards": lambda: strided(
        IMAGE, (2, 6, 2, 4), (0, 5, 4, 0), (2, 0, 0, 4), (1, -1, -2, 1), end_mask=0b0010, begin_mask=0b0010
    ),
    "backwards to an inner end": lambda: strided(
        IMAGE, (2, 2, 5, 4), (0, 4, 0, 0), (2, 2, 5, 4), (1, -1, 1, 1)
    ),
    "fewer places than axes": lambda: strided(IMAGE, (1, 6, 5, 4), (1,), (2,), (1,)),
    "ellipsis": lambda: strided(IMAGE, (2, 6, 5, 2), (0, 1), (0, 3), (1, 1), ellipsis_mask=0b01),
    "an axis less": lambda: strided(IMAGE, (2, 5, 4), (0, 3), (2, 0), (1, 1), shrink_axis_mask=0b10),
    "the batch less": lambda: strided(IMAGE, (6, 5, 4), (1,), (2,), (1,), shrink_axis_mask=0b1),
    "an axis more": lambda: strided(
        (6, 5, 4), (1, 6, 5, 3), (0, 0, 0, 1), (1, 6, 5, 4), (1, 1, 1, 1), new_axis_mask=0b01
    ),
    "an axis more and one less": lambda: strided(
        IMAGE, (2, 1, 5, 4), (0, 0, 2), (2, 1, 3), (1, 1, 1), new_axis_mask=0b0010, shrink_axis_mask=0b100
    ),
    "rows of a volume": lambda: strided(VOLUME, (3, 2, 2, 2, 3), (0, 0, 1), (3, 2, 5), (1, 1, 2)),
    "split channels": lambda: layer("SPLIT", IMAGE, [(2, 6, 5, 2)] * 2, ints(3), data=1, num_splits=2),
    "split rows of an image": lambda: layer(
        "SPLIT", IMAGE, [(2, 2, 5, 4)] * 3, ints(-3), data=1, num_splits=3
    ),
    "split by sizes": lambda: layer(
        "SPLIT_V", IMAGE, [(2, 6, 5, 1), (2, 6, 5, 3)], ints(1, -1), ints(-1), num_splits=2
    ),
    "split rows": lambda: layer("SPLIT", ROWS, [(6, 4)] * 2, ints(1), data=1, num_splits=2),
    "transpose an image": lambda: layer("TRANSPOSE", IMAGE, [(2, 5, 6, 4)], ints(0, 2, 1, 3)),
    "transpose channels to the front": lambda: layer("TRANSPOSE", IMAGE, [(4, 2, 6, 5)], ints(3, 0, 1, 2)),
    "transpose rows": lambda: layer("TRANSPOSE", ROWS, [(8, 6)], ints(1, 0)),
    "transpose a volume": lambda: layer("TRANSPOSE", VOLUME, [(3, 3, 2, 2, 5)], ints(-1, 0, 1, 3, 2)),
    "gather channels": lambda: gather(IMAGE, (2, 6, 5, 3), ints(3, 0, 3), axis=3),
    "gather one row": lambda: gather(IMAGE, (2, 5, 4), np.array(4, np.int32), axis=1),
    "gather to a volume": lambda: gather(IMAGE, (2, 2, 3, 5, 4), ints([0, 1, 2], [5, 4, 3]), axis=1),
    "gather rows to an image": lambda: gather((6, 5, 4), (2, 3, 5, 4), ints([0, 1, 2], [5, 4, 3]), axis=0),
    "gather from a table": looked_up,
    "expand": lambda: layer("EXPAND_DIMS", (6, 5, 4), [(1, 6, 5, 4)], np.array(0, np.int32)),
}


def feed(graph: Graph) -> Array:
    (index,) = graph.inputs
    tensor = graph.tensors[index]
    random = np.random.default_rng(11)
    if tensor.dtype == "int32":
        return random.integers(0, 7, tensor.shape).astype(np.int32)
    return random.integers(-128, 128, tensor.shape).astype(np.int8)


@pytest.mark.parametrize("flavour", ["qdq", "qoperator"])
@pytest.mark.parametrize("case", [*CASES])
def test_every_value_arrives(case: str, flavour: Any) -> None:
    """On the oracle before and after the conversion, and in ONNX Runtime, optimized or not."""
    graph = CASES[case]()
    x = feed(graph)
    expected = compile_graph(graph).run([x]).outputs
    content = write_quantized_onnx(graph, flavour)
    onnx.checker.check_model(onnx.load_from_string(content), full_check=True)
    plain = session(content, int8_allowed=True, level=LEVEL.ORT_DISABLE_ALL)
    named = {plain.get_inputs()[0].name: to_onnx_layout(x)}
    results = [
        session(content, int8_allowed=True, level=level).run(None, named)
        for level in (LEVEL.ORT_DISABLE_ALL, LEVEL.ORT_ENABLE_ALL)
    ]
    results.append(list(compile_graph(read_onnx(content)).run(named).outputs))
    for result in results:
        for found, wanted in zip(result, expected, strict=True):
            np.testing.assert_array_equal(from_onnx_layout(found), wanted)


def test_what_onnx_has_no_form_for_is_refused() -> None:
    with pytest.raises(UnsupportedOp, match="batch_dims"):
        to_onnx(gather((2, 6, 4), (2, 3, 4), ints([0, 1, 2], [5, 4, 3]), axis=1, batch_dims=1))
    with pytest.raises(UnsupportedOp, match="gives no values"):
        to_onnx(strided(ROWS, (0, 8), (3,), (3,), (1,)))
