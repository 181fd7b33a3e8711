"""Raw scans: projections, flat and dark fields and angles, in DXchange and NXtomo files."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from karat24.refimpl.errors import FeedError
from karat24.refimpl.graph import Array
from karat24.tomography.scan.volumes.hdf5 import image_key_of, opened

PROJECTION, FLAT, DARK = 0, 1, 2
"""NXtomo's ``image_key``; 3 marks frames that are not used."""


@dataclass(frozen=True)
class RawScan:
    """An open scan. ``frames`` is ``[frame, y, x]``, read where it is indexed; ``views`` are the frames that
    are projections. ``flat`` and ``dark`` are means over their frames, float64 ``[y, x]``. ``degrees`` is the
    angle of each view."""

    kind: str
    frames: Any
    views: Array
    flat: Array
    dark: Array
    degrees: Array

    @property
    def rows(self) -> int:
        """Rows of the detector, each of which becomes a slice."""
        return int(self.frames.shape[1])

    def counts(self, first: int, stop: int) -> Array:
        """Views of rows ``first`` to ``stop - 1``, float64 ``[view, y, x]``."""
        block = self.frames[:, first:stop, :]
        counts: Array = block[self.views].astype(np.float64)
        return counts


@contextmanager
def opened_scan(path: Path) -> Iterator[RawScan]:
    """Opens a scan. Raises FeedError for a file that is not a raw scan, or lacks a part of one."""
    with opened(path) as file:
        try:
            yield _nxtomo(path, file) if image_key_of(file) else _dxchange(path, file)
        except (OSError, KeyError, TypeError, AttributeError) as error:
            raise FeedError(
                f"{path}: cannot be read as a raw scan ({' '.join(str(error).split())}); it needs "
                "exchange/data, data_white and data_dark (DXchange), or an image_key beside the data "
                "(NXtomo)"
            ) from error


def _dxchange(path: Path, file: Any) -> RawScan:
    group = file["exchange"]
    frames = _three_dimensional(path, group["data"])
    degrees = _degrees(group["theta"]) if "theta" in group else np.arange(len(frames)) * 180.0 / len(frames)
    return _checked(
        path, "DXchange", frames, np.arange(len(frames)), _mean(path, group["data_white"], frames),
        _mean(path, group["data_dark"], frames), np.asarray(degrees, np.float64),
    )  # fmt: skip


def _nxtomo(path: Path, file: Any) -> RawScan:
    key_path = image_key_of(file) or ""
    keys, entry = file[key_path][()], file[key_path.split("/")[0]]
    frames = _three_dimensional(path, file[f"{key_path.rsplit('/', 1)[0]}/data"])
    if keys.shape != (len(frames),):
        raise FeedError(f"{path}: image_key has shape {keys.shape} for {len(frames)} frames")
    angles = _degrees(entry["sample/rotation_angle"])
    views = np.flatnonzero(keys == PROJECTION)
    flat, dark = (_mean(path, frames, frames, keys == key) for key in (FLAT, DARK))
    return _checked(path, "NXtomo", frames, views, flat, dark, angles[views])


def _three_dimensional(path: Path, data: Any) -> Any:
    if len(data.shape) != 3 or 0 in data.shape:
        raise FeedError(f"{path}: the data have shape {data.shape}; expected [view, y, x]")
    return data


def _degrees(angles: Any) -> Array:
    """Angles in degrees, float64; radians where the array's ``units`` say so, as both formats allow."""
    units = angles.attrs.get("units", "")
    text = units.decode("utf-8", "replace") if isinstance(units, bytes) else str(units)
    values = np.asarray(angles[()], np.float64)
    return np.rad2deg(values) if text.strip().lower().startswith("rad") else values


def _mean(path: Path, data: Any, frames: Any, chosen: Array | None = None) -> Array:
    """The mean of fields, one at a time."""
    numbers = range(len(data)) if chosen is None else np.flatnonzero(chosen)
    if not len(numbers) or data.shape[1:] != frames.shape[1:]:
        raise FeedError(f"{path}: no flat or dark fields of the projections' size; reconstruction needs both")
    total = np.zeros(data.shape[1:])
    for number in numbers:
        total += data[int(number)]
    return total / len(numbers)


def _checked(
    path: Path, kind: str, frames: Any, views: Array, flat: Array, dark: Array, degrees: Array
) -> RawScan:
    if len(views) < 2 or degrees.shape != views.shape or not np.isfinite(degrees).all():
        raise FeedError(
            f"{path}: {len(views)} views and {degrees.size} angles; each view has one finite angle"
        )
    return RawScan(kind, frames, views, flat, dark, degrees)
