"""Building an ONNX graph layer by layer; ``convert_layers.py`` lists what each layer becomes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, TypeAlias

import numpy as np

from karat24.export.onnx.layout import TO_NCHW, onnx_names
from karat24.export.onnx.schema import MICROSOFT
from karat24.export.onnx.writing.float_graph import CLIPS
from karat24.refimpl.builder import GraphBuilder
from karat24.refimpl.errors import UnsupportedOp
from karat24.refimpl.graph import (
    DTYPES,
    QUANTIZED_RANGE,
    Array,
    AttributeValue,
    Graph,
    LayerView,
    Quantization,
    Tensor,
)

Flavour: TypeAlias = Literal["qdq", "qoperator", "tensorrt"]
FLAVOURS: tuple[Flavour, ...] = ("qdq", "qoperator", "tensorrt")

OPSET = 17
"""Version of the standard operator set of converted 8-bit graphs."""

OPSET_OF_16_BITS = 21
"""The first version in which QuantizeLinear and DequantizeLinear take int16."""

EIGHT_BITS = frozenset({"int8", "uint8"})


class Converter:
    """The ONNX graph under construction; methods return its tensor indices."""

    def __init__(self, graph: Graph, flavour: Flavour) -> None:
        self.flavour = flavour
        self._graph, self._names = graph, onnx_names(graph)
        wide = any(tensor.dtype == "int16" and not tensor.is_constant for tensor in graph.tensors)
        self.opset = OPSET_OF_16_BITS if wide else OPSET
        self._quantized = EIGHT_BITS | {"int16"} if flavour == "qdq" else EIGHT_BITS
        self._builder = GraphBuilder(graph.name, "onnx", _description(graph))
        self._tensors: list[Tensor] = []
        self._at: dict[int, int] = {}
        self._dequantized: dict[int, int] = {}
        self._parameters: dict[int, tuple[int, int]] = {}
        for index in graph.inputs:
            self._add_input(graph.tensors[index])

    @property
    def on_integers(self) -> bool:
        """True when ops that have an integer form are written in it."""
        return self.flavour == "qoperator"

    def build(self) -> Graph:
        """The finished graph."""
        outputs = [self.at(self._graph.tensors[index]) for index in self._graph.outputs]
        if self.flavour == "tensorrt":
            outputs = [self.dequantized(i) if self._tensors[i].dtype in EIGHT_BITS else i for i in outputs]
        return self._builder.build(outputs)

    def _add_input(self, tensor: Tensor) -> None:
        shape, name = layout(tensor.shape), self._names[tensor.index]
        if self.flavour == "tensorrt" and tensor.dtype in EIGHT_BITS:
            public = self._record(
                self._builder.input(f"{name}/float", shape, "float32"), f"{name}/float", shape, "float32"
            )
            self.quantize(public, tensor)
            return
        index = self._builder.input(name, shape, tensor.dtype, tensor.quantization)
        self._at[tensor.index] = self._record(index, name, shape, tensor.dtype, tensor.quantization)

    def _record(
        self,
        index: int,
        name: str,
        shape: tuple[int, ...],
        dtype: str,
        quantization: Quantization | None = None,
    ) -> int:
        assert index == len(self._tensors)
        self._tensors.append(Tensor(index, name, shape, dtype, quantization))
        return index

    def shape(self, index: int) -> tuple[int, ...]:
        """Shape of a tensor of the ONNX graph."""
        return self._tensors[index].shape

    def constant(self, name: str, values: Array, quantization: Quantization | None = None) -> int:
        """Adds a constant."""
        values = np.ascontiguousarray(values) if values.ndim else values
        index = self._builder.constant(name, values, quantization)
        return self._record(index, name, values.shape, values.dtype.name, quantization)

    def edge(self, name: str, shape: Sequence[int], like: Tensor | None = None) -> int:
        """Adds an edge with the type and parameters of ``like``, or float32."""
        dtype, quantization = ("float32", None) if like is None else (like.dtype, like.quantization)
        index = self._builder.tensor(name, shape, dtype, quantization)
        return self._record(index, name, tuple(shape), dtype, quantization)

    def name(self, tensor: Tensor) -> str:
        """The name in the ONNX graph of a tensor of the source."""
        return self._names[tensor.index]

    def node(
        self, op: str, inputs: Sequence[int], output: int | Sequence[int], **attributes: AttributeValue
    ) -> int:
        """Appends a layer; returns its first output."""
        outputs = (output,) if isinstance(output, int) else output
        version = 1 if op.startswith(MICROSOFT) else self.opset
        return self._builder.layer(op, inputs, outputs, version, **attributes)

    def activation(self, view: LayerView, position: int) -> int:
        """A quantized input in ONNX layout; constants are stored the first time they are read."""
        tensor = view.input(position)
        self.require_type(view, tensor)
        if tensor.quantization is None:
            raise UnsupportedOp(f"{view}: input {position} ({tensor.name!r}) is not quantized")
        if tensor.quantization.per_channel:
            raise UnsupportedOp(f"{view}: input {position} ({tensor.name!r}) is quantized per channel")
        if tensor.data is not None and tensor.index not in self._at:
            values = tensor.data
            rank = len(view.output().shape)
            values = values.reshape((1,) * (rank - values.ndim) + values.shape)
            values = values.transpose(TO_NCHW) if values.ndim == 4 else values
            self._at[tensor.index] = self.constant(self.name(tensor), values, tensor.quantization)
        return self.at(tensor)

    def require_type(self, view: LayerView, tensor: Tensor) -> None:
        """Raises UnsupportedOp unless the flavour has activations of the element type."""
        if tensor.dtype not in self._quantized:
            more = "; only the flavour qdq has int16 activations" if tensor.dtype == "int16" else ""
            raise UnsupportedOp(f"{view}: {tensor.name!r} is {tensor.dtype}, not quantized to 8 bits{more}")

    def output_of(self, view: LayerView) -> Tensor:
        """The layer's output, which must be quantized per tensor."""
        self.require_output(view, view.output())
        return view.output()

    def require_output(self, view: LayerView, output: Tensor) -> None:
        """Raises UnsupportedOp unless an output is quantized per tensor to a type the flavour has."""
        self.require_type(view, output)
        if output.quantization is None or output.quantization.per_channel:
            raise UnsupportedOp(f"{view}: {output.name!r} is not quantized per tensor")

    def at(self, tensor: Tensor) -> int:
        """The index in the ONNX graph of an activation. Raises UnsupportedOp for one that was not written."""
        if tensor.index not in self._at:
            raise UnsupportedOp(f"{self._graph.label(tensor.index)} has no place in quantized ONNX")
        return self._at[tensor.index]

    def parameters(self, index: int) -> tuple[int, int]:
        """Scale and zero point of a quantized tensor, as constants."""
        if index not in self._parameters:
            tensor = self._tensors[index]
            name, quantization = tensor.name, tensor.quantization
            assert quantization is not None
            scale = np.array(quantization.scale, np.float32)
            zero_point = np.array(quantization.zero_point, DTYPES[tensor.dtype])
            if not quantization.per_channel:
                scale, zero_point = scale.reshape(()), zero_point.reshape(())
            self._parameters[index] = (
                self.constant(f"{name}/scale", scale),
                self.constant(f"{name}/zero_point", zero_point),
            )
        return self._parameters[index]

    def with_parameters(self, index: int) -> list[int]:
        """A quantized tensor, its scale and its zero point."""
        return [index, *self.parameters(index)]

    def dequantized(self, index: int) -> int:
        """The output of a quantized tensor's DequantizeLinear, which is written once."""
        if index not in self._dequantized:
            tensor = self._tensors[index]
            assert tensor.quantization is not None
            axis = {"axis": tensor.quantization.axis} if tensor.quantization.per_channel else {}
            output = self.edge(f"{tensor.name}/dequantized", tensor.shape)
            self._dequantized[index] = self.node(
                "DequantizeLinear", self.with_parameters(index), output, **axis
            )
        return self._dequantized[index]

    def register(self, tensor: Tensor, index: int) -> None:
        """Records the index in the ONNX graph of a tensor of the source."""
        self._at[tensor.index] = index

    def quantize(self, source: int, tensor: Tensor) -> None:
        """QuantizeLinear of a float edge into a tensor of the source."""
        output = self.edge(self.name(tensor), layout(tensor.shape), tensor)
        self.register(tensor, output)
        self.node("QuantizeLinear", [source, *self.parameters(output)], output)

    def in_float(self, view: LayerView, op: str, inputs: Sequence[int], **attributes: AttributeValue) -> None:
        """The op on float ``inputs``, its fused activation, and the QuantizeLinear of its output."""
        output = self.output_of(view)
        name = self.name(output)
        result = self.edge(f"{name}/float", layout(output.shape))
        self.node(op, inputs, result, **attributes)
        activation = view.text("fused_activation_function", "NONE")
        if activation == "RELU":
            result = self.node("Relu", [result], self.edge(f"{name}/relu", layout(output.shape)))
        elif activation in CLIPS:
            ends = [
                self.constant(f"{name}/{end}", np.array(value, np.float32))
                for end, value in zip(("min", "max"), CLIPS[activation], strict=True)
            ]
            result = self.node("Clip", [result, *ends], self.edge(f"{name}/clip", layout(output.shape)))
        elif activation != "NONE":
            raise UnsupportedOp(f"{view}: no ONNX for the fused activation {activation}")
        self.quantize(result, output)

    def in_integers(
        self,
        view: LayerView,
        op: str,
        inputs: Sequence[int],
        attributes: Mapping[str, AttributeValue],
        last: Sequence[int] = (),
        front: bool = False,
    ) -> None:
        """The op on quantized inputs, with the output's parameters after (or before) them, then ``last``.

        A fused activation that the output's own range does not imply becomes a Clip of integers.
        """
        output = self.output_of(view)
        index = self.edge(self.name(output), layout(output.shape), output)
        self.register(output, index)
        parameters = self.parameters(index)
        operands = [*parameters, *inputs, *last] if front else [*inputs, *parameters, *last]
        bounds = integer_bounds(view, output)
        if bounds is None:
            self.node(op, operands, index, **attributes)
            return
        linear = self.edge(f"{self.name(output)}/linear", layout(output.shape), output)
        self.node(op, operands, linear, **attributes)
        ends = [
            self.constant(f"{self.name(output)}/{end}", np.array(value, DTYPES[output.dtype]))
            for end, value in zip(("min", "max"), bounds, strict=True)
        ]
        self.node("Clip", [linear, *ends], index)

    def move(
        self, op: str, source: int, output: int | Sequence[int], *others: int, **attributes: AttributeValue
    ) -> int:
        """An op that only moves values, from one quantized tensor to others of equal parameters.

        Returns the first of them.
        """
        outputs = (output,) if isinstance(output, int) else tuple(output)
        if self.on_integers:
            return self.node(op, [source, *others], outputs, **attributes)
        moved = [self.edge(f"{self._tensors[index].name}/float", self.shape(index)) for index in outputs]
        self.node(op, [self.dequantized(source), *others], moved, **attributes)
        for part, index in zip(moved, outputs, strict=True):
            self.node("QuantizeLinear", [part, *self.parameters(index)], index)
        return outputs[0]

    def moved_output(self, view: LayerView, source: int = 0, number: int = 0) -> int:
        """An output of the layer, which must have the parameters of the input at ``source``."""
        output, data = view.outputs[number], view.input(source)
        self.require_output(view, output)
        if (output.quantization, output.dtype) != (data.quantization, data.dtype):
            raise UnsupportedOp(f"{view}: input and output have different quantization parameters")
        index = self.edge(self.name(output), layout(output.shape), output)
        self.register(output, index)
        return index


def strides(view: LayerView) -> tuple[int, int]:
    """Strides in the order of ONNX, y first."""
    return view.integer("stride_h"), view.integer("stride_w")


def layout(shape: tuple[int, ...]) -> tuple[int, ...]:
    """NHWC to NCHW; other ranks as they are."""
    return tuple(shape[axis] for axis in TO_NCHW) if len(shape) == 4 else shape


def integer_bounds(view: LayerView, output: Tensor) -> tuple[int, int] | None:
    """The part of the output's range that a fused activation leaves; None where that is all of it.

    A real bound ``v`` is ``rint(f32(v / scale)) + zero_point``.
    """
    activation = view.text("fused_activation_function", "NONE")
    if activation == "NONE":
        return None
    if activation != "RELU" and activation not in CLIPS:
        raise UnsupportedOp(f"{view}: no ONNX for the fused activation {activation}")
    qmin, qmax = QUANTIZED_RANGE[output.dtype]
    low, high = CLIPS.get(activation, (0.0, np.inf))

    def step(value: float) -> int:
        steps = np.float32(value) / np.float32(output.scale)
        return int(np.clip(np.rint(steps) + output.zero_point, qmin, qmax))

    bounds = step(low), step(high)
    return None if bounds == (qmin, qmax) else bounds


def _description(graph: Graph) -> str:
    return f"{graph.description or graph.name}. Four-dimensional tensors are NCHW."
