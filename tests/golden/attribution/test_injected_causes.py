"""A mistake put into one layer is named, with its layer and its place; two at once are not misnamed."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from karat24.feeds import random_feeds
from karat24.golden.attribution import Search
from karat24.golden.recordings.judge import verify_recorded
from karat24.refimpl.builder import GraphBuilder
from karat24.refimpl.engine import compile_graph
from karat24.refimpl.graph import Array, Graph, LayerView, Quantization
from karat24.refimpl.ops import OPS
from tests.support.int8_networks import NETWORKS
from tests.support.mistakes import (
    PROFILE,
    Mistake,
    attribute,
    causes,
    changed,
    constant,
    entry,
    judged,
    quantized,
    sound,
    step_by_step,
    summed,
    swapped,
    tensor,
)

ZP, BIT, OTHER = "zero point off", "scale off in its last bit", "scale of another tensor"
MISSING, ONE, CHANNEL = "bias missing", "bias off by one", "bias of another channel"
WEIGHT, SWAP, TRANSPOSED, FLIPPED = (
    "one weight bit", "channels swapped", "filter transposed", "filter flipped",
)  # fmt: skip
BORDER, OFFSET, ACTIVATION, NARROW = (
    "padding with 0", "windows off by one", "wrong fused activation", "narrow accumulator",
)  # fmt: skip


def same(value: float) -> float:
    return value


CASES: list[tuple[str, int, Mistake, str, str]] = [
    # network, layer, the mistake, the cause that must be named, and its place
    ("plain", 0, quantized(0, same, 1), ZP, "input is -2 in place of -3"),
    ("plain", 0, summed(border=lambda zero_point: -zero_point), BORDER, "0 in place of the zero point"),
    ("plain", 0, constant(1, entry((3, 1, 1, 2), lambda w: w ^ 4)), WEIGHT, "bit 2 of weight 3,1,1,2"),
    ("plain", 0, constant(2, np.zeros_like), MISSING, "every channel"),
    ("plain", 1, attribute(fused_activation_function="NONE"), ACTIVATION, "NONE in place of RELU"),
    ("plain", 1, constant(1, lambda w: w.swapaxes(1, 2)), TRANSPOSED, "y and x of the filter"),
    ("plain", 2, quantized("output", same, -1), ZP, "that of the output is"),
    ("plain", 2, constant(1, lambda w: w[:, ::-1, ::-1]), FLIPPED, "in y and x"),
    ("plain", 2, summed(shift=(1, 0)), OFFSET, "1 to the back in y"),
    ("plain", 2, constant(2, lambda b: np.roll(b, -1)), CHANNEL, "each channel has the next one's"),
    ("plain", 2, quantized("output", lambda s: 0.021), OTHER, "the output has that of tensor 0"),
    ("plain", 3, attribute(fused_activation_function="RELU"), ACTIVATION, "RELU in place of RELU6"),
    ("plain", 3, constant(1, swapped(1, 4, 0)), SWAP, "the weights of output channels 1 and 4"),
    ("plain", 4, summed(over_bias=True), NARROW, "the sum saturates at 16 bits"),
    ("plain", 4, summed(step_by_step), NARROW, "every step saturates at 16 bits, from 0"),
    ("plain", 4, constant(1, lambda w: w.transpose(3, 1, 2, 0)), TRANSPOSED, "input and output channels"),
    ("residual", 0, constant(1, swapped(0, 2, 3)), SWAP, "input channels 0 and 2"),
    ("residual", 0, summed(weights=-1), ZP, "that of the filter is 1 in place of 0"),
    ("residual", 2, constant(2, entry((4,), lambda b: 0)), MISSING, "channel 4"),
    ("residual", 2, constant(1, entry((0, 0, 2, 1), lambda w: w ^ 64)), WEIGHT, "bit 6 of weight 0,0,2,1"),
    ("residual", 2, summed(shift=(-1, -1)), OFFSET, "1 to the front in y and 1 to the front in x"),
    ("residual", 3, quantized(0, same, 1), ZP, "that of the input 0"),
    ("residual", 3, quantized(1, lambda s: 0.021), OTHER, "the input 1 has that of tensor 0"),
    ("residual", 3, attribute(fused_activation_function="NONE"), ACTIVATION, "NONE in place of RELU"),
    ("residual", 6, quantized("output", same, 1), ZP, "that of the output is -16 in place of -17"),
    ("residual", 6, quantized("output", lambda s: 0.021), OTHER, "the output has that of tensor 0"),
    ("mobile", 0, quantized(0, same, 3), ZP, "that of the input is 0 in place of -3"),
    ("mobile", 1, constant(1, lambda w: w.swapaxes(1, 2)), TRANSPOSED, "y and x of the filter"),
    ("mobile", 1, constant(1, entry((0, 1, 1, 5), lambda w: w ^ 32)), WEIGHT, "bit 5 of weight 0,1,1,5"),
    ("mobile", 1, summed(border=lambda zero_point: -zero_point), BORDER, "0 in place of the zero point"),
    ("mobile", 2, constant(1, swapped(2, 5, 0)), SWAP, "the weights of output channels 2 and 5"),
    ("mobile", 2, constant(2, entry((2,), lambda b: b + 3000)), "", ""),
    ("mobile", 3, constant(1, lambda w: w[:, ::-1, ::-1]), FLIPPED, "in y and x"),
    ("mobile", 3, summed(shift=(0, 1)), OFFSET, "1 to the back in x"),
    (
        "mobile",
        4,
        attribute(fused_activation_function="RELU_N1_TO_1"),
        ACTIVATION,
        "RELU_N1_TO_1 in place of",
    ),
    ("mobile", 5, constant(2, lambda b: np.roll(b, 1)), CHANNEL, "each channel has the previous one's"),
    ("mobile", 5, quantized("output", same, -40), "", ""),
]


@pytest.mark.parametrize(
    ("name", "layer", "mistake", "kind", "place"),
    CASES,
    ids=[f"{name}-{layer}-{kind or 'none'}-{n}" for n, (name, layer, _, kind, _) in enumerate(CASES)],
)
def test_a_mistake_is_named(name: str, layer: int, mistake: Mistake, kind: str, place: str) -> None:
    report = judged(name, layer, mistake)
    assert report.verdict == "mismatch"
    wrong = [verdict for verdict in report.layers if verdict.verdict == "mismatch"]
    assert [verdict.layer for verdict in wrong] == [layer], "the layers behind it are exact on what they read"
    found = causes(wrong[0])
    assert wrong[0].origin == "introduced"
    if not kind:
        assert not found
        assert "unexplained; tried: zero point off" in wrong[0].reason
        return
    assert list(found) == [kind], wrong[0].reason
    assert any(place in said for said in found[kind]), wrong[0].reason


def both(first: Callable[[Array], Array], second: Callable[[Array], Array]) -> Mistake:
    """Mistakes in the filter and in the bias of one layer."""

    def run(graph: Graph, view: LayerView, inputs: list[Array]) -> Array:
        def change(graph: Graph) -> Graph:
            layer = graph.layers[0]
            for position, spoil in ((1, first), (2, second)):
                data = graph.tensors[layer.inputs[position]].data
                assert data is not None
                spoilt = np.ascontiguousarray(spoil(np.array(data)))
                graph = tensor(graph, layer.inputs[position], data=spoilt)
            return graph

        return changed(change)(graph, view, inputs)

    return run


TWO = {
    "a weight bit and a bias, in one channel": both(
        entry((2, 1, 1, 0), lambda w: w ^ 32), entry((2,), lambda b: b + 900)
    ),
    "a weight bit and a bias, in two channels": both(
        entry((2, 1, 1, 0), lambda w: w ^ 32), entry((3,), lambda b: b + 900)
    ),
    "two weight bits of one channel": constant(
        1, lambda w: entry((2, 1, 1, 0), lambda v: v ^ 32)(entry((2, 0, 1, 3), lambda v: v ^ 16)(w))
    ),
    "a flipped filter and no bias": both(lambda w: w[:, ::-1, ::-1], np.zeros_like),
    "a transposed filter and swapped channels": both(
        lambda w: swapped(0, 1, 0)(w.swapaxes(1, 2)), lambda b: b
    ),
}


@pytest.mark.parametrize("mistake", TWO.values(), ids=TWO)
@pytest.mark.parametrize(("name", "layer"), [("plain", 2), ("residual", 2)])
def test_two_mistakes_at_once_are_not_misnamed(name: str, layer: int, mistake: Mistake) -> None:
    (wrong,) = (v for v in judged(name, layer, mistake).layers if v.verdict == "mismatch")
    assert wrong.layer == layer
    assert not causes(wrong)
    assert wrong.attribution is not None
    assert len(wrong.attribution.worst) == 3
    first = wrong.attribution.worst[0]
    assert first.accumulator is not None
    assert abs(first.found - first.expected) == wrong.diff.max_abs_diff_lsb  # type: ignore[union-attr]


def three_quarters(role: str, towards: float) -> Graph:
    """A 1x1 convolution whose sums are multiplied by exactly 3/4, so that many are ties.

    The scale of ``role`` is the next float32 ``towards`` a limit, unless it is 0.
    """

    def scale(own: str, value: float) -> Quantization:
        bent = float(np.nextafter(np.float32(value), np.float32(towards)))
        return Quantization((bent if own == role and towards else value,), (0,))

    builder = GraphBuilder("three quarters")
    x = builder.input("image", (1, 8, 8, 2), "int8", scale("input", 0.75))
    filter_ = builder.constant("filter", FEW_WEIGHTS.reshape(4, 1, 1, 2), scale("filter", 1.0))
    bias = builder.constant("bias", np.array([3, -2, 5, 0], np.int32))
    output = builder.tensor("output", (1, 8, 8, 4), "int8", scale("output", 1.0))
    builder.layer(
        "CONV_2D", [x, filter_, bias], [output], padding="SAME", stride_h=1, stride_w=1,
        dilation_h_factor=1, dilation_w_factor=1, fused_activation_function="NONE",
    )  # fmt: skip
    return builder.build([output])


FEW_WEIGHTS = np.array([[1, 2], [-1, 1], [3, -1], [1, 0]], np.int8)


@pytest.mark.parametrize(
    ("role", "towards", "place"),
    [
        ("input", -9.0, "that of the input is the next float32 below"),
        ("filter", -9.0, "that of the filter is the next float32 below"),
        ("output", 9.0, "that of the output is the next float32 above"),
    ],
)
def test_the_last_bit_of_a_scale(role: str, towards: float, place: str) -> None:
    """What one of the three does, the others' last bits do, too: all are named, and nothing else is."""
    graph = three_quarters(role, 0.0)
    feeds = random_feeds(graph, 2)
    wrong = compile_graph(three_quarters(role, towards), PROFILE, 1).run(feeds).outputs
    report = verify_recorded(b"model", graph, {"output": wrong[0]}, feeds, profile=PROFILE, threads=1)
    (verdict,) = report.layers
    found = causes(verdict)
    assert list(found) == [BIT], verdict.reason
    assert place in found[BIT]
    assert len(found[BIT]) == 3


def test_a_stale_model_is_named() -> None:
    """All weights of the layer are those of another version, which is given."""
    run, old = sound("plain"), NETWORKS["plain"](seed=77)
    layer = run.graph.view(2)
    inputs = [run.tensors[t.index] if t.data is None else t.data for t in layer.inputs if t is not None]
    stale = OPS["CONV_2D"].spec(old.view(2), [inputs[0], *(t and t.data for t in old.view(2).inputs[1:])],
                                run.program.steps[2].rule).outputs  # fmt: skip
    found = Search(run.program, [("old.tflite", old)]).attribute(2, inputs, stale)
    assert [(cause.kind, cause.places) for cause in found.causes] == [
        ("stale model", ("layer 2 (CONV_2D, 'out3') of old.tflite",))
    ]
    assert not Search(run.program).attribute(2, inputs, stale).causes
