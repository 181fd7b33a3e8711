"""TomoGAN data sets: HDF5 files with ``train_ns``, ``train_gt``, ``test_ns`` and ``test_gt``.

The published layout, read as it is: each data set ``N×H×W``, uint8, ``ns`` noisy and ``gt`` clean, slices in
order of height. A network sees three adjacent noisy slices and restores the middle one, so ``N`` slices give
``N - 2`` windows. Files written here hold many samples behind one another and say so in the root attribute
``slices_per_sample``; other readers may ignore it (they then also see a few windows across two samples).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from karat24.refimpl.errors import FeedError, UsageError
from karat24.refimpl.graph import Array
from karat24.tomography.imaging.normalize import Normalization, from_bytes, to_bytes
from karat24.tomography.imaging.simulate import WINDOW, Stack

NAMES: Final = ("train_ns", "train_gt", "test_ns", "test_gt")
SMALLEST_SIDE: Final = 64
"""Images narrower than one training patch are refused."""

_GROUP_ATTRIBUTE: Final = "slices_per_sample"


@dataclass(frozen=True)
class Pairs:
    """One half of a data set: ``noisy`` and ``clean`` grey, float32 ``[N, H, W]`` (0 black, 1 white), in runs
    of ``group`` adjacent slices of one sample."""

    noisy: Array
    clean: Array
    group: int

    def centres(self) -> Array:
        """Indices of the slices that have a neighbour of the same sample on both sides: int64."""
        index = np.arange(len(self.noisy))
        place = index % self.group
        last = np.minimum(index - place + self.group, len(self.noisy)) - 1  # the last group may be short
        centres: Array = index[(place > 0) & (index < last)]
        return centres

    def window(self, centre: int) -> tuple[Array, Array]:
        """The input ``[H, W, 3]`` around a slice and its target ``[H, W]``."""
        if centre not in self.centres():
            raise UsageError(f"slice {centre} has no neighbours on both sides; choose one of Pairs.centres()")
        return self.noisy[centre - 1 : centre + 2].transpose(1, 2, 0), self.clean[centre]


def read_dataset(path: str | Path, half: str = "train", *, first: int = 0, count: int | None = None) -> Pairs:
    """Read ``<half>_ns`` and ``<half>_gt``, ``half`` being "train" or "test".

    ``first`` and ``count`` select slices; the rest is not loaded. uint8 is divided by 255; other numbers are
    brought to grey by the percentiles of the noisy slices (see :class:`Normalization`), clean ones alike.

    Raises :class:`UsageError` if the file cannot be opened, :class:`FeedError` if its content is not such a
    data set: truncated, a name missing, wrong dimensions, images too small, NaN. Each in one line.
    """
    if half not in ("train", "test"):
        raise UsageError(f"half is {half!r}; choose train or test")
    path = Path(path)
    with _open(path) as file:
        noisy_set, clean_set = (_array(file, path, f"{half}_{kind}") for kind in ("ns", "gt"))
        if noisy_set.shape != clean_set.shape:
            raise FeedError(
                f"{path}: {half}_ns has shape {noisy_set.shape} but {half}_gt {clean_set.shape}; "
                "every noisy slice needs its clean one"
            )
        slices = len(noisy_set)
        stop = slices if count is None else first + count
        if not 0 <= first < stop <= slices:
            raise UsageError(
                f"{path}: slices {first} to {stop - 1} asked for; {half}_ns holds 0 to {slices - 1}"
            )
        group = _group(file, path, slices)
        if first % group and group < slices:
            raise UsageError(f"{path}: first is {first}; samples start at multiples of {group}")
        noisy, clean = (_read(s, path, slice(first, stop)) for s in (noisy_set, clean_set))
    if noisy.dtype == np.uint8 and clean.dtype == np.uint8:
        return Pairs(from_bytes(noisy), from_bytes(clean), min(group, len(noisy)))
    try:
        scale = Normalization.of(noisy)
    except FeedError as error:
        raise FeedError(f"{path}: {half}_ns: {error}") from error
    return Pairs(scale.grey(noisy), scale.grey(clean), min(group, len(noisy)))


def write_dataset(path: str | Path, train: Sequence[Stack], test: Sequence[Stack]) -> None:
    """Write stacks (all of one shape) in the published layout, uint8, losslessly compressed.

    Grey is clipped to 0 … 1. Raises :class:`FeedError` for stacks that differ in shape or are missing.
    """
    path = Path(path)
    h5py = _h5py()
    shapes = {stack.noisy.shape for stack in (*train, *test)}
    if not train or not test or len(shapes) != 1:
        raise FeedError(
            f"{path}: got {len(train)} training and {len(test)} test stacks of shapes {sorted(shapes)}; "
            "give at least one of each, all of one shape"
        )
    slices = next(iter(shapes))[0]
    with h5py.File(path, "w") as file:
        file.attrs[_GROUP_ATTRIBUTE] = slices
        for half, stacks in (("train", train), ("test", test)):
            for kind, images in (("ns", [s.noisy for s in stacks]), ("gt", [s.clean for s in stacks])):
                pixels = to_bytes(np.concatenate(images))
                chunk = (1, *pixels.shape[1:])
                file.create_dataset(f"{half}_{kind}", data=pixels, chunks=chunk, compression="gzip")


def _h5py() -> Any:
    try:
        import h5py
    except ImportError as error:
        raise UsageError("reading and writing HDF5 needs h5py: pip install 'karat24[image]'") from error
    return h5py


@contextmanager
def _open(path: Path) -> Iterator[Mapping[str, Any]]:
    h5py = _h5py()
    if not path.is_file():
        raise UsageError(f"{path}: no such file; give an HDF5 file with {', '.join(NAMES)}")
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise FeedError(
            f"{path}: not a whole HDF5 file ({_one_line(error)}); copy or download it again"
        ) from error
    with file:
        yield file


def _array(file: Mapping[str, Any], path: Path, name: str) -> Any:
    """The named data set, its shape and type checked."""
    h5py = _h5py()
    if name not in file:
        there = ", ".join(sorted(file)) or "nothing"
        raise FeedError(f"{path}: no data set named {name!r}; the file holds {there}")
    array = file[name]
    if not isinstance(array, h5py.Dataset):
        raise FeedError(f"{path}: {name!r} is a group; expected a data set N×H×W")
    if array.ndim != 3:
        raise FeedError(f"{path}: {name} has shape {array.shape}; expected three dimensions, N×H×W")
    if array.dtype.kind not in "uif":
        raise FeedError(f"{path}: {name} has type {array.dtype}; expected uint8 or other real numbers")
    if array.shape[0] < WINDOW:
        raise FeedError(f"{path}: {name} holds {array.shape[0]} slices; one window takes {WINDOW}")
    if min(array.shape[1:]) < SMALLEST_SIDE:
        raise FeedError(
            f"{path}: {name} has images of {array.shape[1]}×{array.shape[2]}; "
            f"at least {SMALLEST_SIDE}×{SMALLEST_SIDE} are needed"
        )
    return array


def _read(array: Any, path: Path, wanted: slice) -> Array:
    name = array.name.lstrip("/")
    try:
        values: Array = array[wanted]
    except OSError as error:
        raise FeedError(
            f"{path}: {name} cannot be read ({_one_line(error)}); copy or download it again"
        ) from error
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        place = tuple(int(i) for i in np.argwhere(~np.isfinite(values))[0])
        bad = int(values.size - np.count_nonzero(np.isfinite(values)))
        raise FeedError(
            f"{path}: {name} holds {bad} values that are NaN or infinite, the first at slice "
            f"{place[0] + wanted.start}, row {place[1]}, column {place[2]}; replace them"
        )
    return values


def _group(file: Any, path: Path, slices: int) -> int:
    """Slices in a run of adjacent ones: the attribute where there is one, else all."""
    if _GROUP_ATTRIBUTE not in file.attrs:
        return slices
    stored = np.asarray(file.attrs[_GROUP_ATTRIBUTE])
    if stored.shape != () or stored.dtype.kind not in "iu" or stored < WINDOW:
        raise FeedError(
            f"{path}: attribute {_GROUP_ATTRIBUTE} is {stored}; expected an integer of at least {WINDOW}"
        )
    return int(stored)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
