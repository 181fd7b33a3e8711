"""Pictures inside a page: PNG files as data URIs, and drawings as SVG."""

from __future__ import annotations

import base64
import html
import struct
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from karat24.refimpl.graph import Array

BARS = 41
"""Differences from -20 to 20 LSBs have a bar each; what lies beyond is counted in the outermost ones."""


def png_uri(pixels: Array) -> str:
    """uint8 ``[y, x, 1 or 3]`` as a data URI of a PNG file (W3C PNG, second edition, sections 9 to 11)."""
    height, width, channels = pixels.shape
    header = struct.pack(">IIBBBBB", width, height, 8, 0 if channels == 1 else 2, 0, 0, 0)
    rows = b"".join(b"\0" + row.tobytes() for row in np.ascontiguousarray(pixels))
    chunks = _chunk(b"IHDR", header) + _chunk(b"IDAT", zlib.compress(rows, 9)) + _chunk(b"IEND", b"")
    return "data:image/png;base64," + base64.b64encode(b"\x89PNG\r\n\x1a\n" + chunks).decode()


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def difference_picture(expected: Array, found: Array) -> Array:
    """Found minus expected as uint8 ``[y, x, 3]``: red where it is higher, blue where lower."""
    delta = (found.astype(np.int16) - expected.astype(np.int16)).mean(axis=2)
    shade = np.rint(255 - 255 * np.abs(delta) / max(1.0, float(np.abs(delta).max()))).astype(np.uint8)
    white = np.full_like(shade, 255)
    up = delta[..., np.newaxis] > 0
    return np.where(up, np.stack([white, shade, shade], 2), np.stack([shade, shade, white], 2))


def similarity(expected: Array, found: Array) -> float | None:
    """Structural similarity of two pictures (Wang et al. 2004); None without scikit-image."""
    try:
        from skimage.metrics import structural_similarity
    except ImportError:
        return None
    similar: Any = structural_similarity  # it has no types
    return float(similar(expected, found, channel_axis=2, data_range=255))


def histogram_svg(histogram: Mapping[int, int], label: str) -> str:
    """Bars of signed differences in LSBs, logarithmic, zero left out; '' where nothing differs by steps."""
    reach = min(BARS // 2, max((abs(step) for step, count in histogram.items() if count and step), default=0))
    if not reach:
        return ""
    bars = dict.fromkeys(range(-reach, reach + 1), 0)
    for step, count in histogram.items():
        if step:
            bars[max(-reach, min(reach, step))] += count
    most = np.log1p(max(bars.values()))
    width, parts = 320 / len(bars), []
    for position, (step, count) in enumerate(bars.items()):
        height = 80 * float(np.log1p(count) / most)
        beyond = " or beyond" if abs(step) == reach == BARS // 2 else ""
        parts.append(
            f'<rect class="{"up" if step > 0 else "down"}" x="{position * width:.1f}" y="{90 - height:.1f}" '
            f'width="{max(width - 1, 1):.1f}" height="{height:.1f}">'
            f"<title>{step:+d}{beyond}: {count}</title></rect>"
        )
    marks = "".join(
        f'<text x="{(step + reach + 0.5) * width:.1f}" y="104" text-anchor="middle">{step:+d}</text>'
        for step in sorted({-reach, reach})
    )
    said = ", ".join(f"{step:+d}: {count}" for step, count in bars.items() if count)
    return (
        f'<svg class="chart" viewBox="-14 0 348 110" role="img" aria-label="{html.escape(label)}: {said}">'
        f'{"".join(parts)}<line x1="0" x2="320" y1="90" y2="90"/>{marks}</svg>'
    )


def heat_svg(counts: Sequence[Sequence[int]], label: str, side: float = 320) -> str:
    """A map of counts, darker for more; '' where nothing is counted."""
    most = max((count for row in counts for count in row), default=0)
    if not most:
        return ""
    cell = side / max(len(counts[0]), len(counts))
    parts = []
    for y, row in enumerate(counts):
        for x, count in enumerate(row):
            if count:
                strength = 0.15 + 0.85 * count / most
                parts.append(
                    f'<rect x="{x * cell:.2f}" y="{y * cell:.2f}" width="{cell:.2f}" height="{cell:.2f}" '
                    f'fill-opacity="{strength:.2f}"><title>row {y}, column {x}: {count}</title></rect>'
                )
    width, height = cell * len(counts[0]), cell * len(counts)
    return (
        f'<svg class="heat" preserveAspectRatio="xMinYMin" viewBox="0 0 {width:.2f} {height:.2f}" role="img" '
        f'aria-label="{html.escape(label)}, most {most}">'
        f'<rect class="ground" width="{width:.2f}" height="{height:.2f}"/>{"".join(parts)}</svg>'
    )
