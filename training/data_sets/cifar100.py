"""CIFAR-100: 50,000 training and 10,000 test images of 32×32 in 100 classes.

Both published forms are read: ``cifar-100-binary/train.bin`` (records of coarse label, fine label, and 3,072
bytes, planes of red, green and blue) and ``cifar-100-python/train`` (a pickle, of which only arrays, lists
and bytes are loaded, so that a forged one runs no code).

Source of the formats: https://www.cs.toronto.edu/~kriz/cifar.html.
"""

from __future__ import annotations

import codecs
import io
import pickle
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from karat24.refimpl.errors import UsageError
from training.data_sets.files import missing, read_bytes

SIDE, CLASSES = 32, 100
PIXELS = 3 * SIDE * SIDE
RECORD = 2 + PIXELS
SOURCE = "https://www.cs.toronto.edu/~kriz/cifar.html (cifar-100-binary.tar.gz or cifar-100-python.tar.gz)"


def read_cifar100(
    folder: Path, part: Literal["train", "test"]
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Images ``[number, 32, 32, 3]`` in 0 … 1 and fine labels from ``folder``, or the published folder in it.

    Raises UsageError for a data set that is missing or damaged."""
    for place in (folder, folder / "cifar-100-binary", folder / "cifar-100-python"):
        if (place / f"{part}.bin").is_file():
            pixels, labels = _records(place / f"{part}.bin")
            break
        if (place / part).is_file():
            pixels, labels = _pickled(place / part)
            break
    else:
        raise missing("CIFAR-100", folder, f"{part}.bin and no file {part}", SOURCE)
    if labels.size and (labels.min() < 0 or labels.max() >= CLASSES):
        raise UsageError(
            f"{place}: fine labels from {labels.min()} to {labels.max()}, not 0 to {CLASSES - 1}"
        )
    images = pixels.reshape(-1, 3, SIDE, SIDE).transpose(0, 2, 3, 1).astype(np.float32) / np.float32(255)
    return np.ascontiguousarray(images), labels


def _records(path: Path) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    content = read_bytes(path)
    if not content or len(content) % RECORD:
        raise UsageError(f"{path}: {len(content)} bytes are not a whole number of records of {RECORD}")
    records = np.frombuffer(content, np.uint8).reshape(-1, RECORD)
    return records[:, 2:], records[:, 1].astype(np.int64)


def _pickled(path: Path) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    try:
        found = _ArraysOnly(io.BytesIO(read_bytes(path)), encoding="bytes").load()
        pixels = np.asarray(found[b"data"])
        labels = np.asarray(found[b"fine_labels"])
        if labels.dtype.kind not in "ui" or labels.ndim != 1:
            raise TypeError(f"its labels are {labels.dtype} {list(labels.shape)}")
        labels = labels.astype(np.int64)
    except UsageError:
        raise
    except Exception as error:  # noqa: BLE001 - a damaged pickle raises anything
        raise UsageError(f"{path}: not a pickle of CIFAR-100: {type(error).__name__}: {error}") from None
    if pixels.dtype != np.uint8 or pixels.shape != (len(labels), PIXELS):
        raise UsageError(f"{path}: {pixels.dtype} {list(pixels.shape)} for {len(labels)} labels")
    return pixels, labels


class _ArraysOnly(pickle.Unpickler):
    """Only finds the classes that NumPy arrays are made of."""

    def find_class(self, module: str, name: str) -> Any:
        if module in ("numpy.core.multiarray", "numpy._core.multiarray") and name == "_reconstruct":
            return np.empty(0).__reduce__()[0]  # the module has another name in NumPy 1
        if module == "numpy" and name in ("ndarray", "dtype"):
            return getattr(np, name)
        if (module, name) == ("_codecs", "encode"):
            return codecs.encode
        raise pickle.UnpicklingError(f"it asks for {module}.{name}")
