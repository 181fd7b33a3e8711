"""Mistakes put into layers of ONNX models are named as those of .tflite are, with their places."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
import pytest

from karat24.export.onnx import read_onnx, write_quantized_onnx
from karat24.golden.recordings.judge import verify_recorded
from karat24.golden.report import LayerVerdict
from karat24.refimpl.engine import compile_graph
from karat24.refimpl.graph import Array, Graph, LayerView
from karat24.refimpl.ops import OPS
from karat24.refimpl.spec.onnx.qlinear_conv import requantized_convolution
from tests.cases.onnx_ops import matrices
from tests.support.int8_networks import mobile, plain
from tests.support.mistakes import (
    Mistake,
    Run,
    assert_sound_runs_have_no_cause,
    causes,
    entry,
    sound_run,
    swapped,
    tensor,
)

ZP, OTHER = "zero point off", "scale of another tensor"
MISSING, CHANNEL = "bias missing", "bias of another channel"
WEIGHT, SWAP, TRANSPOSED, FLIPPED = (
    "one weight bit", "channels swapped", "filter transposed", "filter flipped",
)  # fmt: skip
BORDER, OFFSET, ACTIVATION, NARROW = (
    "padding with 0", "windows off by one", "wrong fused activation", "narrow accumulator",
)  # fmt: skip
PROFILE = "ort-1.31"


@cache
def sound(name: str) -> Run:
    content = write_quantized_onnx({"plain": plain, "mobile": mobile}[name](), "qoperator")
    return sound_run(read_onnx(content), content, PROFILE, 0)


def constant(position: int, change: Callable[[Array], Array]) -> Mistake:
    """Other values in the constant at ``position``: zero points and scales are such, too."""

    def run(graph: Graph, view: LayerView, inputs: list[Array]) -> Array:
        spoilt = np.array(change(np.array(inputs[position])), inputs[position].dtype, order="C")
        wrong = tensor(graph, view.input(position).index, data=spoilt).view(view.layer.index)
        values = [spoilt if at == position else value for at, value in enumerate(inputs)]
        rule = compile_graph(graph, PROFILE, 1, "spec").steps[view.layer.index].rule
        return OPS[view.op].spec(wrong, values, rule).outputs[0]

    return run


def summed(
    total: Callable[[Array], Array] = lambda terms: terms.sum(axis=-1),
    number_0: bool = False,
    shift: tuple[int, int] = (0, 0),
    over_bias: bool = False,
) -> Mistake:
    """A kernel that adds the products of a 3x3 layer of stride 1 otherwise, with the number 0 at the border
    in place of the zero point, or with windows that lie ``shift`` further."""

    def run(graph: Graph, view: LayerView, inputs: list[Array]) -> Array:
        zero_point = int(inputs[2])
        image = inputs[0][0].astype(np.int64) - zero_point
        padded = np.pad(image, ((0, 0), (2, 2), (2, 2)), constant_values=-zero_point if number_0 else 0)
        weights, terms = inputs[3].astype(np.int64), []
        _, height, width = image.shape
        for y, x in np.ndindex(3, 3):
            top, left = 1 + y + shift[0], 1 + x + shift[1]
            seen = padded[:, top : top + height, left : left + width]
            if weights.shape[1] == 1:
                terms.append((seen * weights[:, 0, y, x, None, None])[..., None])
            else:
                terms.append(np.einsum("iyx,oi->oyxi", seen, weights[:, :, y, x]))
        bias = inputs[8].astype(np.int64)[:, None, None]
        sums = total(np.concatenate(terms, axis=-1)) + bias
        if over_bias:
            sums = np.clip(sums, -(2**15), 2**15 - 1)
        rule = compile_graph(graph, PROFILE, 1, "spec").steps[view.layer.index].rule
        result = requantized_convolution(view, sums[None], rule)
        return result.astype(inputs[0].dtype)

    return run


def judged(name: str, layer: int, wrong: Mistake) -> LayerVerdict:
    """The only layer of the dump that is wrong in itself."""
    run = sound(name)
    view = run.graph.view(layer)
    inputs = [run.tensors[t.index] if t.data is None else t.data for t in view.inputs if t is not None]
    output = wrong(run.graph, view, inputs)
    dump = run.program.run(run.feeds, trace=True, given={view.output().index: output}).trace
    assert dump is not None
    report = verify_recorded(run.model, run.graph, dict(dump.tensors), run.feeds, profile=PROFILE, threads=1)
    (verdict,) = (v for v in report.layers if v.verdict == "mismatch")
    assert verdict.layer == layer
    return verdict


CASES: list[tuple[str, int, Mistake, str, str]] = [
    ("plain", 3, constant(7, lambda z: z + 1), ZP, "that of the output is"),
    ("plain", 3, constant(2, lambda z: z - 1), ZP, "that of the input is"),
    ("plain", 3, constant(5, lambda z: z + 1), ZP, "that of the filter is 1 in place of 0"),
    ("plain", 3, constant(6, lambda s: np.float32(0.021)), OTHER, "the output has that of"),
    ("plain", 3, constant(8, np.zeros_like), MISSING, "that of every channel"),
    ("plain", 3, constant(8, entry((4,), lambda b: 0)), MISSING, "that of channel 4"),
    ("plain", 3, constant(8, lambda b: np.roll(b, 1)), CHANNEL, "each channel has the previous one's"),
    ("plain", 3, constant(8, lambda b: b[[0, 1, 5, 3, 4, 5]]), CHANNEL, "channel 2 has that of channel 5"),
    ("plain", 3, constant(3, lambda w: w[:, :, ::-1, ::-1]), FLIPPED, "in y and x"),
    ("plain", 3, constant(3, lambda w: w.swapaxes(2, 3)), TRANSPOSED, "y and x of the filter"),
    ("plain", 3, constant(3, lambda w: w.swapaxes(0, 1)), TRANSPOSED, "input and output channels"),
    (
        "plain", 1, constant(3, lambda w: np.moveaxis(w.reshape(6, 3, 3, 6), -1, 1)),
        TRANSPOSED, "as if the input channel came last",
    ),
    ("plain", 3, constant(3, swapped(1, 4, 0)), SWAP, "weights of output channels 1 and 4"),
    ("plain", 0, constant(3, swapped(0, 2, 1)), SWAP, "input channels 0 and 2"),
    ("plain", 0, constant(3, entry((3, 2, 1, 0), lambda w: w ^ 4)), WEIGHT, "bit 2 of weight 3,2,1,0"),
    ("plain", 4, constant(3, entry((5, 0, 2, 2), lambda w: w ^ 64)), WEIGHT, "bit 6 of weight 5,0,2,2"),
    ("mobile", 2, constant(3, entry((5, 0, 1, 2), lambda w: w ^ 32)), WEIGHT, "bit 5 of weight 5,0,1,2"),
    ("mobile", 3, constant(3, entry((1, 6, 0, 0), lambda w: w ^ 16)), WEIGHT, "bit 4 of weight 1,6,0,0"),
    ("plain", 0, summed(number_0=True), BORDER, "0 in place of the zero point"),
    ("mobile", 5, summed(number_0=True), BORDER, "0 in place of the zero point"),
    ("plain", 3, summed(shift=(1, 0)), OFFSET, "1 to the back in y"),
    ("plain", 4, summed(shift=(-1, -1)), OFFSET, "1 to the front in y and 1 to the front in x"),
    ("mobile", 8, summed(shift=(0, 1)), OFFSET, "1 to the back in x"),
    ("plain", 1, summed(over_bias=True), NARROW, "the sum saturates at 16 bits"),
    ("plain", 0, lambda g, v, i: np.maximum(sound("plain").tensors[v.output().index], i[7]),
     ACTIVATION, "RELU where there is none"),
    ("plain", 2, lambda g, v, i: i[0], ACTIVATION, "the layer is left out"),
    ("mobile", 3, constant(8, entry((2,), lambda b: b + 3000)), "", ""),
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "layer", "wrong", "kind", "place"),
    CASES,
    ids=[f"{name}-{layer}-{kind or 'none'}-{n}" for n, (name, layer, _, kind, _) in enumerate(CASES)],
)
def test_a_mistake_is_named(name: str, layer: int, wrong: Mistake, kind: str, place: str) -> None:
    verdict = judged(name, layer, wrong)
    found = causes(verdict)
    if not kind:
        assert not found
        assert "unexplained; tried: zero point off" in verdict.reason
        return
    assert list(found) == [kind], verdict.reason
    assert any(place in said for said in found[kind]), verdict.reason


PRODUCTS: list[tuple[str, int, Callable[[Array], Array], str, str]] = [
    ("qgemm_uint8_int8_False_0_1.0", 3, entry((20, 4), lambda w: w ^ 64), WEIGHT, "bit 6 of weight 20,4"),
    ("qgemm_uint8_int8_False_1_0.37", 3, entry((4, 20), lambda w: w ^ 64), WEIGHT, "bit 6 of weight 4,20"),
    ("qgemm_uint8_uint8_False_1_1.0", 3, swapped(1, 4, 0), SWAP, "the weights of output channels 1 and 4"),
    ("qgemm_int8_int8_False_0_1.0", 3, swapped(3, 30, 0), SWAP, "input channels 3 and 30"),
    ("qgemm_uint8_int8_False_0_1.0", 6, np.zeros_like, MISSING, "that of every channel"),
    ("qgemm_int8_int8_False_1_1.0", 6, lambda b: np.roll(b, -1), CHANNEL, "each channel has the next one's"),
    ("qgemm_uint8_uint8_False_0_1.0", 8, lambda z: z + 1, ZP, "that of the output is"),
    ("qlinear_matmul_uint8_int8_5x33", 3, entry((9, 5), lambda w: w ^ 32), WEIGHT, "bit 5 of weight 9,5"),
    ("qlinear_matmul_int8_int8_4x8", 3, swapped(2, 7, 1), SWAP, "the weights of output channels 2 and 7"),
    ("qlinear_matmul_uint8_int8_2x5x16", 2, lambda z: z + 1, ZP, "that of the left input is"),
]


@pytest.mark.parametrize(
    ("name", "position", "change", "kind", "place"),
    PRODUCTS,
    ids=[f"{name}-{kind}-{n}" for n, (name, _, _, kind, _) in enumerate(PRODUCTS)],
)
def test_a_mistake_in_a_product_of_matrices(
    name: str, position: int, change: Callable[[Array], Array], kind: str, place: str
) -> None:
    """One layer alone, held against the rule it has on this machine's exact arithmetic."""
    (case,) = (case for case in matrices() if case.name == name)
    graph = read_onnx(case.model)
    view = graph.view(0)
    feeds = {graph.inputs[0]: case.feeds["a"]}
    inputs = [feeds.get(t.index) if t.data is None else t.data for t in view.inputs if t is not None]
    wrong = constant(position, change)(graph, view, [value for value in inputs if value is not None])
    report = verify_recorded(case.model, graph, {"y": wrong}, feeds, profile=PROFILE, threads=1)
    found = causes(report.layers[0])
    assert list(found) == [kind], report.layers[0].reason
    assert any(place in said for said in found[kind]), report.layers[0].reason


def noise(graph: Graph, view: LayerView, inputs: list[Array]) -> Array:
    """One in ten values one step off, which no mistake known here gives."""
    random = np.random.default_rng(8)
    right = sound("mobile" if graph is sound("mobile").graph else "plain").tensors[view.output().index]
    off = random.integers(-1, 2, right.shape) * (random.random(right.shape) < 0.1)
    return np.clip(right.astype(np.int64) + off, -128, 127).astype(np.int8)


def two_weight_bits(graph: Graph, view: LayerView, inputs: list[Array]) -> Array:
    """Two mistakes in one channel."""

    def spoil(weights: Array) -> Array:
        first = tuple(0 for _ in weights.shape[1:])
        return entry((2, *first), lambda w: w ^ 32)(entry((2, 0, 1, 2), lambda w: w ^ 16)(weights))

    return constant(3, spoil)(graph, view, inputs)


@pytest.mark.parametrize("wrong", [noise, two_weight_bits])
@pytest.mark.parametrize(("name", "layer"), [("plain", 0), ("plain", 3), ("mobile", 2), ("mobile", 5)])
def test_no_cause_that_is_not_there(name: str, layer: int, wrong: Mistake) -> None:
    verdict = judged(name, layer, wrong)
    assert not causes(verdict), verdict.reason
    assert "unexplained; tried" in verdict.reason


@pytest.mark.parametrize("name", ["plain", "mobile"])
def test_sound_runs_have_no_cause(name: str) -> None:
    assert_sound_runs_have_no_cause(sound(name), PROFILE, range(100, 110))
