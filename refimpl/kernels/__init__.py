"""Fast implementations, op by op. Shares no code with ``refimpl.spec``."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from refimpl.contract import Prepare

KERNELS: Mapping[str, Prepare] = MappingProxyType({})
"""Op name to the function that prepares its kernel; an op missing here runs its spec."""
