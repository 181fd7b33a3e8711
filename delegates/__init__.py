"""Real runtimes behind one protocol."""

from __future__ import annotations

from karat24.delegates.protocol import Delegate, DelegateRun, Model, Probe, Tensors
from karat24.delegates.table import DELEGATES, delegate_named, delegate_names

__all__ = [
    "DELEGATES",
    "Delegate",
    "DelegateRun",
    "Model",
    "Probe",
    "Tensors",
    "delegate_named",
    "delegate_names",
]
