"""Convolutions that a file describes in integers and ONNX Runtime leaves in float."""

from __future__ import annotations

import numpy as np

from karat24.refimpl.graph import Array, Graph, LayerView

DEQUANTIZE = "DequantizeLinear"
CONVOLUTIONS = ("Conv", "com.microsoft:FusedConv")


def why_left_in_float(graph: Graph, view: LayerView) -> str:
    """What of its bias keeps a convolution of ``graph``, the layers that run, in float; '' elsewhere.

    An integer bias is added to sums of products, so its scale must be the product of the scales of input
    and filter. ONNX Runtime 1.31 and 1.32 let it differ by a hundredth and a millionth, in float32.
    """
    if view.op not in CONVOLUTIONS or len(view.inputs) < 3:
        return ""
    scales = [_scale(graph, None if tensor is None else tensor.index) for tensor in view.inputs[:3]]
    image, filter_, bias = scales
    if image is None or filter_ is None or bias is None:
        return ""
    products = np.broadcast_to(image * filter_, np.broadcast_shapes(filter_.shape, bias.shape))
    steps = np.broadcast_to(bias, products.shape)
    misfits = np.abs(steps - products) > np.float32(1e-6) + np.float32(0.01) * products
    if not misfits.any():
        return ""
    channel = int(np.argmax(misfits))
    where = f", channel {channel}" if products.size > 1 else ""
    return (
        f"the file describes integers, and the runtime leaves the layer in float: its bias "
        f"{view.input(2).name!r} counts in steps of {steps[channel]:.6g}, its products in "
        f"{products[channel]:.6g}{where}; requantize the bias with the product of both scales"
    )


def _scale(graph: Graph, tensor: int | None) -> Array | None:
    """The constant scales of the DequantizeLinear that writes a tensor, as a list."""
    for layer in graph.layers:
        if layer.op == DEQUANTIZE and tensor in layer.outputs:
            data = graph.tensors[layer.inputs[1]].data
            return None if data is None else np.asarray(data, np.float32).reshape(-1)
    return None
