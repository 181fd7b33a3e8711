"""Filtered back projection: scikit-image's ``iradon`` with linear interpolation, fast.

    f(x, y) = π / (2·N) · Σ_θ q_θ(x·cos θ - y·sin θ)

where ``q_θ`` is the projection filtered in the Fourier domain and read with linear interpolation. The result
equals ``skimage.transform.iradon`` (0.26) within float32 rounding; only the order of the work differs. Image
tiles are independent and each pixel sums its angles in their order, so the bits do not depend on the number
of threads.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np
from numba import njit, prange

from karat24.refimpl.errors import UsageError
from karat24.refimpl.graph import Array
from karat24.tomography.imaging.geometry import check_sinogram, even_angles

FILTERS: Final = ("ramp", "shepp-logan", "cosine", "hamming", "hann", None)
"""Names of the filters, as in scikit-image; ``None`` back-projects unfiltered."""

_TILE_ROWS: Final = 16
_TILE_COLUMNS: Final = 62  # at most: a run of 62 positions stays within 2**6 bins
_FRACTION_BITS: Final = np.uint32(26)
_FRACTION_MASK: Final = np.uint32(2**26 - 1)
_ONE: Final = float(2**26)
_ULP: Final = np.float32(2.0**-26)
_GUARD: Final = 1  # zero bins before and behind each row, read with a weight of rounding error only


def fourier_filter(length: int, name: str | None) -> Array:
    """The filter on the ``length // 2 + 1`` frequencies of a real transform: float64, ramp is 2·|f|.

    The ramp is the transform of its band-limited impulse response (Kak & Slaney, chapter 3, equation 61),
    which keeps the mean right where sampling ``|f|`` itself would lose it.
    """
    if name not in FILTERS:
        raise UsageError(f"unknown filter {name!r}; choose one of {', '.join(map(str, FILTERS))}")
    half = length // 2
    if name is None:
        return np.ones(half + 1)
    impulse = np.zeros(length)
    impulse[0] = 0.25
    odd = np.arange(1, half + 1, 2)
    impulse[odd] = impulse[-odd] = -1.0 / (np.pi * odd) ** 2
    ramp = 2.0 * np.fft.rfft(impulse).real
    cycles = np.arange(half + 1) / length  # 0 … 1/2 cycles per bin
    if name == "shepp-logan":
        window = np.sinc(cycles)
    elif name == "cosine":
        window = np.cos(np.pi * cycles)
    elif name in ("hamming", "hann"):
        # scikit-image shifts NumPy's symmetric window of `length` points, whose middle falls between two
        # frequencies, so +f and -f weigh differently; taking the real part afterwards averages the two.
        shifted = np.fft.fftshift(np.hamming(length) if name == "hamming" else np.hanning(length))
        frequency = np.arange(half + 1)
        window = (shifted[frequency] + shifted[-frequency % length]) / 2.0
    else:
        window = np.ones(half + 1)
    return ramp * window


def filter_projections(sinogram: Array, name: str | None = "ramp", *, margin: int = 0) -> Array:
    """Filter each row: ``[angle, bin]`` real → ``[angle, bin + 2·margin]`` float64.

    ``margin`` bins are added on both sides; the object is zero there, the filtered rows are not. Rows are
    zero-padded to the power of two (at least 64) that holds twice their length, as ``iradon`` does.
    """
    bins = sinogram.shape[1] + 2 * margin
    length = max(64, 1 << math.ceil(math.log2(2 * bins)))
    response = fourier_filter(length, name)
    filtered = np.empty((len(sinogram), bins))
    step = max(1, 2**20 // length)  # a block of rows stays in the cache
    block = np.zeros((min(step, len(sinogram)), length))
    for first in range(0, len(sinogram), step):
        rows = sinogram[first : first + step]
        # The margin on the left is the padding's far end, read back by wrapping around.
        block[: len(rows), : sinogram.shape[1]] = rows
        result = np.fft.irfft(np.fft.rfft(block[: len(rows)]) * response, n=length)
        filtered[first : first + step, margin:] = result[:, : bins - margin]
        if margin:
            filtered[first : first + step, :margin] = result[:, -margin:]
    return filtered


@njit(cache=True, nogil=True, parallel=True)
def _back_project(
    rows: Array, bins: int, cosines: Array, sines: Array, size: int, circle: bool, scale: float
) -> Array:
    """Sum ``rows``, float32 ``[angle, guard + bins + guard]``, along their rays: float32 ``[size, size]``."""
    half = size // 2
    centre = bins // 2
    tiles_across = (size + _TILE_COLUMNS - 1) // _TILE_COLUMNS
    tile_columns = (size + tiles_across - 1) // tiles_across  # equal shares, so that no tile is a sliver
    tiles_down = (size + _TILE_ROWS - 1) // _TILE_ROWS
    image = np.zeros((size, size), np.float32)
    for tile in prange(tiles_across * tiles_down):
        row0 = (tile // tiles_across) * _TILE_ROWS
        column0 = (tile % tiles_across) * tile_columns
        height = min(_TILE_ROWS, size - row0)
        width = min(tile_columns, size - column0)
        if circle:
            near_x = max(column0 - half, half - (column0 + width - 1), 0)
            near_y = max(row0 - half, half - (row0 + height - 1), 0)
            if near_x * near_x + near_y * near_y > half * half:
                continue
        total = np.zeros((_TILE_ROWS, _TILE_COLUMNS), np.float32)
        for angle in range(len(rows)):
            projection = rows[angle]
            cosine = cosines[angle]
            sine = sines[angle]
            step = np.uint32(
                np.int64(np.floor(cosine * _ONE + 0.5)) & 0xFFFFFFFF
            )  # modulo 2**32: may be negative
            for row in range(height):
                y = row0 + row - half
                first = ((column0 - half) * cosine - y * sine) + centre
                last = ((column0 + width - 1 - half) * cosine - y * sine) + centre
                low = min(first, last)
                line = total[row]
                if low >= 0.0 and max(first, last) <= bins - 1:
                    # Positions count from the bin before the run's lowest, in fixed point: 62 columns reach
                    # less than 2**6 bins, so 26 bits of fraction fit, and 61 steps are off by 2**-21 at most.
                    # A position that rounds across either end reads a guard bin with a weight of that size.
                    nearby = projection[int(low) :]
                    offset = np.uint32((first - int(low) + 1.0) * _ONE + 0.5)
                    for column in range(width):
                        position = np.uint32(offset + np.uint32(column) * step)
                        index = np.uint32(position >> _FRACTION_BITS)
                        part = np.float32(np.int32(position & _FRACTION_MASK)) * _ULP
                        left = nearby[index]
                        line[column] += left + part * (nearby[np.uint32(index + np.uint32(1))] - left)
                else:
                    for column in range(width):
                        t = ((column0 + column - half) * cosine - y * sine) + centre
                        if 0.0 <= t <= bins - 1:
                            start = projection[_GUARD + int(t)]
                            slope = projection[_GUARD + int(t) + 1] - start
                            line[column] += start + np.float32(t - int(t)) * slope
        for row in range(height):
            for column in range(width):
                x = column0 + column - half
                y = row0 + row - half
                if not circle or x * x + y * y <= half * half:
                    image[row0 + row, column0 + column] = total[row, column] * np.float32(scale)
    return image


def back_project(
    projections: Array, degrees: Array, size: int, *, circle: bool = False, scale: float = 1.0
) -> Array:
    """Unfiltered back projection of ``[angle, bin]`` onto ``[size, size]`` float32.

    Between bins the projection is linear, outside the first and last bin's centre it is zero. With ``circle``
    pixels further than ``size // 2`` from the axis are zero. It is the exact transpose of
    :func:`karat24.tomography.imaging.projector.splat` (without ``circle``).
    """
    bins = projections.shape[1]
    rows = np.zeros((len(projections), bins + 2 * _GUARD), np.float32)
    rows[:, _GUARD : _GUARD + bins] = projections
    radians = np.deg2rad(degrees.astype(np.float64))
    result: Array = _back_project(rows, bins, np.cos(radians), np.sin(radians), size, circle, scale)
    return result


def fbp(
    sinogram: Array,
    degrees: Array | None = None,
    *,
    filter_name: str | None = "ramp",
    circle: bool = True,
    output_size: int | None = None,
) -> Array:
    """Filtered back projection of ``[angle, bin]`` → float32 ``[output_size, output_size]`` in 1/pixel.

    ``degrees`` (default: evenly over half a turn) gives each row's angle. With ``circle`` the image is as
    wide as the sinogram and zero outside the inscribed circle; without, it is the largest square inside.
    Equal to ``iradon(sinogram.T, degrees, output_size, filter_name, "linear", circle)``.

    Raises :class:`FeedError` for a sinogram that is not a finite ``[angle, bin]`` array matching ``degrees``,
    :class:`UsageError` for an unknown filter or an output size below 1.
    """
    sinogram = np.asarray(sinogram)
    degrees = even_angles(len(sinogram)) if degrees is None else np.asarray(degrees, np.float64)
    check_sinogram(sinogram, degrees)
    bins = sinogram.shape[1]
    if output_size is None:
        output_size = bins if circle else math.floor(math.sqrt(bins**2 / 2.0))
    if output_size < 1:
        raise UsageError(f"output_size is {output_size}; give at least 1 pixel")
    margin = 0
    if circle:
        # iradon widens to the diagonal around the same axis: rows are longer to the right by at most one bin.
        wide = math.ceil(math.sqrt(2.0) * bins)
        sinogram = np.pad(sinogram, ((0, 0), (wide // 2 - bins // 2, wide - bins - (wide // 2 - bins // 2))))
    filtered = filter_projections(sinogram, filter_name, margin=margin)
    return back_project(filtered, degrees, output_size, circle=circle, scale=math.pi / (2 * len(degrees)))
