"""Small networks over images, drawn layer by layer, and what every memory plan must keep."""

from __future__ import annotations

import numpy as np

from karat24.feeds import random_feeds
from karat24.refimpl.builder import GraphBuilder
from karat24.refimpl.engine import Program, compile_graph
from karat24.refimpl.graph import Graph, Quantization
from karat24.refimpl.planning import nbytes

SCALE = Quantization.per_tensor(2.0**-5, 3)
WINDOW = {"padding": "SAME", "stride_w": 1, "stride_h": 1, "fused_activation_function": "NONE"}
POOL = {**WINDOW, "filter_width": 2, "filter_height": 2, "stride_w": 2, "stride_h": 2}


class Net:
    """Layers over ``[1, y, x, channel]`` int8 images, drawn one after the other."""

    def __init__(self, seed: int, dtype: str = "int8") -> None:
        self.builder, self.dtype = GraphBuilder(), dtype
        self.random = np.random.default_rng(seed)

    def input(self, *shape: int) -> int:
        return self.builder.input("image", shape, self.dtype, SCALE)

    def _next(self, op: str, inputs: list[int], shape: tuple[int, ...], **attributes: object) -> int:
        output = self.builder.tensor(f"{op}{self.random.integers(1 << 30)}", shape, self.dtype, SCALE)
        return self.builder.layer(op, inputs, [output], 1, **attributes)  # type: ignore[arg-type]

    def conv(self, x: int, filters: int, taps: int = 3) -> int:
        batch, height, width, channels = self.builder.shape(x)
        low, high = (-128, 128) if self.dtype == "int8" else (0, 256)
        weights = self.random.integers(low, high, (filters, taps, taps, channels)).astype(self.dtype)
        quantization = Quantization.per_tensor(2.0**-9, 0 if self.dtype == "int8" else 128)
        inputs = [x, self.builder.constant("filter", weights, quantization)]
        inputs.append(self.builder.constant("bias", self.random.integers(-99, 99, filters).astype(np.int32)))
        return self._next("CONV_2D", inputs, (batch, height, width, filters), **WINDOW)

    def double(self, x: int, op: str = "RESIZE_BILINEAR") -> int:
        batch, height, width, channels = self.builder.shape(x)
        size = self.builder.constant("size", np.array([2 * height, 2 * width], np.int32))
        modes = {"align_corners": False, "half_pixel_centers": True}
        return self._next(op, [x, size], (batch, 2 * height, 2 * width, channels), **modes)

    def transposed(self, x: int, filters: int) -> int:
        batch, height, width, channels = self.builder.shape(x)
        shape = (batch, 2 * height, 2 * width, filters)
        low, high = (-128, 128) if self.dtype == "int8" else (0, 256)
        weights = self.random.integers(low, high, (filters, 4, 4, channels)).astype(self.dtype)
        quantization = Quantization.per_tensor(2.0**-9, 0 if self.dtype == "int8" else 128)
        inputs = [
            self.builder.constant("shape", np.array(shape, np.int32)),
            self.builder.constant("filter", weights, quantization),
            x,
        ]
        attributes = {**WINDOW, "stride_w": 2, "stride_h": 2}
        return self._next("TRANSPOSE_CONV", inputs, shape, **attributes)

    def pool(self, x: int, op: str = "MAX_POOL_2D", **attributes: object) -> int:
        """By windows of 2x2 side by side, unless ``attributes`` say otherwise."""
        batch, height, width, channels = self.builder.shape(x)
        given = {**POOL, **attributes}
        strides, taps = (
            (given["stride_h"], given["stride_w"]),
            (given["filter_height"], given["filter_width"]),
        )
        cut = [tap - 1 if given["padding"] == "VALID" else 0 for tap in taps]
        sizes = (
            -(-(size - less) // step) for size, less, step in zip((height, width), cut, strides, strict=True)
        )
        return self._next(op, [x], (batch, *sizes, channels), **given)

    def add(self, x: int, y: int) -> int:
        return self._next("ADD", [x, y], self.builder.shape(x), fused_activation_function="NONE")

    def pad(self, x: int, counts: list[tuple[int, int]], value: int | None = None) -> int:
        """By the zero point, or by another value."""
        shape = tuple(n + sum(around) for n, around in zip(self.builder.shape(x), counts, strict=True))
        inputs = [x, self.builder.constant("paddings", np.array(counts, np.int32))]
        if value is not None:
            inputs.append(self.builder.constant("value", np.array([value], self.dtype), SCALE))
        return self._next("PAD" if value is None else "PADV2", inputs, shape)

    def unary(self, x: int, op: str = "RELU") -> int:
        return self._next(op, [x], self.builder.shape(x))

    def concat(self, parts: list[int], axis: int = 3) -> int:
        shape = list(self.builder.shape(parts[0]))
        shape[axis] = sum(self.builder.shape(part)[axis] for part in parts)
        attributes = {"axis": axis, "fused_activation_function": "NONE"}
        return self._next("CONCATENATION", parts, tuple(shape), **attributes)


def assert_planned_equals_traced(graph: Graph, profile: str | None = None) -> Program:
    """Any number of threads, whatever the memory held before, twice."""
    for threads in (1, 2):
        program = compile_graph(graph, profile, threads)
        for seed in range(2):
            feeds = random_feeds(graph, seed)
            trace = program.run(feeds, trace=True).trace
            assert trace is not None
            for dirt in (0x00, 0xA5):
                program._workspace.memory[...] = dirt
                for index, value in zip(graph.outputs, program.run(feeds).outputs, strict=True):
                    np.testing.assert_array_equal(value, trace.tensors[index])
    return program


def assert_plan_is_sound(program: Program) -> None:
    """Every pair of tensors that live at once lies in bytes of its own, parts inside their whole."""
    graph, plan = program._plan, program.memory_plan
    roots = {}
    for index in (*plan.offsets, *plan.parts):
        root = index
        while root in plan.parts:
            root = plan.parts[root].whole
        roots[index] = root
    for layer in graph.layers:
        reading = {roots[index] for index in layer.inputs if index in roots}
        for index in (*reading, *(roots[index] for index in layer.outputs)):
            assert plan.spans[index].first <= layer.origin <= plan.spans[index].last
    for index, span in plan.spans.items():
        assert span.size >= nbytes(graph.tensors[index])
        for other, against in plan.spans.items():
            if other != index and span.meets(against) and span.size and against.size:
                ends = [plan.offsets[i] + plan.spans[i].size for i in (index, other)]
                assert ends[0] <= plan.offsets[other] or ends[1] <= plan.offsets[index]


def applied_at_once(program: Program) -> int:
    """How many layers do nothing of their own."""
    return sum(not calls for calls in program._workspace.calls)
