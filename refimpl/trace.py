"""What one run computed, tensor by tensor."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from karat24.refimpl.graph import Array


@dataclass(frozen=True)
class Trace:
    """Values of a graph's tensors from one run of one producer.

    ``tensors`` maps a tensor index to its values; it holds graph inputs, layer
    outputs, and no constants. ``accumulators`` maps a layer index to the
    accumulators (int32, of int16 layers int64) before requantization, where they were asked for and the layer
    has them. ``rules`` maps a layer index to the rule that rounded it.
    ``producer`` is who computed it (``karat24`` or a delegate's name), ``profile``
    the arithmetic it claims or is expected to follow, ``versions`` the libraries
    involved.
    """

    producer: str
    profile: str
    tensors: Mapping[int, Array]
    accumulators: Mapping[int, Array] = field(default_factory=dict)
    rules: Mapping[int, str] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("tensors", "accumulators", "rules", "versions"):
            object.__setattr__(self, name, MappingProxyType(dict(getattr(self, name))))
