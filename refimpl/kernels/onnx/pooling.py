"""MaxPool of int8 and uint8, by the NHWC pool."""

from __future__ import annotations

from karat24.refimpl.contract import Kernel, Target
from karat24.refimpl.graph import LayerView
from karat24.refimpl.kernels.images.pooling import prepare_padded_max_pool
from karat24.refimpl.kernels.onnx.images import ImageKernel, nhwc_layer, tensor
from karat24.refimpl.kernels.onnx.parameters import window
from karat24.refimpl.profiles.rules import EXACT, Rule


def prepare_max_pool_nchw(view: LayerView, rule: Rule, target: Target) -> Kernel | None:
    """MaxPool of bytes over two spatial axes, without dilation; the padding is left out."""
    data, output = view.input(0), view.output()
    if output.dtype not in ("int8", "uint8") or len(data.shape) != 4:
        return None
    if view.integers("dilations", (1, 1)) != (1, 1):
        return None
    kernel = view.integers("kernel_shape")
    over = window(view, (kernel[0], kernel[1]))
    batch, channels, in_height, in_width = data.shape
    _, _, height, width = output.shape
    layer = nhwc_layer(
        "MAX_POOL_2D", [tensor(0, (batch, in_height, in_width, channels), data.dtype)],
        tensor(1, (batch, height, width, channels), output.dtype),
        {
            "stride_h": over.strides[0], "stride_w": over.strides[1],
            "filter_height": kernel[0], "filter_width": kernel[1], "fused_activation_function": "NONE",
        },
    )  # fmt: skip
    return ImageKernel(prepare_padded_max_pool(layer, EXACT, target, over.before), (0,))
