"""Training data: simulated windows, or a user's HDF5 data set."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from karat24.refimpl.errors import UsageError
from karat24.tomography.imaging.dataset import read_dataset
from karat24.tomography.imaging.families import TRAINING_FAMILIES
from karat24.tomography.imaging.field.samples import TRAINING_KINDS
from karat24.tomography.imaging.field.scans import simulate_field
from karat24.tomography.imaging.simulate import simulate_slices

Float = NDArray[np.float32]

FIRST_SEED = 1000
"""The first seed of training; calibration has the seeds from 100 up to this one."""


def simulate(lots: list[tuple[int, int]], crop: int, seed: int, path: Path) -> None:
    """Simulates samples and keeps as many whole ``crop`` × ``crop`` windows of each as it holds.

    ``lots`` are pairs of a size in pixels and a number of samples; the samples are of the training families
    in turn. Writes ``noisy [window, y, x, 3]`` and ``clean [window, y, x]`` as float16, uncompressed.
    """
    noisy, clean = [], []
    for size, count in lots:
        for number in range(count):
            family = TRAINING_FAMILIES[number % len(TRAINING_FAMILIES)]
            sample = FIRST_SEED + seed + number // len(TRAINING_FAMILIES)
            scan = simulate_slices(family, size, sample, vary_grey=True)
            for y, x in corners(size, crop):
                noisy.append(scan.noisy[0, y : y + crop, x : x + crop].astype(np.float16))
                clean.append(scan.clean[0, y : y + crop, x : x + crop].astype(np.float16))
            if (number + 1) % 6 == 0:
                print(f"{size}: {number + 1}/{count} samples, {len(clean)} windows", flush=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, noisy=np.stack(noisy), clean=np.stack(clean))


def simulate_field_windows(
    count: int, size: int, seed: int, path: Path, kinds: Sequence[str] = TRAINING_KINDS
) -> None:
    """Simulates ``count`` windows of ``size`` × ``size`` under the conditions of the field. Every third
    window is of one of the older families, the others are of ``kinds`` in turn. Writes the arrays of
    :func:`simulate`."""
    noisy, clean = [], []
    for number in range(count):
        names = TRAINING_FAMILIES if number % 3 == 2 else kinds
        family = names[number // 3 % len(names)]
        scan = simulate_field(family, size, FIRST_SEED + seed + number, vary_grey=True)
        noisy.append(scan.noisy[0].astype(np.float16))
        clean.append(scan.clean[0].astype(np.float16))
        if (number + 1) % 20 == 0:
            print(f"field: {number + 1}/{count} windows", flush=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, noisy=np.stack(noisy), clean=np.stack(clean))


def corners(size: int, crop: int) -> list[tuple[int, int]]:
    """Corners ``(y, x)`` of the windows that fit side by side, centred. Raises UsageError if none does."""
    fit = size // crop
    if fit == 0:
        raise UsageError(f"a window of {crop} does not fit a sample of {size}; lower --crop")
    first = (size - fit * crop) // 2
    starts = [first + n * crop for n in range(fit)]
    return [(y, x) for y in starts for x in starts]


def load_all(paths: Sequence[Path]) -> tuple[Float, Float]:
    """The slices of all files, joined. Raises UsageError for slices of different sizes."""
    parts = [load(path) for path in paths]
    sizes = {clean.shape[1:] for _, clean in parts}
    if len(sizes) > 1:
        raise UsageError(f"{', '.join(map(str, paths))}: slices of different sizes, {sorted(sizes)}")
    if len(parts) == 1:
        return parts[0]
    return np.concatenate([noisy for noisy, _ in parts]), np.concatenate([clean for _, clean in parts])


def load(path: Path) -> tuple[Float, Float]:
    """``noisy [slice, y, x, 3]`` and ``clean [slice, y, x]``, float32.

    ``.npz`` files are those of :func:`simulate`. ``.h5`` and ``.hdf5`` files have the published layout, of
    which the training half is read. Raises UsageError or FeedError, in one line, for other files.
    """
    if path.suffix.lower() in (".h5", ".hdf5"):
        pairs = read_dataset(path, "train")
        windows = [pairs.window(int(centre)) for centre in pairs.centres()]
        return np.stack([noisy for noisy, _ in windows]), np.stack([clean for _, clean in windows])
    try:
        with np.load(path, allow_pickle=False) as archive:
            noisy, clean = archive["noisy"].astype(np.float32), archive["clean"].astype(np.float32)
    except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
        raise UsageError(
            f"{path}: no training data ({error}); make it with 'python -m training data'"
        ) from error
    if noisy.shape != (*clean.shape, 3) or clean.ndim != 3 or not len(clean):
        raise UsageError(
            f"{path}: noisy has shape {noisy.shape} and clean {clean.shape}; "
            "expected [slice, y, x, 3] and [slice, y, x]"
        )
    if not (np.isfinite(noisy).all() and np.isfinite(clean).all()):
        raise UsageError(f"{path}: holds NaN or infinity")
    return noisy, clean
