"""Requantization as data: where, over all accumulators a layer can have, its outputs step."""

from karat24.refimpl.staircase.reach import Reach, reach
from karat24.refimpl.staircase.requantization import Requantization, requantization
from karat24.refimpl.staircase.tables import Table, table
from karat24.refimpl.staircase.thresholds import Staircase, staircase

__all__ = [
    "Reach",
    "Requantization",
    "Staircase",
    "Table",
    "reach",
    "requantization",
    "staircase",
    "table",
]
