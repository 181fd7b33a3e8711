"""Pictures of slices: before, after, and the difference, as a scientist looks for structure in it."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np

from karat24.refimpl.errors import UsageError
from karat24.refimpl.graph import Array
from karat24.tomography.scan.files import write_whole
from karat24.tomography.scan.greyscale import Greyscale
from karat24.tomography.scan.manifest import Manifest
from karat24.tomography.scan.outputs.encoding import shown
from karat24.tomography.scan.work import Worker

LARGEST = 512
AMPLIFIED = 4.0
"""How much stronger the difference is shown than the slices are."""


def triptych(before: Array, after: Array, scale: Greyscale, masked: Array) -> Array:
    """Before, after and their difference side by side, uint8 ``[y, 3·x]``; mid-grey: no difference.

    Slices are float64 ``[y, x]`` in the volume's unit; of large ones, evenly spaced pixels are shown.
    """
    step = max(1, -(-max(before.shape) // LARGEST))
    first, second, hidden = (image[::step, ::step] for image in (before, after, masked))
    greys = [scale.grey(np.where(hidden, scale.low, image)).astype(np.float64) for image in (first, second)]
    panels = [*greys, 0.5 + AMPLIFIED * (greys[1] - greys[0])]
    return np.concatenate([_pixels(panel) for panel in panels], axis=1)


def _pixels(grey: Array) -> Array:
    return np.clip(np.rint(grey * 255.0), 0, 255).astype(np.uint8)


def png(pixels: Array) -> bytes:
    """A grey picture ``[y, x]`` as a PNG file. Raises UsageError without Pillow."""
    buffer = io.BytesIO()
    _pillow().fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def _pillow() -> Any:
    try:
        from PIL import Image
    except ImportError as error:
        raise UsageError("pictures need Pillow: pip install 'karat24[scan]'") from error
    return Image


def picture_of(worker: Worker, index: int, stored: Array) -> bytes:
    """The PNG of a slice of the input and what was stored for it, ``[y, x]``."""
    manifest = worker.manifest
    measured = worker.volume.read(index)
    masked = np.zeros(measured.shape, bool) if manifest.mask is None else manifest.mask.of(measured)
    after = shown(stored, manifest.encoding)
    return png(triptych(measured.astype(np.float64), after, manifest.scale, masked))


def write_preview(manifest: Manifest, index: int, path: Path) -> None:
    """Restores one slice and writes its picture."""
    worker = Worker(manifest)
    write_whole(path, picture_of(worker, index, worker.restore(index).stored))
