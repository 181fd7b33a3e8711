"""The layers that multiply by a filter, and where their inputs stand."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True)
class AffineLayer:
    """Positions of a layer's activation, filter and optional bias; ``channel_axis`` is the filter's axis of
    output channels."""

    input: int
    filter: int
    bias: int
    channel_axis: int = 0


AFFINE_LAYERS: Mapping[str, AffineLayer] = MappingProxyType(
    {
        "CONV_2D": AffineLayer(0, 1, 2),
        "DEPTHWISE_CONV_2D": AffineLayer(0, 1, 2, channel_axis=3),
        "TRANSPOSE_CONV": AffineLayer(2, 1, 3),
    }
)
"""Op name to its input positions. Adding an op here also needs its float ONNX in ``export/onnx``."""
