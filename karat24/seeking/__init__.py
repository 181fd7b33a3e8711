"""Inputs of a whole model on which many channels of many layers round at a threshold, or saturate."""

from karat24.seeking.search import Sought, seek
from karat24.seeking.ties import Coverage, Ties

__all__ = ["Coverage", "Sought", "Ties", "seek"]
