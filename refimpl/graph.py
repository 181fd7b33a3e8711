"""The quantized graph, faithful to the file it came from.

A :class:`Graph` holds the same tensors, names, layouts and order as the model
file (TFLite: NHWC, filters OHWI; ONNX: NCHW), so that a per-layer difference
maps one to one. Everything is frozen and validated when built: a graph that
exists has consistent indices, shapes, dtypes, buffers and quantization, and its
layers are in executable order. What an *op* requires of its tensors is checked
by that op (``karat24.refimpl.ops``) before anything runs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from karat24.refimpl.element_types import DTYPES as DTYPES
from karat24.refimpl.element_types import MAX_ELEMENTS as MAX_ELEMENTS
from karat24.refimpl.element_types import OPAQUE_TYPES as OPAQUE_TYPES
from karat24.refimpl.element_types import QUANTIZED_RANGE as QUANTIZED_RANGE
from karat24.refimpl.errors import ModelError

Array: TypeAlias = NDArray[Any]
AttributeValue: TypeAlias = bool | int | float | str | bytes | tuple[int, ...] | tuple[float, ...]
Format: TypeAlias = Literal["tflite", "onnx"]


@dataclass(frozen=True)
class Quantization:
    """Affine quantization: ``real = scale * (q - zero_point)``.

    ``scale`` holds float32 values (as Python floats), one per tensor or one per
    index of dimension ``axis``; ``zero_point`` has the same length. ``axis`` is the
    file's; several scales of a vector belong to its elements whatever it says.
    """

    scale: tuple[float, ...]
    zero_point: tuple[int, ...]
    axis: int = 0

    def __post_init__(self) -> None:
        if not self.scale:
            raise ModelError("quantization without a scale")
        if len(self.zero_point) != len(self.scale):
            raise ModelError(f"{len(self.scale)} scales but {len(self.zero_point)} zero points")
        for scale in self.scale:
            if not (math.isfinite(scale) and scale > 0):
                raise ModelError(f"scale {scale!r} is not a positive finite number")
            if float(np.float32(scale)) != scale:
                raise ModelError(f"scale {scale!r} is not a float32 value")

    @property
    def per_channel(self) -> bool:
        """True when more than one scale is stored (one per index of ``axis``)."""
        return len(self.scale) > 1

    @classmethod
    def per_tensor(cls, scale: float, zero_point: int = 0) -> Quantization:
        """One scale (rounded to float32) and one zero point for the whole tensor."""
        return cls((float(np.float32(scale)),), (int(zero_point),))


@dataclass(frozen=True, eq=False)
class Tensor:
    """One edge of the graph, or one constant.

    ``index`` is the tensor's position in its graph, and in a .tflite file its
    tensor index. ``shape_signature`` keeps the file's dynamic dimensions (-1)
    where ``shape`` holds the concrete sizes the file was exported with. ``data`` of an opaque
    element type is its bytes, as the file stores them, in a flat uint8 array. ``folded`` are values that a
    layer writes and that follow from shapes and constants alone (``karat24.refimpl.settling``).
    """

    index: int
    name: str
    shape: tuple[int, ...]
    dtype: str
    quantization: Quantization | None = None
    data: Array | None = None
    shape_signature: tuple[int, ...] | None = None
    folded: Array | None = None

    def __post_init__(self) -> None:
        where = f"tensor {self.index} ({self.name!r})"
        if self.dtype not in DTYPES and not self.is_opaque:
            raise ModelError(f"{where}: unknown element type {self.dtype!r}")
        if any(size < 0 for size in self.shape):
            raise ModelError(
                f"{where}: shape {self.shape} has an unknown size; export the model with a fixed shape"
            )
        if math.prod(self.shape) > MAX_ELEMENTS:
            raise ModelError(f"{where}: shape {self.shape} has more than {MAX_ELEMENTS} elements")
        if self.quantization is not None:
            self._check_quantization(self.quantization, where)
        if self.data is not None:
            self._freeze_data(self.data, where)

    def _check_quantization(self, quantization: Quantization, where: str) -> None:
        if quantization.per_channel:
            rank = len(self.shape)
            # The scales of a vector can only belong to its elements: files exist that name another axis, and
            # runtimes that run them (karat24.refimpl.profiles.refusals).
            axis = 0 if rank == 1 else quantization.axis
            if quantization.axis < 0 or axis >= rank:
                raise ModelError(f"{where}: quantized axis {quantization.axis} of a rank-{rank} tensor")
            if len(quantization.scale) != self.shape[axis]:
                raise ModelError(
                    f"{where}: {len(quantization.scale)} scales for axis {quantization.axis} "
                    f"of shape {self.shape}"
                )
        if self.dtype in QUANTIZED_RANGE:
            qmin, qmax = QUANTIZED_RANGE[self.dtype]
            for zero_point in quantization.zero_point:
                if not qmin <= zero_point <= qmax:
                    raise ModelError(f"{where}: zero point {zero_point} is outside {self.dtype}")

    def _freeze_data(self, data: Array, where: str) -> None:
        if data.dtype != (np.uint8 if self.is_opaque else DTYPES[self.dtype]):
            raise ModelError(f"{where}: buffer of {data.dtype} for a {self.dtype} tensor")
        if data.shape != self.shape and not self.is_opaque:
            raise ModelError(f"{where}: buffer of shape {data.shape} for a tensor of shape {self.shape}")
        if data.flags.writeable or not data.flags.c_contiguous:
            data = np.array(data, order="C")
            data.flags.writeable = False
            object.__setattr__(self, "data", data)

    @property
    def is_constant(self) -> bool:
        """True when the file stores the tensor's values."""
        return self.data is not None

    @property
    def known(self) -> Array | None:
        """The tensor's values where they are the same in every run: stored in the file or folded."""
        return self.folded if self.data is None else self.data

    @property
    def is_opaque(self) -> bool:
        """True when the element type is only named (``OPAQUE_TYPES``)."""
        return self.dtype in OPAQUE_TYPES

    @property
    def scale(self) -> float:
        """The per-tensor scale, a float32 value. Raises ModelError when there is not exactly one."""
        return self._single().scale[0]

    @property
    def zero_point(self) -> int:
        """The per-tensor zero point. Raises ModelError when there is not exactly one."""
        return self._single().zero_point[0]

    def _single(self) -> Quantization:
        if self.quantization is None:
            raise ModelError(f"tensor {self.index} ({self.name!r}) has no quantization parameters")
        if self.quantization.per_channel:
            raise ModelError(f"tensor {self.index} ({self.name!r}) is quantized per channel, not per tensor")
        return self.quantization

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Tensor):
            return NotImplemented
        return self._fields() == other._fields() and _same_data(self.data, other.data)

    def __hash__(self) -> int:
        return hash(self._fields())

    def _fields(self) -> tuple[object, ...]:
        return (self.index, self.name, self.shape, self.dtype, self.quantization, self.shape_signature)


def _same_data(left: Array | None, right: Array | None) -> bool:
    if left is None or right is None:
        return left is right
    return left.tobytes() == right.tobytes()


UNLISTED = "unlisted_options"
"""The attribute that marks a layer whose file stores options of unknown meaning: their positions."""


@dataclass(frozen=True)
class Layer:
    """One operation: op name, tensor indices (-1: optional tensor left out) and attributes.

    ``intermediates`` hold no values: their parameters are those of numbers inside the layer.
    """

    index: int
    op: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    attributes: Mapping[str, AttributeValue] = field(default_factory=dict)
    version: int = 1
    intermediates: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "attributes", MappingProxyType(dict(self.attributes)))


@dataclass(frozen=True)
class Signature:
    """A named entry point: public input and output names mapped to tensor indices."""

    key: str
    inputs: Mapping[str, int]
    outputs: Mapping[str, int]

    def __post_init__(self) -> None:
        object.__setattr__(self, "inputs", MappingProxyType(dict(self.inputs)))
        object.__setattr__(self, "outputs", MappingProxyType(dict(self.outputs)))


@dataclass(frozen=True)
class Graph:
    """A validated network. Raises :class:`ModelError` when anything in it is inconsistent."""

    tensors: tuple[Tensor, ...]
    layers: tuple[Layer, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    name: str = "main"
    format: Format = "tflite"
    signatures: tuple[Signature, ...] = ()
    description: str = ""

    def __post_init__(self) -> None:
        for position, tensor in enumerate(self.tensors):
            if tensor.index != position:
                raise ModelError(
                    f"tensor {tensor.name!r} stands at {position} but calls itself {tensor.index}"
                )
        self._check_order()
        inputs, outputs = frozenset(self.inputs), frozenset(self.outputs)
        for signature in self.signatures:
            for names, allowed, kind in (
                (signature.inputs, inputs, "input"),
                (signature.outputs, outputs, "output"),
            ):
                for name, index in names.items():
                    if index not in allowed:
                        raise ModelError(
                            f"signature {signature.key!r}: {kind} {name!r} is tensor {index}, "
                            f"which is not a graph {kind}"
                        )

    def _check_order(self) -> None:
        """Every tensor a layer reads must already exist: rules out cycles and dangling indices."""
        ready = {tensor.index for tensor in self.tensors if tensor.is_constant}
        for index in self.inputs:
            self._check_index(index, "graph input")
            if index in ready:
                raise ModelError(f"graph input {self.label(index)} is a constant or is listed twice")
            ready.add(index)
        for position, layer in enumerate(self.layers):
            where = f"layer {position} ({layer.op})"
            if layer.index != position:
                raise ModelError(f"{where} calls itself layer {layer.index}")
            for index in layer.inputs:
                if index == -1:
                    continue
                self._check_index(index, where)
                if index not in ready:
                    raise ModelError(
                        f"{where} reads {self.label(index)} before any layer produced it "
                        "(the graph is cyclic, out of order, or the tensor's data is missing)"
                    )
            for index in layer.intermediates:
                if index != -1:
                    self._check_index(index, where)
            for index in layer.outputs:
                self._check_index(index, where)
                if index in ready:
                    raise ModelError(f"{where} writes {self.label(index)}, which already has a value")
                ready.add(index)
        for index in self.outputs:
            self._check_index(index, "graph output")
            if index not in ready:
                raise ModelError(f"graph output {self.label(index)} is produced by no layer")

    def _check_index(self, index: int, where: str) -> None:
        if not 0 <= index < len(self.tensors):
            raise ModelError(f"{where} names tensor {index}; the graph has {len(self.tensors)} tensors")

    def label(self, index: int) -> str:
        """``tensor 7 ('conv/Relu')``, for messages."""
        return f"tensor {index} ({self.tensors[index].name!r})"

    def view(self, layer: Layer | int) -> LayerView:
        """The layer with its tensors resolved."""
        if isinstance(layer, int):
            layer = self.layers[layer]
        return LayerView(
            layer,
            tuple(None if index == -1 else self.tensors[index] for index in layer.inputs),
            tuple(self.tensors[index] for index in layer.outputs),
            tuple(None if index == -1 else self.tensors[index] for index in layer.intermediates),
        )

    def views(self) -> tuple[LayerView, ...]:
        """All layers with their tensors resolved, in order."""
        return tuple(self.view(layer) for layer in self.layers)


@dataclass(frozen=True)
class LayerView:
    """A layer and its tensors: all an op, a rule or a kernel needs to know."""

    layer: Layer
    inputs: tuple[Tensor | None, ...]
    outputs: tuple[Tensor, ...]
    intermediates: tuple[Tensor | None, ...] = ()

    @property
    def op(self) -> str:
        """The op's name in its format's own words (``CONV_2D``, ``QLinearConv``)."""
        return self.layer.op

    def __str__(self) -> str:
        name = self.outputs[0].name if self.outputs else "no output"
        return f"layer {self.layer.index} ({self.layer.op}, {name!r})"

    def input(self, position: int) -> Tensor:
        """Input ``position``, which must be present. Raises ModelError naming the layer."""
        if position >= len(self.inputs):
            raise ModelError(f"{self} has {len(self.inputs)} inputs; input {position} is missing")
        tensor = self.inputs[position]
        if tensor is None:
            raise ModelError(f"{self}: required input {position} is left out")
        return tensor

    def optional_input(self, position: int) -> Tensor | None:
        """Input ``position``, or None when it is absent."""
        return self.inputs[position] if position < len(self.inputs) else None

    def output(self, position: int = 0) -> Tensor:
        """Output ``position``. Raises ModelError naming the layer when it is missing."""
        if position >= len(self.outputs):
            raise ModelError(f"{self} has {len(self.outputs)} outputs; output {position} is missing")
        return self.outputs[position]

    def integer(self, name: str, default: int | None = None) -> int:
        """An integer attribute. Raises ModelError when it is absent and there is no default."""
        value = self.layer.attributes.get(name, default)
        if isinstance(value, bool) or not isinstance(value, int):
            raise ModelError(f"{self}: attribute {name!r} is {value!r}, not an integer")
        return value

    def real(self, name: str, default: float | None = None) -> float:
        """A real-valued attribute. Raises ModelError when it is absent and there is no default."""
        value = self.layer.attributes.get(name, default)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ModelError(f"{self}: attribute {name!r} is {value!r}, not a number")
        return float(value)

    def text(self, name: str, default: str | None = None) -> str:
        """A textual attribute (``padding``, ``activation``). Raises ModelError when absent."""
        value = self.layer.attributes.get(name, default)
        if not isinstance(value, str):
            raise ModelError(f"{self}: attribute {name!r} is {value!r}, not a word")
        return value

    def flag(self, name: str, default: bool = False) -> bool:
        """A boolean attribute."""
        value = self.layer.attributes.get(name, default)
        if not isinstance(value, bool):
            raise ModelError(f"{self}: attribute {name!r} is {value!r}, not true or false")
        return value

    def integers(self, name: str, default: Sequence[int] | None = None) -> tuple[int, ...]:
        """A tuple-of-integers attribute. Raises ModelError when it is absent and there is no default."""
        value = self.layer.attributes.get(name, None if default is None else tuple(default))
        if not isinstance(value, tuple) or any(isinstance(v, bool) or not isinstance(v, int) for v in value):
            raise ModelError(f"{self}: attribute {name!r} is {value!r}, not a list of integers")
        return tuple(int(v) for v in value)
