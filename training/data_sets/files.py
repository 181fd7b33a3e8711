"""The error for a missing data set, and reading texts and pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from karat24.refimpl.errors import UsageError


def missing(name: str, folder: Path, wanted: str, source: str) -> UsageError:
    """The error for a missing data set: what was looked for, and where it can be had."""
    return UsageError(f"{name}: {folder} holds no {wanted}; get it from {source}")


def read_text(path: Path) -> str:
    """A text file. Raises UsageError naming it."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: {error}") from None


def read_bytes(path: Path) -> bytes:
    """A file's content. Raises UsageError naming it."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path}: {error}") from None


def read_picture(path: Path, mode: str) -> NDArray[np.uint8]:
    """A picture in a mode of Pillow. In mode ``L`` a picture with a palette gives the numbers that its pixels
    have in that, not the brightness of their colours. Raises UsageError for any other file, or
    without Pillow."""
    try:
        from PIL import Image
    except ImportError:
        raise UsageError("pictures need Pillow: pip install 'karat24[image]'") from None
    try:
        with Image.open(path) as picture:
            as_it_is = picture.mode == mode or (picture.mode == "P" and mode == "L")
            return np.asarray(picture if as_it_is else picture.convert(mode), np.uint8)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise UsageError(f"{path}: not a readable picture: {error}") from None
