"""The lowest op version that expresses a layer, so that the oldest runtime able to run a file accepts it.

The facts are those of TensorFlow's ``lite/tools/versioning/op_version.cc`` (2.19). An op
version says which revision of the op a runtime must know: new element types, new
options or optional inputs raised it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from karat24.refimpl.graph import LayerView

VersionRule: TypeAlias = Callable[[LayerView], int]


def always(version: int) -> VersionRule:
    """A rule that gives every layer one version."""
    return lambda _view: version


def by_type(position: int = 0, **versions: int) -> VersionRule:
    """The version that brought the element type of input ``position``; 1 for types not named."""

    def rule(view: LayerView) -> int:
        return versions.get(view.input(position).dtype, 1)

    return rule


def by_rank(lowest: int, raised: int, rule: VersionRule) -> VersionRule:
    """``raised`` from rank ``lowest`` up, else the version of ``rule``."""

    def ranked(view: LayerView) -> int:
        return raised if len(view.input(0).shape) >= lowest else rule(view)

    return ranked


def by_broadcast(raised: int, rule: VersionRule) -> VersionRule:
    """``raised`` where inputs of more than four dimensions broadcast, else the version of ``rule``."""

    def broadcast(view: LayerView) -> int:
        left, right = view.input(0).shape, view.input(1).shape
        return raised if left != right and max(len(left), len(right)) > 4 else rule(view)

    return broadcast


def _hybrid(view: LayerView) -> bool:
    """Float activations with int8 weights, quantized on the fly."""
    return view.input(0).dtype == "float32" and view.input(1).dtype == "int8"


def _per_channel(view: LayerView) -> bool:
    quantization = view.input(1).quantization
    return quantization is not None and quantization.per_channel


def _quantized_bias(view: LayerView) -> bool:
    types = view.input(0).dtype, view.input(1).dtype
    return types == ("int16", "int8") and view.text("quantized_bias_type", "float32") != "float32"


def convolution(view: LayerView) -> int:
    """CONV_2D: int8 is 3, groups are 6, hybrid is 2 or (per channel) 5."""
    if _quantized_bias(view):
        return 8
    if view.input(0).shape[-1:] != view.input(1).shape[-1:]:
        return 6
    if _hybrid(view):
        return 5 if _per_channel(view) else 2
    return {"int16": 4, "int8": 3}.get(view.input(0).dtype, 1)


def depthwise(view: LayerView) -> int:
    """DEPTHWISE_CONV_2D: int8 is 3, dilation is 2, hybrid is 4 or (per channel) 6."""
    if _hybrid(view):
        return 6 if _per_channel(view) else 4
    dilated = view.integer("dilation_w_factor", 1) != 1 or view.integer("dilation_h_factor", 1) != 1
    return {"int16": 5, "int8": 3}.get(view.input(0).dtype, 2 if dilated else 1)


def batch_matmul(view: LayerView) -> int:
    """BATCH_MATMUL: int8 is 2, int16 is 3, hybrid is 1 or (asymmetric) 4."""
    if _hybrid(view):
        return 4 if view.flag("asymmetric_quantize_inputs") else 1
    return {"int8": 2, "int16": 3}.get(view.input(0).dtype, 1)


def svdf(view: LayerView) -> int:
    """SVDF: int8 is 3, hybrid is 2 or (asymmetric) 4."""
    if view.input(0).dtype == "int8":
        return 3
    if _hybrid(view):
        return 4 if view.flag("asymmetric_quantize_inputs") else 2
    return 1


def _hybrid_lstm(view: LayerView) -> bool:
    return view.input(0).dtype == "float32" and view.input(2).dtype == "int8"


def lstm(view: LayerView) -> int:
    """LSTM: the basic kernel is 2, hybrid is 3 or (asymmetric) 4."""
    if view.text("kernel_type", "FULL") == "BASIC":
        return 2
    return 3 + view.flag("asymmetric_quantize_inputs") if _hybrid_lstm(view) else 1


def sequence_lstm(view: LayerView) -> int:
    """UNIDIRECTIONAL_SEQUENCE_LSTM: hybrid is 2 or (asymmetric) 3, diagonal recurrent weights are 4."""
    if view.flag("diagonal_recurrent_tensors"):
        return 4
    return 2 + view.flag("asymmetric_quantize_inputs") if _hybrid_lstm(view) else 1


def fully_connected(view: LayerView) -> int:
    """FULLY_CONNECTED: int8 is 4, keep_num_dims is 5, an input list without a bias is 6."""
    if _hybrid(view) and _per_channel(view):
        return 12
    if _quantized_bias(view):
        return 11
    if view.input(0).dtype == "int16":
        return 7
    if len(view.inputs) == 2:
        return 6
    if view.flag("keep_num_dims"):
        return 5
    if view.input(0).dtype == "int8":
        return 4
    if _hybrid(view):
        return 9 if view.flag("asymmetric_quantize_inputs") else 3
    return 2 if view.text("weights_format", "DEFAULT") != "DEFAULT" else 1


def transpose_conv(view: LayerView) -> int:
    """TRANSPOSE_CONV: int8 is 2, a bias is 3, a fused activation is 4."""
    if view.input(2).dtype == "int16" and view.text("quantized_bias_type", "float32") != "float32":
        return 5
    if view.text("fused_activation_function", "NONE") != "NONE":
        return 4
    if view.optional_input(3) is not None:
        return 3
    return 2 if view.input(1).dtype == "int8" else 1


def resize_bilinear(view: LayerView) -> int:
    """RESIZE_BILINEAR: half_pixel_centers is 3, int8 is 2."""
    if view.input(0).dtype == "int16":
        return 4
    if view.flag("half_pixel_centers"):
        return 3
    return 2 if view.input(0).dtype == "int8" else 1


def resize_nearest(view: LayerView) -> int:
    """RESIZE_NEAREST_NEIGHBOR: half_pixel_centers or align_corners is 3, int8 is 2."""
    if view.input(0).dtype == "int16":
        return 4
    if view.flag("half_pixel_centers") or view.flag("align_corners"):
        return 3
    return 2 if view.input(0).dtype == "int8" else 1


def multiplication(view: LayerView) -> int:
    """MUL: a product of input scales not below the output's is 3, int8 is 2."""
    dtype, tensors = view.input(0).dtype, (view.input(0), view.input(1), view.output())
    quantized = all(tensor.quantization is not None for tensor in tensors)
    if dtype == "uint32" or (dtype == "int16" and not quantized):
        return 7
    if dtype in ("int64", "int16"):
        return {"int64": 5, "int16": 4}[dtype]
    if quantized and tensors[0].scale * tensors[1].scale / tensors[2].scale >= 1.0:
        return 3
    return 2 if dtype == "int8" else 1


def addition(view: LayerView) -> int:
    """ADD: int8 is 2; int16 is 3 with general scales, 5 unquantized."""
    tensor = view.input(0)
    if tensor.dtype == "int16":
        if tensor.quantization is None:
            return 5
        return 1 if view.flag("pot_scale_int16", True) else 3
    return {"int64": 4, "int8": 2}.get(tensor.dtype, 1)


def _subtraction(view: LayerView) -> int:
    tensor = view.input(0)
    if tensor.dtype == "int16":
        return 1 if view.flag("pot_scale_int16", True) else 5
    return {"int64": 4, "int8": 2}.get(tensor.dtype, 1)


subtraction = by_broadcast(3, _subtraction)


def gather(view: LayerView) -> int:
    """GATHER: int8 is 2, bool 3, int16 4, batch_dims 5, int16 indices 6."""
    if view.input(1).dtype == "int16":
        return 6
    if view.integer("batch_dims", 0) != 0:
        return 5
    return {"int16": 4, "bool": 3, "int8": 2}.get(view.input(0).dtype, 1)


def strided_slice(view: LayerView) -> int:
    """STRIDED_SLICE: int8 is 2, bool 3, more than 4 dimensions 4, ellipsis or new axes 6, offset 8."""
    if view.flag("offset"):
        return 8
    tensor = view.input(0)
    if tensor.dtype == "uint32":
        return 7
    if view.integer("ellipsis_mask", 0) or view.integer("new_axis_mask", 0):
        return 6
    if len(tensor.shape) > 4:
        return 4
    return {"bool": 3, "int8": 2}.get(tensor.dtype, 1)


def space_batch(view: LayerView) -> int:
    """SPACE_TO_BATCH_ND and BATCH_TO_SPACE_ND: other than 4 dimensions is 3, int8 is 2."""
    if view.input(0).dtype == "int16":
        return 4
    if len(view.input(0).shape) != 4:
        return 3
    return 2 if view.input(0).dtype == "int8" else 1


def dequantize(view: LayerView) -> int:
    """DEQUANTIZE: int8 is 2, int16 and float16 3, int8 per channel 5."""
    tensor = view.input(0)
    if tensor.dtype == "int8":
        return 5 if tensor.quantization is not None and tensor.quantization.per_channel else 2
    return {"int16": 3, "float16": 3}.get(tensor.dtype, 1)


def quantize(view: LayerView) -> int:
    """QUANTIZE: int16 outputs are 2, per channel is 3."""
    quantization = view.output().quantization
    if quantization is not None and quantization.per_channel:
        return 3
    return 2 if view.output().dtype == "int16" else 1


def absolute(view: LayerView) -> int:
    """ABS: int8 and uint8 are 2, int16 quantized 3 or not 4, int32 5."""
    tensor = view.input(0)
    if tensor.dtype == "int16":
        return 4 if tensor.quantization is None else 3
    return {"int32": 5, "int8": 2, "uint8": 2}.get(tensor.dtype, 1)


def cast(view: LayerView) -> int:
    """CAST: the newer of the two element types decides."""
    types = {view.input(0).dtype, view.output().dtype}
    for version, names in ((5, {"float64", "float16"}), (4, {"uint16"}), (3, {"int8"}), (2, {"uint32"})):
        if types & names:
            return version
    return 1


def select(view: LayerView) -> int:
    """SELECT: five dimensions are 3, int8 is 2."""
    if view.input(0).dtype == "uint32":
        return 4
    if any(tensor is not None and len(tensor.shape) == 5 for tensor in view.inputs[:3]):
        return 3
    return 2 if view.input(0).dtype == "int8" else 1


def topk(view: LayerView) -> int:
    """TOPK_V2: int8 is 2, int16 anywhere is 3."""
    if "int16" in (view.input(0).dtype, view.input(1).dtype, view.output(1).dtype):
        return 3
    return 2 if view.input(0).dtype == "int8" else 1
