"""ONNX images in NHWC memory: the traced bits, in any mixture of layers that want one layout or the other."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from karat24.export.onnx import read_onnx, to_onnx
from karat24.feeds import random_feeds
from karat24.refimpl.engine import Program, compile_graph
from karat24.refimpl.graph import Array, Graph
from karat24.refimpl.kernels.elementwise.lookup import Lookup
from karat24.refimpl.kernels.moves.image_layout import ToChannelsFirst, ToChannelsLast
from tests.cases.onnx_models import node, onnx_model
from tests.cases.quantized import seeded, some_values
from tests.support.planned_networks import (
    Net,
    assert_plan_is_sound,
    assert_planned_equals_traced,
)

PROFILE = "ort-1.31"
SCALES = {"s": np.float32(0.05), "zi": np.array(3, np.int8), "zu": np.array(131, np.uint8)}

pytestmark = pytest.mark.usefixtures("tiny_layers_shared")


class Onnx:
    """An ONNX network written node by node over images ``x`` [1, channels, 7, 9]; ``y`` is its output."""

    def __init__(self, dtype: str = "int8", channels: int = 5) -> None:
        self.nodes: list[Any] = []
        self.constants: dict[str, Array] = dict(SCALES)
        self.dtype, self.zero, self.random = dtype, f"z{dtype[0]}", seeded("layout")
        self.inputs = {"x": np.zeros((1, channels, 7, 9), dtype)}

    def op(self, op: str, *inputs: str, **attributes: Any) -> str:
        name = f"t{len(self.nodes)}"
        self.nodes.append(node(op, inputs, name, **attributes))
        return name

    def constant(self, value: Array) -> str:
        name = f"c{len(self.constants)}"
        self.constants[name] = value
        return name

    def tensor(self, x: str) -> tuple[str, str, str]:
        """A tensor with its scale and zero point."""
        return x, "s", self.zero

    def conv(self, x: str, channels: int, filters: int, taps: int = 3, group: int = 1, **more: Any) -> str:
        weights = some_values(self.random, "int8", (filters, channels // group, taps, taps))
        w, zero = self.constant(weights), self.constant(np.array(0, np.int8))
        more.setdefault("pads", [taps // 2] * 4)
        scale = self.constant(np.float32(0.02 / (taps * taps)))
        return self.op("QLinearConv", *self.tensor(x), w, scale, zero, "s", self.zero, group=group, **more)

    def add(self, a: str, b: str) -> str:
        return self.op("com.microsoft:QLinearAdd", *self.tensor(a), *self.tensor(b), "s", self.zero)

    def mul(self, a: str, b: str) -> str:
        return self.op("com.microsoft:QLinearMul", *self.tensor(a), *self.tensor(b), "s", self.zero)

    def join(self, *parts: str, axis: int) -> str:
        named = [name for part in parts for name in self.tensor(part)]
        return self.op("com.microsoft:QLinearConcat", "s", self.zero, *named, axis=axis)

    def read(self, outputs: Sequence[str]) -> Graph:
        given: Mapping[str, str] = dict.fromkeys(outputs, self.dtype)
        return read_onnx(onnx_model(self.nodes, self.inputs, given, self.constants))


def copies(program: Program) -> int:
    """How many times a run changes an image's layout."""
    return sum(isinstance(layer.kernel, ToChannelsFirst | ToChannelsLast) for layer in program._plan.layers)


def assert_equals_spec(graph: Graph) -> Program:
    """Planned runs give the traced bits, and these the spec's."""
    program = assert_planned_equals_traced(graph, PROFILE)
    assert_plan_is_sound(program)
    feeds = random_feeds(graph, 7)
    expected = compile_graph(graph, PROFILE, 1, "spec").run(feeds).outputs
    for found, wanted in zip(program.run(feeds).outputs, expected, strict=True):
        np.testing.assert_array_equal(found, wanted)
    return program


def _sequence(n: Onnx) -> str:
    return n.conv(n.conv("x", 5, 8), 8, 6, 1)


def _uneven_padding(n: Onnx) -> str:
    """More rows above than below, columns behind only; windows that leave a part of the image out."""
    x = n.conv("x", 5, 8, pads=[2, 0, 0, 1])
    x = n.conv(x, 8, 8, group=8, pads=[0, 1, 1, 2], strides=[2, 2])
    return n.conv(x, 8, 4, 1, pads=[0, 0, 0, 0], strides=[2, 2])


def _pointwise_with_a_border(n: Onnx) -> str:
    """A filter of one tap that reads a border: its pixels are no longer independent."""
    return n.conv(n.conv("x", 5, 6, 1, pads=[1, 0, 0, 2]), 6, 6, 1, pads=[0, 0, 0, 0])


def _one_column(n: Onnx) -> str:
    """Images of one column, whose rows are walked through as columns are; with a border, they are not."""
    x = n.op("MaxPool", n.conv("x", 5, 4), kernel_shape=[1, 9])
    weights = n.constant(some_values(n.random, "int8", (4, 4, 3, 1)))
    zero = n.constant(np.array(0, np.int8))
    for pads in ([1, 0, 1, 0], [1, 1, 1, 0]):
        x = n.op("QLinearConv", *n.tensor(x), weights, "s", zero, "s", n.zero, pads=pads)
    return x


def _pools(n: Onnx) -> str:
    x = n.op("MaxPool", n.conv("x", 5, 8), kernel_shape=[2, 2], strides=[2, 2])
    x = n.op("MaxPool", x, kernel_shape=[3, 2], pads=[1, 1, 1, 0])
    return n.op(
        "com.microsoft:QLinearAveragePool", *n.tensor(x), "s", n.zero, kernel_shape=[2, 3], pads=[0, 1, 1, 1]
    )


def _global_pool_and_rows(n: Onnx) -> str:
    """An image of one pixel, flattened: the rows behind have two axes."""
    x = n.op("com.microsoft:QLinearGlobalAveragePool", *n.tensor(n.conv("x", 5, 7)), "s", n.zero)
    return n.op("Flatten", x)


def _residual(n: Onnx) -> str:
    first = n.conv("x", 5, 8)
    return n.add(n.conv(first, 8, 8), first)


def _added_to_what_is_fed(n: Onnx) -> str:
    """One operand is an image as the file says, the other comes from a convolution."""
    return n.add("x", n.conv("x", 5, 5))


def _per_channel_factor(n: Onnx) -> str:
    """Operands [1, channel, 1, 1] and a constant of three axes, both broadcast."""
    x = n.conv("x", 5, 6)
    pooled = n.op("com.microsoft:QLinearGlobalAveragePool", *n.tensor(x), "s", n.zero)
    factor = n.constant(some_values(n.random, n.dtype, (6, 1, 1)))
    return n.mul(n.mul(x, pooled), factor)


def _concatenations(n: Onnx) -> str:
    """Along channels, in place, and along each other axis."""
    one, two = n.conv("x", 5, 8), n.conv("x", 5, 8)
    x = n.join(one, two, axis=1)
    for axis in (2, 3, 0):
        x = n.join(x, x, axis=axis)
    return n.conv(n.op("Concat", x, x, axis=-3), 32, 4)


def _layer_that_wants_nchw(n: Onnx) -> str:
    """Transpose has no kernel of either kind; between two convolutions it needs both copies."""
    return n.conv(n.op("Transpose", n.conv("x", 5, 8), perm=[0, 1, 3, 2]), 8, 4)


def _read_in_both_layouts(n: Onnx) -> str:
    x = n.conv("x", 5, 5)
    turned = n.op("Transpose", n.op("Transpose", x, perm=[0, 1, 3, 2]), perm=[0, 1, 3, 2])
    return n.add(turned, n.conv(x, 5, 5))


def _real_numbers(n: Onnx) -> str:
    """Float32 images between bytes, enlarged."""
    real = n.op("DequantizeLinear", *n.tensor(n.conv("x", 5, 8)))
    n.constants["twice"] = np.array([1, 1, 2, 2], np.float32)
    return n.op("QuantizeLinear", n.op("Resize", real, "", "twice", mode="linear"), "s", n.zero)


def _table(n: Onnx) -> str:
    x = n.conv("x", 5, 8)
    return n.op("com.microsoft:QLinearLeakyRelu", *n.tensor(x), "s", n.zero, alpha=0.3)


NETWORKS: dict[str, tuple[Callable[[Onnx], str], int]] = {
    "convolutions in a row": (_sequence, 2),
    "uneven padding": (_uneven_padding, 2),
    "one tap and a border": (_pointwise_with_a_border, 2),
    "one column": (_one_column, 2),
    "pools": (_pools, 2),
    "a pixel, flattened": (_global_pool_and_rows, 2),
    "a sum": (_residual, 2),
    "a sum with what is fed": (_added_to_what_is_fed, 2),
    "a factor per channel": (_per_channel_factor, 2),
    "concatenations": (_concatenations, 2),
    "a layer that wants NCHW": (_layer_that_wants_nchw, 4),
    "both layouts of one tensor": (_read_in_both_layouts, 4),
    "real numbers": (_real_numbers, 2),
    "a table": (_table, 2),
}
"""Each network, and the copies that change a layout: one at either end, two around a Transpose."""


@pytest.mark.parametrize("dtype", ["int8", "uint8"])
@pytest.mark.parametrize("name", NETWORKS)
def test_a_planned_run_gives_the_traced_bits_and_the_specs(name: str, dtype: str) -> None:
    write, expected = NETWORKS[name]
    network = Onnx(dtype)
    program = assert_equals_spec(network.read([write(network)]))
    assert copies(program) == expected


def test_layers_without_images_stay_as_they_are() -> None:
    """Rows of two axes are nobody's image: no copy, and the sum has its kernel."""
    network = Onnx()
    network.inputs = {"x": np.zeros((4, 6), np.int8)}
    program = assert_equals_spec(network.read([network.add("x", "x")]))
    assert copies(program) == 0


def test_an_output_is_given_as_the_file_says_though_another_layer_reads_it() -> None:
    network = Onnx()
    between = network.conv("x", 5, 8)
    program = assert_equals_spec(network.read([between, network.conv(between, 8, 4)]))
    assert copies(program) == 3
    assert program.run(random_feeds(program.graph, 0)).outputs[0].shape == (1, 8, 7, 9)


def test_a_constant_operand_is_copied_once() -> None:
    """Its layout is changed when the program is made ready."""
    network = Onnx()
    constant = network.constant(some_values(network.random, "int8", (1, 5, 7, 9)))
    program = assert_equals_spec(network.read([network.add(network.conv("x", 5, 5), constant)]))
    assert copies(program) == 2


def test_onnx_layers_are_bound_fused_and_planned_as_tflite_layers_are() -> None:
    """One compiled call, concatenations in place, and a table applied by the convolution before it."""
    net = Net(3)
    image = net.input(1, 16, 16, 8)
    pooled = net.pool(net.conv(image, 32))
    joined = net.concat([net.conv(pooled, 32), net.conv(pooled, 32)])
    graph = net.builder.build([net.conv(joined, 16)])
    converted = to_onnx(graph, "qoperator")
    program = assert_equals_spec(converted)
    assert program._workspace.compiled
    assert len(program._workspace.runs) == 1
    assert len(program.memory_plan.parts) == 2
    network = Onnx()
    table = compile_graph(network.read([_table(network)]), PROFILE)
    assert not any(isinstance(layer.kernel, Lookup) for layer in table._plan.layers)


def test_a_traced_value_is_nchw_and_the_plan_names_the_layout() -> None:
    network = Onnx()
    graph = network.read([_sequence(network)])
    program = compile_graph(graph, PROFILE)
    trace = program.run(random_feeds(graph, 0), trace=True).trace
    assert trace is not None
    for tensor in graph.tensors:
        if tensor.index in trace.tensors:
            assert trace.tensors[tensor.index].shape == tensor.shape
    lines = program.describe().splitlines()[2:]
    assert [line.endswith("NHWC") for line in lines] == [False, True, False]
