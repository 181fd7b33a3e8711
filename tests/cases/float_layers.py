"""Single float32 layers in both formats, of values that are hard to add up."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx

from karat24.export.onnx import read_onnx
from karat24.export.tflite import with_lowest_versions, write_tflite
from karat24.refimpl.builder import GraphBuilder
from karat24.refimpl.graph import Array, Graph
from tests.cases.onnx_models import node, onnx_model
from tests.cases.quantized import seeded

Draw = Callable[[np.random.Generator, Sequence[int]], Array]


def normal(rng: np.random.Generator, shape: Sequence[int]) -> Array:
    return rng.normal(size=shape)


def cancelling(rng: np.random.Generator, shape: Sequence[int]) -> Array:
    """Large values of both signs: a sum is small beside its terms."""
    return rng.normal(size=shape) + 3e4 * rng.choice([-1.0, 1.0], size=shape)


def wide(rng: np.random.Generator, shape: Sequence[int]) -> Array:
    """Magnitudes over twelve powers of ten: terms that vanish in others."""
    return rng.normal(size=shape) * 10.0 ** rng.uniform(-6, 6, size=shape)


def subnormal(rng: np.random.Generator, shape: Sequence[int]) -> Array:
    """Around 2^-126: what is below may be kept or flushed to 0."""
    return rng.normal(size=shape) * 10.0 ** rng.uniform(-40, -37, size=shape)


VALUES: dict[str, Draw] = {f.__name__: f for f in (normal, cancelling, wide, subnormal)}


@dataclass(frozen=True)
class FloatLayer:
    """One layer as a graph and as a model file, with an input."""

    name: str
    graph: Graph
    content: bytes
    feed: Array


def float_layers(seed: str) -> Iterator[FloatLayer]:
    """Every op that has a bound, with every kind of values; sums of 1 to some thousand terms."""
    for kind, draw in VALUES.items():
        rng = seeded(f"{seed} {kind}")
        for name, layer in itertools.chain(_tflite(rng, draw), _onnx(rng, draw)):
            yield FloatLayer(f"{name}-{kind}", *layer)


def _drawn(rng: np.random.Generator, draw: Draw, *shape: int) -> Array:
    return draw(rng, shape).astype(np.float32)


def _pick(rng: np.random.Generator, *choices: int) -> int:
    return int(rng.choice(choices))


def _layer(
    op: str,
    x: Array,
    y: Sequence[int],
    constants: Sequence[Array] = (),
    order: Sequence[int] = (),
    **options: Any,
) -> tuple[Graph, bytes, Array]:
    """A TFLite layer; ``order`` says where the input (0) and the constants (1, 2, …) stand."""
    builder = GraphBuilder()
    tensors = [builder.input("x", x.shape, "float32")]
    tensors += [builder.constant(f"c{number}", values) for number, values in enumerate(constants)]
    inputs = [tensors[position] for position in order or range(len(tensors))]
    output = builder.tensor("y", y, "float32")
    graph = with_lowest_versions(builder.build([builder.layer(op, inputs, [output], **options)]))
    return graph, write_tflite(graph), x


def _tflite(rng: np.random.Generator, draw: Draw) -> Iterator[tuple[str, tuple[Graph, bytes, Array]]]:
    strides = {"stride_h": 1, "stride_w": 1, "padding": "SAME"}
    deep, wide_, size = _pick(rng, 1, 3, 16, 257), _pick(rng, 1, 5, 16), _pick(rng, 1, 4, 7)
    activation = str(rng.choice(["NONE", "RELU", "RELU6"]))
    image = _drawn(rng, draw, 1, size, size + 1, deep)
    yield "CONV_2D", _layer(
        "CONV_2D", image, (1, size, size + 1, wide_),
        [_drawn(rng, normal, wide_, 3, 3, deep), _drawn(rng, draw, wide_)],
        fused_activation_function=activation, **strides,
    )  # fmt: skip
    yield "DEPTHWISE_CONV_2D", _layer(
        "DEPTHWISE_CONV_2D", image, (1, size, size + 1, deep),
        [_drawn(rng, normal, 1, 3, 3, deep), _drawn(rng, draw, deep)], depth_multiplier=1, **strides,
    )  # fmt: skip
    yield "TRANSPOSE_CONV", _layer(
        "TRANSPOSE_CONV", image, (1, 2 * size, 2 * size + 2, wide_),
        [np.array([1, 2 * size, 2 * size + 2, wide_], np.int32), _drawn(rng, normal, wide_, 3, 3, deep)],
        [1, 2, 0], padding="SAME", stride_h=2, stride_w=2,
    )  # fmt: skip
    deep = _pick(rng, 1, 2, 33, 1024, 5000)
    yield "FULLY_CONNECTED", _layer(
        "FULLY_CONNECTED", _drawn(rng, draw, 3, deep), (3, wide_),
        [_drawn(rng, normal, wide_, deep), _drawn(rng, draw, wide_)],
    )  # fmt: skip
    axes = np.array([1, 2], np.int32)
    big = _drawn(rng, draw, 1, _pick(rng, 1, 7, 60), 9, 5)
    yield "MEAN", _layer("MEAN", big, (1, 5), [axes], keep_dims=False)
    yield "SUM", _layer("SUM", big, (1, 1, 1, 5), [axes], keep_dims=True)
    pooled = _drawn(rng, draw, 1, 8, 8, 5)
    yield "AVERAGE_POOL_2D", _layer(
        "AVERAGE_POOL_2D", pooled, (1, 4, 4, 5),
        padding="SAME", stride_h=2, stride_w=2, filter_height=3, filter_width=3,
    )  # fmt: skip
    points = np.clip(_drawn(rng, draw, 2, _pick(rng, 1, 10, 1000)), -80, 80)
    yield "SOFTMAX", _layer("SOFTMAX", points, points.shape, beta=1.0)
    for op in ("LOGISTIC", "TANH", "EXP", "ELU"):
        yield op, _layer(op, points, points.shape)
    for approximate in (False, True):
        yield f"GELU-{approximate}", _layer("GELU", points, points.shape, approximate=approximate)
    stack = _drawn(rng, draw, 2, 3, deep)
    factor = _drawn(rng, normal, 2, 4, deep)
    yield "BATCH_MATMUL", _layer("BATCH_MATMUL", stack, (2, 3, 4), [factor], adj_y=True)


def _node(
    op: str,
    x: Array,
    constants: dict[str, Array] | None = None,
    inputs: str = "",
    opset: int = 21,
    **attributes: Any,
) -> tuple[Graph, bytes, Array]:
    constants = constants or {}
    names = list(inputs) or ["x", *constants]
    content = onnx_model([node(op, names, **attributes)], {"x": x}, {"y": "float32"}, constants, opset)
    if op.endswith("FusedConv"):  # a runtime's own op: the file says the shape of its output
        content = _declared(content, (x.shape[0], len(constants["w"]), *x.shape[2:]))
    elif op.startswith("com.microsoft"):
        content = _declared(
            content,
            (*x.shape[:-1], attributes.get("N") or (len(constants["w"]) if "Mat" in op else x.shape[-1])),
        )
    return read_onnx(content), content, x


def _declared(content: bytes, shape: Sequence[int]) -> bytes:
    model = onnx.load_from_string(content)
    (output,) = model.graph.output
    output.CopyFrom(onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, shape))
    return bytes(model.SerializeToString())


def _onnx(rng: np.random.Generator, draw: Draw) -> Iterator[tuple[str, tuple[Graph, bytes, Array]]]:
    deep, wide_, size = 2 * _pick(rng, 1, 3, 8, 128), 2 * _pick(rng, 1, 3, 8), _pick(rng, 1, 4, 7)
    groups = _pick(rng, 1, 2)
    image = _drawn(rng, draw, 1, deep, size, size + 1)
    filters = {"w": _drawn(rng, normal, wide_, deep // groups, 3, 3), "b": _drawn(rng, draw, wide_)}
    yield "Conv", _node("Conv", image, filters, pads=[1, 1, 1, 1], group=groups)
    fused = {"activation": "Clip", "activation_params": [-0.5, 1e3]}
    yield (
        "FusedConv",
        _node("com.microsoft:FusedConv", image, filters, pads=[1, 1, 1, 1], group=groups, **fused),
    )
    each = {"w": _drawn(rng, normal, deep, 1, 3, 3)}
    yield "Conv-depthwise", _node("Conv", image, each, pads=[1, 1, 1, 1], group=deep, strides=[2, 1])
    across = {"w": _drawn(rng, normal, deep, wide_ // groups, 2, 2), "b": _drawn(rng, draw, wide_)}
    yield "ConvTranspose", _node("ConvTranspose", image, across, strides=[2, 2], group=groups)
    deep = _pick(rng, 1, 2, 33, 1024, 5000)
    rows = _drawn(rng, draw, 3, deep)
    yield "MatMul", _node("MatMul", rows, {"w": _drawn(rng, normal, deep, wide_)})
    scaled = {"w": _drawn(rng, normal, wide_, deep), "c": _drawn(rng, draw, wide_)}
    yield "Gemm", _node("Gemm", rows, scaled, transB=1)
    yield "Gemm-scaled", _node("Gemm", rows, scaled, transB=1, alpha=0.3, beta=1.7)
    stack = _drawn(rng, draw, 2, 5, _pick(rng, 1, 7, 60), 9)
    for op in ("ReduceMean", "ReduceSum"):
        yield op, _node(op, stack, {"a": np.array([2, 3])})
    yield "GlobalAveragePool", _node("GlobalAveragePool", stack)
    window = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "strides": [2, 2]}
    for counted in (0, 1):
        yield f"AveragePool-{counted}", _node("AveragePool", stack, count_include_pad=counted, **window)
    channels = {name: _drawn(rng, draw, 5) for name in "sbm"} | {"v": np.abs(_drawn(rng, normal, 5))}
    yield "BatchNormalization", _node("BatchNormalization", stack, channels)
    points = np.clip(_drawn(rng, draw, 2, _pick(rng, 1, 10, 1000)), -80, 80)
    for op in ("Softmax", "Tanh", "Exp", "Sigmoid", "Erf", "Elu", "Gelu", "Softplus"):
        yield op, _node(op, points)
    yield from _axes(rng, draw)
    yield from _normalizations(rng, draw)
    rows = np.clip(_drawn(rng, draw, 3, 24), -80, 80)
    bias = {"b": _drawn(rng, normal, 24)}
    for op, constants in (("Gelu", {}), ("QuickGelu", {}), ("BiasGelu", bias), ("FastGelu", bias)):
        yield op, _node(f"com.microsoft:{op}", rows, constants)
    flipped = {"w": _drawn(rng, normal, wide_, 24)}
    yield (
        "FusedMatMul",
        _node("com.microsoft:FusedMatMul", rows, flipped, transB=1, alpha=0.125 + 0.1 * groups),
    )
    yield from _blockwise(rng, draw)
    yield "Elu-alpha", _node("Elu", points, alpha=1.7)
    yield "Gelu-tanh", _node("Gelu", points, approximate="tanh")


def _axes(rng: np.random.Generator, draw: Draw) -> Iterator[tuple[str, tuple[Graph, bytes, Array]]]:
    """Convolutions over one and three axes."""
    filters = {"w": _drawn(rng, normal, 6, 2, 3), "b": _drawn(rng, draw, 6)}
    line = _drawn(rng, draw, 2, 4, 9)
    yield "Conv-1", _node("Conv", line, filters, pads=[2, 0], strides=[2], group=2)
    filters = {"w": _drawn(rng, normal, 6, 4, 2, 3, 1)}
    volume = _drawn(rng, draw, 1, 4, 5, 6, 3)
    yield "Conv-3", _node("Conv", volume, filters, pads=[1, 0, 0, 0, 1, 0], dilations=[1, 2, 1])


def _normalizations(rng: np.random.Generator, draw: Draw) -> Iterator[tuple[str, tuple[Graph, bytes, Array]]]:
    """Over enough values that some are of either sign, where the variance does not vanish."""
    rows = _drawn(rng, draw, 3, 5, 2 * _pick(rng, 16, 33, 384))
    scale, bias = (_drawn(rng, normal, rows.shape[-1]) for _ in "sb")
    yield "LayerNormalization", _node("LayerNormalization", rows, {"s": scale, "b": bias})
    across = {"s": np.broadcast_to(scale, rows.shape[1:]).copy()}
    yield "LayerNormalization-axes", _node("LayerNormalization", rows, across, axis=1, epsilon=1e-3)
    yield "SimplifiedLayerNormalization", _node("SimplifiedLayerNormalization", rows, {"s": scale})
    yield "RMSNormalization", _node("RMSNormalization", rows, {"s": scale}, opset=23)
    skipped = {
        "k": _drawn(rng, draw, *rows.shape),
        "s": scale,
        "b": bias,
        "c": _drawn(rng, draw, rows.shape[-1]),
    }
    yield (
        "SkipLayerNormalization",
        _node("com.microsoft:SkipLayerNormalization", rows, skipped, epsilon=1e-5),
    )
    image = _drawn(rng, draw, 2, 6, 7, 8)
    each = {"s": _drawn(rng, normal, 6), "b": _drawn(rng, normal, 6)}
    yield "InstanceNormalization", _node("InstanceNormalization", image, each)
    yield "GroupNormalization", _node("GroupNormalization", image, each, num_groups=3)
    shared = {name: values[:3] for name, values in each.items()}
    yield "GroupNormalization-18", _node("GroupNormalization", image, shared, num_groups=3, opset=18)


def _blockwise(rng: np.random.Generator, draw: Draw) -> Iterator[tuple[str, tuple[Graph, bytes, Array]]]:
    """Weights in blocks, the last one not full; products in float32 and by integers."""
    for bits, level in itertools.product((4, 8), (0, 4)):
        deep, wide_, block = _pick(rng, 32, 100, 129), _pick(rng, 1, 7, 16), _pick(rng, 16, 32, 128)
        blocks = -(-deep // block)
        constants = {
            "w": rng.integers(0, 256, (wide_, blocks, block * bits // 8)).astype(np.uint8),
            "s": (rng.uniform(0.1, 1, (wide_ * blocks)) * 0.02).astype(np.float32),
            "z": rng.integers(0, 256, wide_ * -(-blocks * bits // 8)).astype(np.uint8),
        }
        options = {"K": deep, "N": wide_, "bits": bits, "block_size": block, "accuracy_level": level}
        rows = _drawn(rng, draw, _pick(rng, 1, 3, 5), deep)
        yield f"MatMulNBits-{bits}-{level}", _node("com.microsoft:MatMulNBits", rows, constants, **options)
