"""The cause of a difference: which single mistake in a layer gives every value found."""

from __future__ import annotations

from karat24.golden.attribution.result import Attribution, Cause, WorstValue
from karat24.golden.attribution.search import Search

__all__ = ["Attribution", "Cause", "Search", "WorstValue"]
