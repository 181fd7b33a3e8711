"""Which layers LiteRT 2.3's XNNPACK delegate takes; the rest run on the builtin kernels."""

from __future__ import annotations

from refimpl.graph import LayerView


def xnnpack_takes(view: LayerView) -> bool:
    """True when LiteRT 2.3.0 hands this quantized layer to XNNPACK (``_get_ops_details`` agrees)."""
    raise NotImplementedError
