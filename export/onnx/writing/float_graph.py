"""Writing a float32 graph as ONNX.

TFLite graphs are NHWC; ONNX convolutions are NCHW. Every four-dimensional
activation is therefore stored as ``[batch, channel, y, x]`` in the ONNX file,
inputs and outputs included, under the name it has in the graph. Other
activations keep their layout. The file's ``layout`` metadata and its
description say so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np

from karat24.export.onnx.layout import TO_NCHW, onnx_names
from karat24.export.onnx.package import import_onnx
from karat24.refimpl.errors import ModelError, UnsupportedOp, UsageError
from karat24.refimpl.graph import Array, Graph, LayerView

OPSET = 17
IR_VERSION = 8
"""The oldest IR that carries opset 17: no runtime refuses it as too new."""


def write_float_onnx(graph: Graph, expose: Iterable[int] = ()) -> bytes:
    """The float32 ``graph`` as a serialized, checked ONNX model; equal graphs give equal bytes.

    ``expose`` lists indices of activations to be outputs too, after the graph's own and in the order
    given, under the names :func:`onnx_names` gives.

    Raises ModelError when the graph is not float32, UnsupportedOp for an op with no line in
    ``WRITERS``, UsageError when the onnx package is missing.
    """
    onnx = import_onnx()
    if graph.format != "tflite":
        raise ModelError(f"graph {graph.name!r} is {graph.format} already; only TFLite-style graphs convert")
    writer = _Writer(graph, onnx)
    for index in graph.inputs:
        if graph.tensors[index].dtype != "float32":
            raise ModelError(f"input {graph.label(index)} is {graph.tensors[index].dtype}, not float32")
    for view in graph.views():
        write = WRITERS.get(view.op)
        if write is None:
            raise UnsupportedOp(f"{view}: no float ONNX for {view.op}; add it to its WRITERS")
        if view.output().dtype != "float32":
            raise ModelError(f"{view} gives {view.output().dtype}: this graph is quantized, not float32")
        write(writer, view)

    outputs = list(graph.outputs)
    for index in expose:
        if not 0 <= index < len(graph.tensors) or graph.tensors[index].is_constant:
            raise UsageError(f"tensor {index} of {graph.name!r} is not an activation and cannot be exposed")
        if index not in outputs and index not in graph.inputs:
            outputs.append(index)
    model = onnx.helper.make_model(
        onnx.helper.make_graph(
            writer.nodes,
            graph.name,
            [writer.value_info(index) for index in graph.inputs],
            [writer.value_info(index) for index in outputs],
            initializer=writer.initializers,
        ),
        producer_name="karat24",
        ir_version=IR_VERSION,
        opset_imports=[onnx.helper.make_opsetid("", OPSET)],
        doc_string=f"{graph.description}. Four-dimensional tensors are NCHW.",
    )
    onnx.helper.set_model_props(model, {"layout": "NCHW"})
    onnx.checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString(deterministic=True))


class _Writer:
    """The ONNX nodes and initializers collected so far."""

    def __init__(self, graph: Graph, onnx: Any) -> None:
        self._onnx, self._graph = onnx, graph
        self.names = onnx_names(graph)
        self.nodes: list[Any] = []
        self.initializers: list[Any] = []
        self._stored: set[str] = set()

    def value_info(self, index: int) -> Any:
        """The declaration of an activation, in ONNX layout."""
        shape = self._graph.tensors[index].shape
        if len(shape) == 4:
            shape = tuple(shape[axis] for axis in TO_NCHW)
        return self._onnx.helper.make_tensor_value_info(
            self.names[index], self._onnx.TensorProto.FLOAT, shape
        )

    def input(self, view: LayerView, position: int) -> str:
        """Name of an activation the layer reads. Raises UnsupportedOp for a constant."""
        tensor = view.input(position)
        if tensor.is_constant:
            raise UnsupportedOp(f"{view}: input {position} ({tensor.name!r}) is a constant")
        return self.names[tensor.index]

    def constant(self, view: LayerView, position: int, order: Sequence[int] | None = None) -> str:
        """Stores a float32 constant, axes permuted to ``order``, and returns its name."""
        tensor = view.input(position)
        if tensor.data is None or tensor.dtype != "float32":
            raise UnsupportedOp(f"{view}: input {position} ({tensor.name!r}) is not a float32 constant")
        values = tensor.data if order is None else tensor.data.transpose(order)
        return self.store(self.names[tensor.index], values)

    def store(self, name: str, values: Array) -> str:
        """Stores an initializer once and returns its name."""
        if name not in self._stored:
            self._stored.add(name)
            contiguous = np.ascontiguousarray(values)
            self.initializers.append(self._onnx.numpy_helper.from_array(contiguous, name))
        return name

    def node(self, op: str, inputs: Sequence[str], output: str, **attributes: Any) -> None:
        """Appends a node named after its output."""
        self.nodes.append(self._onnx.helper.make_node(op, inputs, [output], name=output, **attributes))

    def activated(self, view: LayerView) -> str:
        """The name of the output of the layer's own node; :meth:`activate` appends the fused activation."""
        name = self.names[view.output().index]
        return name if _activation(view) == "NONE" else f"{name}/linear"

    def activate(self, view: LayerView) -> None:
        """Appends the fused activation, if there is one."""
        name, activation = self.names[view.output().index], _activation(view)
        if activation == "RELU":
            self.node("Relu", [f"{name}/linear"], name)
        elif activation in CLIPS:
            low, high = (self.store(f"clip/{v:g}", np.array(v, np.float32)) for v in CLIPS[activation])
            self.node("Clip", [f"{name}/linear", low, high], name)
        elif activation != "NONE":
            raise UnsupportedOp(f"{view}: no float ONNX for the fused activation {activation}")


CLIPS: Mapping[str, tuple[float, float]] = MappingProxyType(
    {"RELU6": (0.0, 6.0), "RELU_N1_TO_1": (-1.0, 1.0)}
)


def _activation(view: LayerView) -> str:
    return view.text("fused_activation_function", "NONE")


def _same_pads(view: LayerView, image: int, output: int, window: int, stride: int) -> tuple[int, int]:
    """Zeros before and after one axis. SAME: ``total = max((output - 1) * stride + window - image, 0)``,
    half of it, rounded down, before."""
    if view.text("padding") == "VALID":
        return 0, 0
    total = max((output - 1) * stride + window - image, 0)
    return total // 2, total - total // 2


def window_pads(
    view: LayerView, image: tuple[int, ...], output: tuple[int, ...], windows: Sequence[int]
) -> list[int]:
    """ONNX's ``[y before, x before, y after, x after]`` from NHWC shapes and (dilated) window sizes."""
    strides = (view.integer("stride_h"), view.integer("stride_w"))
    pads = [_same_pads(view, image[i], output[i], windows[i - 1], strides[i - 1]) for i in (1, 2)]
    return [pads[0][0], pads[1][0], pads[0][1], pads[1][1]]


def _write_conv(writer: _Writer, view: LayerView) -> None:
    """CONV_2D, OHWI to OIHW; DEPTHWISE_CONV_2D, ``[1, y, x, out]`` to ``[out, 1, y, x]``, is a convolution
    with a group for every input channel."""
    depthwise = view.op == "DEPTHWISE_CONV_2D"
    image, filter_, output = view.input(0).shape, view.input(1).shape, view.output().shape
    dilations = (view.integer("dilation_h_factor", 1), view.integer("dilation_w_factor", 1))
    windows = [(size - 1) * dilation + 1 for size, dilation in zip(filter_[1:3], dilations, strict=True)]
    inputs = [writer.input(view, 0), writer.constant(view, 1, (3, 0, 1, 2) if depthwise else TO_NCHW)]
    if view.optional_input(2) is not None:
        inputs.append(writer.constant(view, 2))
    writer.node(
        "Conv",
        inputs,
        writer.activated(view),
        kernel_shape=filter_[1:3],
        strides=(view.integer("stride_h"), view.integer("stride_w")),
        dilations=dilations,
        group=image[3] if depthwise else image[3] // filter_[3],
        pads=window_pads(view, image, output, windows),
    )
    writer.activate(view)


def transposed_geometry(view: LayerView) -> tuple[list[int], list[int]]:
    """ConvTranspose's ``pads`` and ``output_padding`` for a TRANSPOSE_CONV.

    ``out_y = in_y * stride - pad + filter_y`` in both formats; the padding is that of the
    convolution it transposes, from the output to the image.
    """
    filter_, image, output = view.input(1).shape, view.input(2).shape, view.output().shape
    strides = (view.integer("stride_h"), view.integer("stride_w"))
    pads = window_pads(view, output, image, filter_[1:3])
    # The pixels at the far end that strides and window do not reach.
    reach = [(image[i] - 1) * strides[i - 1] + filter_[i] - pads[i - 1] - pads[i + 1] for i in (1, 2)]
    output_padding = [output[i] - reach[i - 1] for i in (1, 2)]
    if not all(0 <= extra < stride for extra, stride in zip(output_padding, strides, strict=True)):
        raise UnsupportedOp(f"{view}: ONNX cannot give {output[1:3]} from {image[1:3]} with stride {strides}")
    return pads, output_padding


def _write_transpose_conv(writer: _Writer, view: LayerView) -> None:
    """OHWI becomes ONNX's [in, out, y, x]."""
    pads, output_padding = transposed_geometry(view)
    inputs = [writer.input(view, 2), writer.constant(view, 1, (3, 0, 1, 2))]
    if view.optional_input(3) is not None:
        inputs.append(writer.constant(view, 3))
    writer.node(
        "ConvTranspose",
        inputs,
        writer.activated(view),
        kernel_shape=view.input(1).shape[1:3],
        strides=(view.integer("stride_h"), view.integer("stride_w")),
        pads=pads,
        output_padding=output_padding,
    )
    writer.activate(view)


def _write_max_pool(writer: _Writer, view: LayerView) -> None:
    windows = (view.integer("filter_height"), view.integer("filter_width"))
    writer.node(
        "MaxPool",
        [writer.input(view, 0)],
        writer.activated(view),
        kernel_shape=windows,
        strides=(view.integer("stride_h"), view.integer("stride_w")),
        pads=window_pads(view, view.input(0).shape, view.output().shape, windows),
    )
    writer.activate(view)


def _write_mean(writer: _Writer, view: LayerView) -> None:
    """The mean over an image, its axes kept, is a global pool."""
    axes = view.input(1).data
    wanted = None if axes is None else {int(axis) % 4 for axis in axes.reshape(-1)}
    if len(view.input(0).shape) != 4 or wanted != {1, 2} or not view.flag("keep_dims"):
        raise UnsupportedOp(f"{view}: no float ONNX for a MEAN other than over height and width, kept")
    writer.node("GlobalAveragePool", [writer.input(view, 0)], writer.names[view.output().index])


def _write_add(writer: _Writer, view: LayerView) -> None:
    """ADD of two activations of one shape; broadcasting, which depends on the layouts, is refused."""
    if not view.input(0).shape == view.input(1).shape == view.output().shape:
        raise UnsupportedOp(f"{view}: no float ONNX for an ADD of different shapes")
    writer.node("Add", [writer.input(view, 0), writer.input(view, 1)], writer.activated(view))
    writer.activate(view)


def _write_resize_bilinear(writer: _Writer, view: LayerView) -> None:
    batch, height, width, channels = view.output().shape
    name = writer.names[view.output().index]
    if view.flag("align_corners"):
        mode = "align_corners"
    else:
        mode = "half_pixel" if view.flag("half_pixel_centers") else "asymmetric"
    sizes = writer.store(f"{name}/sizes", np.array([batch, channels, height, width], np.int64))
    writer.node(
        "Resize",
        [writer.input(view, 0), "", "", sizes],
        name,
        mode="linear",
        coordinate_transformation_mode=mode,
    )


def _write_concatenation(writer: _Writer, view: LayerView) -> None:
    rank = len(view.output().shape)
    axis = view.integer("axis") % rank
    inputs = [writer.input(view, position) for position in range(len(view.inputs))]
    writer.node("Concat", inputs, writer.activated(view), axis=TO_NCHW.index(axis) if rank == 4 else axis)
    writer.activate(view)


def _write_relu(writer: _Writer, view: LayerView) -> None:
    writer.node("Relu", [writer.input(view, 0)], writer.names[view.output().index])


WRITERS: Mapping[str, Callable[[_Writer, LayerView], None]] = MappingProxyType(
    {
        "ADD": _write_add,
        "CONV_2D": _write_conv,
        "DEPTHWISE_CONV_2D": _write_conv,
        "TRANSPOSE_CONV": _write_transpose_conv,
        "MAX_POOL_2D": _write_max_pool,
        "MEAN": _write_mean,
        "RESIZE_BILINEAR": _write_resize_bilinear,
        "CONCATENATION": _write_concatenation,
        "RELU": _write_relu,
    }
)
"""TFLite op to the function that writes it as float ONNX."""
