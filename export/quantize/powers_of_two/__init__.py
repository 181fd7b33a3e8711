"""Filters of powers of two, 2 to 9 bits: rounding, storage, and exact 8-bit networks of them."""

from karat24.export.quantize.powers_of_two.batch_norm import BatchNorm, fold
from karat24.export.quantize.powers_of_two.codes import FilterMemory, decode, encode, memory
from karat24.export.quantize.powers_of_two.integers import as_integers, spans, types_that_hold
from karat24.export.quantize.powers_of_two.model import (
    RoundedLayer,
    RoundedNetwork,
    quantize_rounded,
    round_network,
)
from karat24.export.quantize.powers_of_two.rounding import PowerFilter, PowersOfTwo, powers_for, round_filter
from karat24.export.quantize.powers_of_two.shift_add import shift_add

__all__ = [
    "BatchNorm",
    "FilterMemory",
    "PowerFilter",
    "PowersOfTwo",
    "RoundedLayer",
    "RoundedNetwork",
    "as_integers",
    "decode",
    "encode",
    "fold",
    "memory",
    "powers_for",
    "quantize_rounded",
    "round_filter",
    "round_network",
    "shift_add",
    "spans",
    "types_that_hold",
]
