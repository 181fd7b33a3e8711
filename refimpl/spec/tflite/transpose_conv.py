"""TRANSPOSE_CONV: each input value adds the filter times itself to the outputs it covers."""

from __future__ import annotations

import numpy as np

from karat24.refimpl.contract import SpecResult, Values
from karat24.refimpl.graph import Array, LayerView
from karat24.refimpl.profiles.rules import Rule
from karat24.refimpl.spec.shared.fused import fused_multiply_add
from karat24.refimpl.spec.shared.geometry import windows
from karat24.refimpl.spec.shared.requirements import (
    constant_integers,
    operand,
    require,
    require_arity,
    require_rank,
    require_shape,
)
from karat24.refimpl.spec.tflite.hybrid import finished, hybrid, is_hybrid, quantized_rows
from karat24.refimpl.spec.tflite.weights import finish, require_weighted, scales_of, zero_point_removed


def check_transpose_conv(view: LayerView) -> None:
    """Inputs: output shape (int32 ``[4]``, constant), filter OHWI, input ``[batch, y, x, channel]``,
    optional bias ``[O]``.

    The layer is the transpose of a convolution with an equal window, which must give exactly
    the input's size for an image of the output's size.
    """
    require_arity(view, 3, optional=1)
    filter_, input_, output = view.input(1), view.input(2), view.output()
    require(view, view.input(0).dtype == "int32", f"the output shape is {view.input(0).dtype}, not int32")
    for tensor in (filter_, input_, output):
        require_rank(view, tensor, 4)
    require_weighted(view, input_, filter_, view.optional_input(3), channel_axis=0)
    require(
        view,
        filter_.shape[3] == input_.shape[3],
        f"{input_.shape[3]} input channels, the filter takes {filter_.shape[3]}",
    )
    wanted = constant_integers(view, 0, "the output shape", (4,))
    require_shape(view, output, wanted)
    over_y, over_x = windows(view, output.shape, filter_.shape, dilated=False)
    require_shape(view, input_, (output.shape[0], over_y.output_size, over_x.output_size, input_.shape[3]))
    require_shape(view, output, (*wanted[:3], filter_.shape[0]))


def transpose_conv(view: LayerView, values: Values, rule: Rule) -> SpecResult:
    """Sums of products, requantized; of float32 data scaled (``hybrid``), or added up in float32."""
    if is_hybrid(view, data=2):
        if rule.method.startswith("row_terms"):
            return _added_in_float32(view, values, rule)
        return hybrid(view, values, rule, _products, data=2, bias=3)
    filter_, input_ = view.input(1), view.input(2)
    weights = zero_point_removed(filter_, operand(values, 1))
    products = _products(view, zero_point_removed(input_, operand(values, 2)), weights)
    return finish(view, input_, filter_, products, values[3] if len(values) > 3 else None, rule)


def _products(view: LayerView, data: Array, weights: Array) -> Array:
    """``acc[n, in_y * stride - pad + filter_y, ...] += input[n, in_y, ...] @ filter[:, filter_y, ...]``.

    The padding is that of the convolution (see the check), whose outputs are this layer's
    inputs.
    """
    filter_, output = view.input(1), view.output()
    _, filter_height, filter_width, _ = filter_.shape
    over_y, over_x = windows(view, output.shape, filter_.shape, dilated=False)

    products = np.zeros(output.shape, np.int64)
    for filter_y in range(filter_height):
        in_y, out_y = over_y.taken(filter_y)
        for filter_x in range(filter_width):
            in_x, out_x = over_x.taken(filter_x)
            spread = data[:, in_y][:, :, in_x] @ weights[:, filter_y, filter_x, :].T
            products[:, out_y[:, None], out_x] += spread
    return products


def _added_in_float32(view: LayerView, values: Values, rule: Rule) -> SpecResult:
    """Each product times the filter's scale, then times its image's step, is added to the output in float32;
    with ``row_terms_fused`` the last two are one fused multiply-add.

    The kernel walks over the input in its order of storage: an output pixel meets the taps from the last to
    the first, and for each of them the input channels. Source: TFLite ``HybridTransposeConv``.
    """
    filter_, output = view.input(1), view.output()
    data, weights = operand(values, 2), operand(values, 1).astype(np.int64)
    rows = quantized_rows(view, data.reshape(len(data), -1), rule.rows)
    centred, steps = rows.centred.reshape(data.shape), rows.steps[:, None, None, None]
    scales = np.array(scales_of(filter_), np.float32)
    _, filter_height, filter_width, channels = filter_.shape
    over_y, over_x = windows(view, output.shape, filter_.shape, dilated=False)

    total = np.zeros(output.shape, np.float32)
    for filter_y in reversed(range(filter_height)):
        in_y, out_y = over_y.taken(filter_y)
        for filter_x in reversed(range(filter_width)):
            in_x, out_x = over_x.taken(filter_x)
            for channel in range(channels):
                seen = centred[:, in_y][:, :, in_x][..., channel, None]
                terms = (seen * weights[:, filter_y, filter_x, channel]).astype(np.float32)
                before = total[:, out_y[:, None], out_x]
                if rule.method == "row_terms_fused":
                    after = fused_multiply_add(terms * scales, np.broadcast_to(steps, terms.shape), before)
                else:
                    after = before + terms * scales * steps
                total[:, out_y[:, None], out_x] = after
    return finished(view, total, values[3] if len(values) > 3 else None, _products(view, centred, weights))
