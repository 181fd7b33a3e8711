"""QAttention, as ``quantize_dynamic`` writes it for models of the BERT and GPT kind: integers exactly, the
float32 attention behind them within bounds."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from karat24.delegates import Delegate, delegate_named
from karat24.export.onnx import read_onnx
from karat24.golden.verify import verify
from karat24.refimpl.bounds import Interval, bounds_for
from karat24.refimpl.errors import CannotCompare, KaratError, ModelError, UnsupportedOp
from karat24.refimpl.graph import Array
from karat24.refimpl.ops import OPS, check_supported
from karat24.refimpl.profiles import PROFILES
from karat24.refimpl.profiles.rules import Rule
from tests.support.avx2_runtime import emulated_runtime
from tests.support.lying_onnx import wrong_fields

BATCH, ROWS, WIDTH, HEADS = 2, 6, 16, 2
UNSPECIFIED = Rule("unspecified")


def constants(signed: bool = True, columns: bool = False) -> dict[str, Array]:
    """Weights over the whole range, so that pairs of products pass 16 bits, and scales of usual scores."""
    rng = np.random.default_rng(0)
    low, kind = (-128, "int8") if signed else (0, "uint8")
    count = (3 * WIDTH,) if columns else ()
    return {
        "w": rng.integers(low, low + 256, (WIDTH, 3 * WIDTH)).astype(kind),
        "b": rng.normal(size=3 * WIDTH).astype(np.float32),
        "xs": np.asarray(0.031, np.float32),
        "ws": (rng.uniform(0.5, 2, count) * 0.003).astype(np.float32),
        "xz": np.array(121, np.uint8),
        "wz": np.full(count, low + (128 if signed else 131), kind),
    }


def model(
    mask: Any = None, past: int | None = None, given: dict[str, Array] | None = None, **attributes: Any
) -> bytes:
    """One QAttention of ``x``, uint8."""
    stored, inputs, outputs = given or constants(), ["x", "w", "b", "xs", "ws", "", "xz", "wz"], ["y"]
    if mask is not None:
        stored, inputs[5] = {**stored, "mask": np.asarray(mask, np.int32)}, "mask"
    if past is not None:
        kept = np.random.default_rng(1).normal(size=(2, BATCH, HEADS, past, WIDTH // HEADS))
        stored = {**stored, "past": kept.astype(np.float32)}
        inputs, outputs = [*inputs, "past"], ["y", "present"]
    attributes = {"num_heads": HEADS, **attributes}
    nodes = [helper.make_node("QAttention", inputs, outputs, domain="com.microsoft", **attributes)]
    ends = [helper.make_tensor_value_info("x", TensorProto.UINT8, [BATCH, ROWS, WIDTH])]
    results = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs]
    initializers = [numpy_helper.from_array(values, name) for name, values in stored.items()]
    graph = helper.make_graph(nodes, "attention", ends, results, initializers)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    content: bytes = helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString()
    return content


def block() -> bytes:
    """DynamicQuantizeLinear, QAttention, Relu, on float32 data."""
    stored = constants()
    inputs = ["xq", "w", "b", "s", "ws", "", "z", "wz"]
    nodes = [
        helper.make_node("DynamicQuantizeLinear", ["x"], ["xq", "s", "z"]),
        helper.make_node("QAttention", inputs, ["att"], domain="com.microsoft", num_heads=HEADS),
        helper.make_node("Relu", ["att"], ["y"]),
    ]
    shape = [BATCH, ROWS, WIDTH]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in "xy"]
    initializers = [numpy_helper.from_array(stored[name], name) for name in ("w", "b", "ws", "wz")]
    graph = helper.make_graph(nodes, "block", ends[:1], ends[1:], initializers)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    content: bytes = helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString()
    return content


DATA = np.random.default_rng(2).integers(0, 256, (BATCH, ROWS, WIDTH)).astype(np.uint8)
DATA[0, 0] = 255
"""The first row and weights of 127 or -128 give sums of pairs beyond 16 bits."""

SEEN = np.random.default_rng(3).integers(0, 2, (BATCH, ROWS, ROWS))
FORMS: dict[str, dict[str, Any]] = {
    "plain": {},
    "per column": {"given": constants(columns=True)},
    "uint8 weights": {"given": constants(signed=False)},
    "scale": {"scale": 0.7},
    "large scores": {"scale": 50.0},
    "no later steps": {"unidirectional": 1, "mask_filter_value": -3.0},
    "past": {"past": 3},
    "past, no later steps": {"past": 3, "unidirectional": 1},
    "mask of positions": {"mask": [[1, 1, 0, 1, 1, 0], [0, 1, 2, 1, 1, -1]], "mask_filter_value": -3.0},
    "mask of all": {"mask": [[0] * ROWS, [1] * ROWS]},
    "mask of ends": {"mask": [4, 60]},
    "mask of ends and starts": {"mask": [4, 5, 1, 2], "mask_filter_value": -2.5},
    "mask of pairs": {"mask": SEEN, "unidirectional": 1},
    "mask of one column": {"mask": [[0], [0]], "mask_filter_value": -3.0},
}


def intervals(content: bytes, profile: str, data: Array = DATA) -> tuple[Interval, ...]:
    (view,) = read_onnx(content).views()
    values = [data if t is not None and t.data is None else t and t.data for t in view.inputs]
    return bounds_for(view, PROFILES[profile].rule(view))(values)


@pytest.fixture(scope="module", params=["this processor", "emulated AVX2"])
def runtime(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Delegate]:
    if request.param == "emulated AVX2":
        with emulated_runtime("ort", tmp_path_factory.mktemp("avx2")) as delegate:
            yield delegate
        return
    with delegate_named("ort", time_limit=60.0) as delegate:
        if not delegate.probe().available:
            pytest.skip(delegate.probe().reason)
        yield delegate


@pytest.mark.parametrize("form", FORMS)
def test_the_runtime_lies_inside(runtime: Delegate, form: str) -> None:
    """All masks, all kinds of weights; the oracle's own values lie inside, too."""
    content = model(**FORMS[form])
    found = runtime.run(content, {"x": DATA}, tensors="outputs").outputs
    allowed = intervals(content, runtime.profile)
    (view,) = read_onnx(content).views()
    values = [DATA if t is not None and t.data is None else t and t.data for t in view.inputs]
    own = OPS[view.op].spec(view, values, PROFILES[runtime.profile].rule(view)).outputs
    for interval, theirs, ours in zip(allowed, found, own, strict=True):
        assert interval.use(theirs).outside == interval.use(ours).outside == 0
    if form in ("plain", "past"):
        assert allowed[0].use(found[0]).median_width < 1000


def test_keys_and_values_kept_are_known_to_one_rounding(runtime: Delegate) -> None:
    """And on x86-64, which fuses no product with the bias, they are what the spec says."""
    content = model(past=3)
    _, kept = runtime.run(content, {"x": DATA}, tensors="outputs").outputs
    (view,) = read_onnx(content).views()
    values = [DATA if t is not None and t.data is None else t and t.data for t in view.inputs]
    _, own = OPS[view.op].spec(view, values, PROFILES[runtime.profile].rule(view)).outputs
    assert kept.tobytes() == own.tobytes()
    assert intervals(content, runtime.profile)[1].use(kept).median_width <= 1


@pytest.mark.parametrize("name", ["w", "xz", "wz"])
def test_one_wrong_integer_lies_outside(name: str) -> None:
    """A weight, of a value and not of a score; a zero point."""
    wrong = constants()
    if name == "w":
        wrong["w"][3, -1] ^= 1
    else:
        wrong[name] = (wrong[name] + 1).astype(wrong[name].dtype)
    allowed, moved = intervals(model(), "ort-1.31")[0], intervals(model(given=wrong), "ort-1.31")[0]
    use = allowed.use(((moved.low + moved.high) / 2).astype(np.float32))
    assert use.outside >= (BATCH * ROWS if name == "w" else use.elements // 2)


def test_saturating_pairs_are_told_from_exact_sums() -> None:
    """Otherwise the emulated processor proves nothing."""
    exact, saturating = (intervals(model(), name)[0] for name in ("ort-1.31", "ort-1.31-avx2"))
    assert exact.use(saturating.low).outside > 0


def test_its_shapes_follow_from_weights_and_heads() -> None:
    """The keys and values kept are those of the steps before, too."""
    result, kept = read_onnx(model(past=4)).view(0).outputs
    assert (result.shape, result.dtype) == ((BATCH, ROWS, WIDTH), "float32")
    assert (kept.shape, kept.dtype) == ((2, BATCH, HEADS, ROWS + 4, WIDTH // HEADS), "float32")


@pytest.mark.parametrize("heads", [0, 3])
def test_heads_that_do_not_divide_the_weights_are_refused(heads: int) -> None:
    with pytest.raises(ModelError, match=f"{heads} heads of sizes"):
        read_onnx(model(num_heads=heads))


@pytest.mark.parametrize("name", ["do_rotary", "past_present_share_buffer"])
def test_what_is_not_implemented_is_named(name: str) -> None:
    with pytest.raises(UnsupportedOp, match=f"{name} is not implemented"):
        check_supported(read_onnx(model(**{name: 1})).view(0))


@pytest.mark.parametrize("shape", [(BATCH, ROWS + 1), (3,), (1, 1, ROWS, ROWS)])
def test_a_mask_of_another_shape_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ModelError, match="a mask of shape"):
        check_supported(read_onnx(model(mask=np.ones(shape))).view(0))


def test_damaged_layers_are_bounded_or_refused() -> None:
    """Sizes, types and attributes that do not fit one another."""
    bounded, refused = 0, 0
    for form, seed in itertools.product(("per column", "past", "mask of pairs", "mask of ends"), range(40)):
        try:
            (view,) = read_onnx(wrong_fields(model(**FORMS[form]), seed)).views()
            values = [
                None if t is None else np.ones(t.shape, t.dtype) if t.data is None else t.data
                for t in view.inputs
            ]
            for interval, tensor in zip(bounds_for(view, UNSPECIFIED)(values), view.outputs, strict=True):
                assert interval.low.shape == interval.high.shape == tensor.shape
            bounded += 1
        except KaratError:
            refused += 1
    assert min(bounded, refused) > 20, (bounded, refused)


def test_infinite_scores_are_not_compared() -> None:
    """The scales overflow float32."""
    given = {**constants(), "xs": np.float32(1e38), "ws": np.float32(1e38)}
    with pytest.raises(CannotCompare, match="no finite numbers"):
        intervals(model(given={name: np.asarray(value) for name, value in given.items()}), "ort-1.31")


@pytest.mark.parametrize("mode", ["isolated", "cumulative"])
def test_a_block_is_judged_layer_by_layer(mode: Any) -> None:
    feeds = {"x": np.random.default_rng(1).normal(size=(BATCH, ROWS, WIDTH)).astype(np.float32)}
    with delegate_named("ort", time_limit=60.0) as delegate:
        if not delegate.probe().available:
            pytest.skip(delegate.probe().reason)
        report = verify(block(), read_onnx(block()), delegate, [feeds], mode=mode, implementation="spec")
    verdicts = {layer.op: layer.verdict for layer in report.layers}
    assert verdicts == {
        "DynamicQuantizeLinear": "bit_exact",
        "com.microsoft:QAttention": "within_bound",
        "Relu": "bit_exact",
    }
    assert report.exit_code() == 0


def test_both_outputs_are_judged() -> None:
    """Keys and values, which are integers scaled and moved, beside the result."""
    with delegate_named("ort", time_limit=60.0) as delegate:
        if not delegate.probe().available:
            pytest.skip(delegate.probe().reason)
        content = model(past=2, unidirectional=1)
        report = verify(content, read_onnx(content), delegate, [{"x": DATA}], implementation="spec")
    assert [found.verdict for found in itertools.chain(report.layers, report.outputs)] == ["within_bound"] * 4
    assert report.exit_code() == 0
