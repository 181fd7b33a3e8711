"""Sums of products with powers of two, by shifts and additions alone.

The definition that every integer form is held against: slow, plain, and of any exponent span. Where int64
could overflow, Python's integers of any size are summed.
"""

from __future__ import annotations

import numpy as np

from karat24.export.quantize.powers_of_two.integers import least_exponents
from karat24.export.quantize.powers_of_two.rounding import PowerFilter
from karat24.refimpl.errors import ModelError
from karat24.refimpl.graph import Array


def shift_add(rows: Array, filter_: PowerFilter) -> tuple[Array, Array]:
    """Sums of ``x * w`` for integer inputs ``[row, term]`` and a filter ``[out_channel, term]``.

    Returns the sums ``[row, out_channel]`` in units of ``2^e`` and ``e`` of each output channel, its least
    exponent present. The sums are int64, or Python integers (dtype object) where they could leave it.
    Raises ModelError when the numbers of terms differ or the inputs are not integers.
    """
    if rows.dtype.kind not in "iu" or rows.ndim != 2 or rows.shape[1:] != filter_.signs.shape[1:]:
        raise ModelError(f"inputs {rows.dtype} {list(rows.shape)} for a filter {list(filter_.signs.shape)}")
    least = least_exponents(filter_, 0)
    shifts = np.where(filter_.signs != 0, filter_.exponents - least[:, None], 0)
    reach = int(np.abs(rows.astype(np.int64)).max(initial=0)) * rows.shape[1] << int(shifts.max(initial=0))
    dtype = np.dtype(np.int64) if reach < 2**63 else np.dtype(object)
    terms = rows.astype(dtype)
    sums = np.zeros((len(rows), len(least)), dtype)
    for channel, (signs, places) in enumerate(zip(filter_.signs, shifts, strict=True)):
        for term, (sign, place) in enumerate(zip(signs.tolist(), places.tolist(), strict=True)):
            if sign > 0:
                sums[:, channel] += terms[:, term] << place
            elif sign < 0:
                sums[:, channel] -= terms[:, term] << place
    return sums, least
