"""Goldens: what a model computed once, as a text file in git, and whether it still does."""

from karat24.golden.goldens.capture import Captured, capture
from karat24.golden.goldens.changes import changes
from karat24.golden.goldens.check import GoldenCheck, check, check_recorded
from karat24.golden.goldens.files import find_goldens, read_golden, write_golden
from karat24.golden.goldens.manifest import Golden

__all__ = [
    "Captured",
    "Golden",
    "GoldenCheck",
    "capture",
    "changes",
    "check",
    "check_recorded",
    "find_goldens",
    "read_golden",
    "write_golden",
]
