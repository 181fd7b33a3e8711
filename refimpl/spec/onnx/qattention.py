"""QAttention (com.microsoft): multi-head attention whose queries, keys and values are one integer product.

``quantize_dynamic`` makes it of the Attention of a BERT or GPT model. The product is exact: int32 sums,
scaled and added to the bias as in MatMulIntegerToFloat. Scores, their softmax and the sums of values behind
it are float32 in an order that no document fixes. Source: ONNX Runtime 1.32.0, ``attention_quant.cc`` and
``attention_cpu_base.h``; what masks do was found by running it.
"""

from __future__ import annotations

import numpy as np

from karat24.refimpl.contract import SpecResult, Values
from karat24.refimpl.errors import UnsupportedOp
from karat24.refimpl.graph import Array, LayerView
from karat24.refimpl.profiles.rules import Rule
from karat24.refimpl.spec.onnx.parameters import affine_of, require_parameters
from karat24.refimpl.spec.onnx.sums import products, zero_of
from karat24.refimpl.spec.shared.fused import fused_multiply_add
from karat24.refimpl.spec.shared.primitives import wrap32
from karat24.refimpl.spec.shared.requirements import (
    QUANTIZED_8,
    operand,
    require,
    require_arity,
    require_dtype,
    require_elements,
    require_rank,
    require_shape,
)

MASK, PAST = 5, 8
"""Positions of the optional inputs that are no zero point."""


def check_qattention(view: LayerView) -> None:
    """Inputs: uint8 data ``[batch, step, depth]``, 8-bit weights ``[depth, 3 * width]`` of queries, keys and
    values, float32 bias, both scales, optional mask, zero points and past keys and values ``[2, batch, head,
    step, value]``. Outputs: ``[batch, step, width]``, and all keys and values, which a past needs. Attributes
    ``num_heads``, ``unidirectional``, ``scale``, ``mask_filter_value``."""
    require_arity(view, 5, min(max(len(view.outputs), 1), 2), optional=4)
    for name in ("do_rotary", "past_present_share_buffer"):
        if view.integer(name, 0):
            raise UnsupportedOp(f"{view}: {name} is not implemented")
    data, weights = view.input(0), view.input(1)
    require_dtype(view, data, ("uint8",))
    require_dtype(view, weights, QUANTIZED_8)
    require_rank(view, data, 3)
    require_rank(view, weights, 2)
    require_elements(view, data)
    batch, steps, depth = data.shape
    width, heads = weights.shape[1] // 3, view.integer("num_heads", 0)
    divides = heads >= 1 and width >= heads and width % heads == 0
    fits = divides and weights.shape == (depth, 3 * width)
    require(view, fits, f"{heads} heads, weights of {weights.shape} for data of {data.shape}")
    require_parameters(view, 3, 6, "uint8")
    require_parameters(view, 4, 7, weights.dtype, 3 * width)
    require_shape(view, view.input(2), (3 * width,))
    for tensor in (view.input(2), *view.outputs):
        require_dtype(view, tensor, ("float32",))
    require_shape(view, view.output(), (batch, steps, width))
    before = _check_past(view, (batch, heads, width // heads))
    if len(view.outputs) == 2:
        require_shape(view, view.output(1), (2, batch, heads, before + steps, width // heads))
    mask = view.optional_input(MASK)
    if mask is not None:
        require_dtype(view, mask, ("int32",))
        total = before + steps
        shapes = (batch,), (2 * batch,), (batch, 1), (1, 1), (batch, total), (batch, steps, total)
        require(view, mask.shape in shapes, f"a mask of shape {mask.shape} for data of {data.shape}")
    view.real("scale", 0.0)
    view.real("mask_filter_value", -10000.0)


def _check_past(view: LayerView, sizes: tuple[int, int, int]) -> int:
    """The steps before these; ``sizes`` are those of batch, heads and values."""
    past = view.optional_input(PAST)
    if past is None:
        return 0
    require_dtype(view, past, ("float32",))
    require_rank(view, past, 5)
    batch, heads, size = sizes
    require_shape(view, past, (2, batch, heads, past.shape[3], size))
    require(view, len(view.outputs) == 2, "a past without an output for all keys and values")
    return past.shape[3]


def projections(view: LayerView, values: Values, rule: Rule) -> tuple[Array, Array]:
    """Queries, keys and values ``[3, batch, step, width]``: ``f32(acc) * f32(s_x * s_w) + bias`` in float32,
    each step rounded, and with the last product and sum fused, as on some processors.

    ``rule`` says how the integers are summed.
    """
    data, weights = operand(values, 0).astype(np.int64), operand(values, 1).astype(np.int64)
    left = affine_of(view, values, 3, 6, "uint8")
    right = affine_of(view, values, 4, 7, view.input(1).dtype)
    acc = wrap32(products(rule, data, zero_of(left), weights, right.zero_point)).astype(np.float32)
    bias = np.broadcast_to(operand(values, 2), acc.shape)
    with np.errstate(over="ignore", invalid="ignore"):
        scale = np.broadcast_to(left.scale * right.scale, acc.shape)
        return _three(acc * scale + bias), _three(fused_multiply_add(acc, scale, bias))


def _three(columns: Array) -> Array:
    """``[..., 3 * width]`` as ``[3, ..., width]``."""
    return np.moveaxis(columns.reshape(*columns.shape[:-1], 3, -1), -2, 0)


def by_heads(view: LayerView, columns: Array) -> Array:
    """``[..., batch, step, width]`` as ``[..., batch, head, step, value]``."""
    heads = view.integer("num_heads")
    return np.moveaxis(columns.reshape(*columns.shape[:-1], heads, -1), -2, -3)


def with_past(values: Values, kept: Array) -> Array:
    """Keys and values ``[2, batch, head, step, value]`` behind those of the steps before."""
    past = values[PAST] if len(values) > PAST else None
    return kept if past is None else np.concatenate([past, kept], axis=3)


def factor_of(view: LayerView) -> np.float32:
    """What scores are multiplied with: ``scale``, or one over the root of a head's size."""
    given = np.float32(view.real("scale", 0.0))
    size = view.output().shape[-1] // view.integer("num_heads")
    return given if given != 0 else np.float32(1) / np.sqrt(np.float32(size))


def mask_of(view: LayerView, values: Values) -> tuple[Array, Array]:
    """What is added to scores, and which do not count at all: ``[batch, 1, step, past and step]`` both.

    The mask lists the positions to be seen, or where those end, or where they end and where they begin; one
    of a single column is none. With ``unidirectional`` no step sees a later one.
    """
    batch, steps, _ = view.input(0).shape
    given, past = view.optional_input(MASK), view.optional_input(PAST)
    total = steps + (0 if past is None else past.shape[3])
    seen = np.ones((batch, 1, total), bool)
    if given is not None:
        mask, positions = operand(values, MASK), np.arange(total)
        if mask.ndim == 1:
            ends, starts = mask[:batch], mask[batch:] if mask.size == 2 * batch else np.zeros(batch)
            seen = ((positions < ends[:, None]) & (positions >= starts[:, None]))[:, None]
        elif mask.shape[-1] > 1:
            seen = (mask > 0).reshape(batch, -1, total)
    filtered = np.float32(view.real("mask_filter_value", -10000.0))
    added = np.broadcast_to(np.where(seen, np.float32(0), filtered)[:, None], (batch, 1, steps, total))
    later = np.zeros((steps, total), bool)
    if view.integer("unidirectional", 0):
        later = np.arange(total) > np.arange(total - steps, total)[:, None]
    return added.astype(np.float64), np.broadcast_to(later, added.shape)


def qattention(view: LayerView, values: Values, rule: Rule) -> SpecResult:
    """``softmax(factor * q @ k.T + mask) @ v`` per head in float64, rounded once; keys and values besides."""
    queries, *kept = by_heads(view, projections(view, values, rule)[0])
    present = with_past(values, np.stack(kept))
    keys, weighed = present.astype(np.float64)
    added, later = mask_of(view, values)
    with np.errstate(all="ignore"):
        scores = float(factor_of(view)) * (queries.astype(np.float64) @ np.swapaxes(keys, -1, -2)) + added
        scores = np.where(later, -np.inf, scores)
        weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
        mean = weights @ weighed / weights.sum(axis=-1, keepdims=True)
    result = np.moveaxis(mean, 1, 2).reshape(view.output().shape).astype(np.float32)
    return SpecResult((result, present) if len(view.outputs) == 2 else (result,))
