"""RESIZE_BILINEAR: all coordinate modes, up and down, whole and broken factors."""

from __future__ import annotations

from collections.abc import Iterator

from tests.cases.case import Case
from tests.cases.single_layer import Feed, Result, indices, noise, ramp, single_layer

MODES = ((False, False), (True, False), (False, True))
SIZES = (
    ((2, 3), (4, 6)),
    ((8, 8), (16, 16)),
    ((7, 5), (21, 15)),
    ((3, 4), (10, 7)),
    ((9, 11), (4, 5)),
    ((16, 16), (8, 8)),
    ((5, 5), (5, 5)),
    ((1, 1), (4, 3)),
    ((6, 7), (1, 1)),
    ((1, 8), (1, 19)),
    ((13, 17), (29, 31)),
)
CHANNELS = (1, 3, 8, 15, 16, 17, 33)


def cases() -> list[Case]:
    return [*every_size(), *every_tail(), *steep()]


def _case(
    dtype: str,
    size: tuple[int, int],
    out: tuple[int, int],
    channels: int,
    mode: tuple[bool, bool],
    edge: str,
    steep: bool = False,
) -> Case:
    align, half = mode
    shape = (2, *size, channels)
    data = ramp(shape, dtype, step=127) if steep else noise(shape, dtype, size[0] * 31 + channels)
    zero_point = 5 if dtype == "int8" else 131
    return single_layer(
        f"resize_bilinear-{dtype}-align{align:d}-half{half:d}",
        edge,
        "RESIZE_BILINEAR",
        [Feed(data, 0.0625, zero_point), indices(*out)],
        [Result((2, *out, channels), dtype, 0.0625, zero_point)],
        align_corners=align,
        half_pixel_centers=half,
    )


def every_size() -> Iterator[Case]:
    for dtype in ("int8", "uint8"):
        for mode in MODES:
            for size, out in SIZES:
                yield _case(dtype, size, out, 3, mode, f"{size} to {out}")


def every_tail() -> Iterator[Case]:
    for dtype in ("int8", "uint8"):
        for mode in MODES:
            for channels in CHANNELS:
                for size, out in (((4, 5), (8, 10)), ((5, 4), (7, 9))):
                    yield _case(dtype, size, out, channels, mode, f"{size} to {out}, {channels} channels")


def steep() -> Iterator[Case]:
    """Neighbours at opposite ends of the range: doubling puts results on halves of either sign."""
    for dtype in ("int8", "uint8"):
        for mode in MODES:
            for factor in (2, 4, 8):
                size, out = (9, 9), (9 * factor, 9 * factor)
                yield _case(dtype, size, out, 2, mode, f"steep, times {factor}", steep=True)
