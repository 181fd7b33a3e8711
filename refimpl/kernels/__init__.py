"""Fast implementations, op by op. Shares no code with ``refimpl.spec``."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from refimpl.contract import Prepare
from refimpl.kernels.convolution import prepare_convolution
from refimpl.kernels.depthwise import prepare_depthwise
from refimpl.kernels.fully_connected import prepare_fully_connected
from refimpl.kernels.transposed import prepare_transposed

KERNELS: Mapping[str, Prepare] = MappingProxyType(
    {
        "CONV_2D": prepare_convolution,
        "DEPTHWISE_CONV_2D": prepare_depthwise,
        "FULLY_CONNECTED": prepare_fully_connected,
        "TRANSPOSE_CONV": prepare_transposed,
    }
)
"""Op name to the function that prepares its kernel; an op missing here runs its spec."""
