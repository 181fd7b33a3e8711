"""The onnx package, an optional dependency, which is only imported when a file is read or written."""

from __future__ import annotations

from typing import Any

from karat24.refimpl.errors import UsageError


def import_onnx() -> Any:
    """The ``onnx`` module. Raises UsageError, which says how to get the package, when it is not installed."""
    try:
        import onnx
    except ImportError as missing:
        raise UsageError("ONNX files need the onnx package: pip install 'karat24[onnx]'") from missing
    return onnx
