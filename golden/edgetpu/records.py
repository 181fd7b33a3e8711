"""Parameters of layers without a filter: records of 64 bytes that serve four channels each.

A record holds four 32-bit values and 48 zero bytes. Softmax has, per four classes, a record of zeros,
another of zeros, and one of the input's scale, and a last record of 1; lanes beyond the classes hold -0
and the scale times the largest float32 instead, so that they vanish. A product or sum with a constant
per channel has one record per four channels.
"""

from __future__ import annotations

import numpy as np

from karat24.golden.edgetpu.arithmetic import reciprocal
from karat24.golden.edgetpu.structure import last_size
from karat24.refimpl.graph import Array, LayerView, Tensor

CHANNELS_PER_RECORD = 4


def softmax_records(view: LayerView) -> bytes:
    """The records of SOFTMAX as compilers of 2020 and 2021 write them; others keep none."""
    classes, scale = last_size(view.input(0)), np.float32(view.input(0).scale)
    zeros = _records(np.zeros(classes, "<f4"), -0.0)
    beyond = scale * np.finfo(np.float32).max
    scales = _records(np.full(classes, scale, "<f4"), float(beyond))
    return zeros + zeros + scales + _records(np.ones(1, "<f4"), 0.0)


def factor_records(view: LayerView, constant: Tensor, operand: Tensor) -> bytes:
    """The records of MUL by a constant per channel: what one multiplies the other operand by, float32."""
    values = np.float32(constant.scale) * _centred(constant).astype(np.float32)
    factors = values * np.float32(operand.scale) * reciprocal(view.output())
    return _records(factors.astype("<f4"), 0.0)


def summand_records(constant: Tensor, operand: Tensor, sign: int) -> bytes:
    """The records of ADD or SUB of a constant per channel, in steps of the other operand, int32."""
    steps = np.rint(float(constant.scale) * _centred(constant) / float(operand.scale))
    return _records((sign * steps).astype("<i4"), 0.0)


def _centred(constant: Tensor) -> Array:
    assert constant.data is not None
    values: Array = constant.data.reshape(-1).astype(np.int64) - constant.zero_point
    return values


def _records(values: Array, beyond: float) -> bytes:
    """``values`` [channel] in records; ``beyond`` fills up the last one's lanes."""
    count = -(-values.size // CHANNELS_PER_RECORD)
    records = np.zeros((count, 16), values.dtype)
    lanes = np.full(count * CHANNELS_PER_RECORD, beyond, values.dtype)
    lanes[: values.size] = values
    records[:, :CHANNELS_PER_RECORD] = lanes.reshape(count, CHANNELS_PER_RECORD)
    return records.tobytes()
