"""How ONNX Runtime walks through two tensors that broadcast."""

from __future__ import annotations


def left_is_scalar(left: tuple[int, ...], right: tuple[int, ...]) -> bool:
    """True when the innermost loop meets one value of ``left`` and many of ``right``.

    That is decided by the innermost axis along which either tensor has more than one value.
    """
    rank = max(len(left), len(right))
    padded = [(1,) * (rank - len(shape)) + tuple(shape) for shape in (left, right)]
    for a, b in zip(reversed(padded[0]), reversed(padded[1]), strict=True):
        if (a, b) != (1, 1):
            return a == 1
    return False
