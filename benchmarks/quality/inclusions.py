"""Counting small bright and dark inclusions that a restoration keeps, loses and invents.

A bright inclusion is an island of the slice seen as a landscape: a connected region of at most ``LARGEST``
pixels that is higher than everything around it. Its prominence is its height above the level at which it
would be larger, which is the part that an area opening removes (Vincent, "Grayscale area openings and
closings", 1993). Edges, fringes and bends, however steep, are not islands. A dark inclusion is a bright one
of the negative. The slice is first smoothed a little, so that single pixels do not count.

An island counts if its prominence reaches a threshold on at least ``SMALLEST`` pixels. All restorations of a
slice have one threshold, which follows from the clean image: ``SPREAD · robust deviation of the fine
detail``, clamped to ``LEAST`` … ``MOST``, so that a material's own texture is not counted.

An inclusion of the clean slice is *kept* if the restoration has, somewhere on it, an island with half the
threshold or more, and *lost* otherwise. *Invented* inclusions are lost ones with the two images exchanged.
Half the threshold, and islands up to ``NEAR`` times larger, suffice, so that an inclusion that just passes in
one image and just fails in the other is neither lost nor invented.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit
from scipy import ndimage

from karat24.refimpl.graph import Array

SMOOTHING = 0.8
"""Width of the Gaussian, pixels."""

SMALLEST, LARGEST = 4, 200
"""Areas in pixels; a round inclusion is about 2 to 16 pixels across."""

NEAR = 3
LEAST, MOST = 0.08, 0.2
SPREAD = 5.0
FINE = 5.0
"""The width in pixels of a Gaussian; fine detail is what it removes."""

LEVELS = 1000
"""Levels of the landscape per unit of grey."""

POLARITIES = ("bright", "dark")
CONNECTED = np.ones((3, 3), bool)


@dataclass(frozen=True)
class Counts:
    """Inclusions of one polarity: ``present`` in the clean image, of them ``lost``, and ``invented``."""

    present: int
    lost: int
    invented: int

    @property
    def kept(self) -> int:
        """Spots of the clean image that the restoration shows."""
        return self.present - self.lost


@dataclass(frozen=True)
class Places:
    """Centres ``[n, 2]`` (y, x): all inclusions of the clean image, those lost, and those invented."""

    present: Array
    lost: Array
    invented: Array


@dataclass(frozen=True)
class Islands:
    """Each pixel's prominence as a part of an island, grey ``[y, x]``: in small islands, and in larger
    ones."""

    small: Array
    larger: Array

    @staticmethod
    def of(image: Array, polarity: str) -> Islands:
        """The islands of one polarity of a slice ``[y, x]``."""
        smooth = ndimage.gaussian_filter(np.asarray(image, np.float32), SMOOTHING)
        levels = np.rint(smooth * (LEVELS if polarity == "bright" else -LEVELS)).astype(np.int32)
        return Islands(_height(levels, LARGEST), _height(levels, NEAR * LARGEST))

    def inclusions(self, threshold: float, other: Islands) -> tuple[Array, Array]:
        """Centres of all inclusions, and of those that the other image does not show."""
        labels, count = ndimage.label(self.small >= threshold, CONNECTED)
        sizes = np.bincount(labels.ravel(), minlength=count + 1)
        numbers = 1 + np.flatnonzero(sizes[1:] >= SMALLEST)
        if not len(numbers):
            return np.empty((0, 2)), np.empty((0, 2))
        shown = ndimage.maximum(other.larger, labels, numbers) >= 0.5 * threshold
        centres = np.array(ndimage.center_of_mass(self.small, labels, numbers))
        return centres, centres[~shown]


class Truth:
    """The inclusions of a clean slice ``[y, x]``, and its threshold, grey."""

    def __init__(self, clean: Array) -> None:
        self._clean = {polarity: Islands.of(clean, polarity) for polarity in POLARITIES}
        fine = clean - ndimage.gaussian_filter(clean, FINE)
        self.threshold = min(max(SPREAD * 1.4826 * float(np.median(np.abs(fine))), LEAST), MOST)

    def compare(self, image: Array) -> dict[str, Counts]:
        """Counts of a restoration ``[y, x]``, for ``bright`` and ``dark``."""
        return {
            polarity: Counts(len(places.present), len(places.lost), len(places.invented))
            for polarity, places in self.places(image).items()
        }

    def places(self, image: Array) -> dict[str, Places]:
        """The places of the inclusions, for ``bright`` and ``dark``."""
        found = {}
        for polarity, clean in self._clean.items():
            seen = Islands.of(image, polarity)
            present, lost = clean.inclusions(self.threshold, seen)
            _, invented = seen.inclusions(self.threshold, clean)
            found[polarity] = Places(present, lost, invented)
        return found


def _height(levels: Array, largest: int) -> Array:
    """The part of an image that an area opening removes, in grey."""
    order = np.argsort(-levels, axis=None, kind="stable")
    opened = _area_opening(levels, order, largest)
    return ((levels - opened) / np.float32(LEVELS)).astype(np.float32)


@njit(cache=True, nogil=True)
def _area_opening(levels: Array, order: Array, largest: int) -> Array:
    """Lowers every island of at most ``largest`` pixels to the level at which it would be larger.

    Pixels join their higher neighbours (8-connected) in descending order; a root holds minus the size of
    its island, or minus ``largest + 1`` once that is exceeded (Meijster and Wilkinson, 2002).
    """
    height, width = levels.shape
    flat = levels.ravel()
    parent = np.zeros(flat.size, np.int64)
    seen = np.zeros(flat.size, np.bool_)
    for pixel in order:
        parent[pixel] = -1
        seen[pixel] = True
        y, x = pixel // width, pixel % width
        for ny in range(max(y - 1, 0), min(y + 2, height)):
            for nx in range(max(x - 1, 0), min(x + 2, width)):
                near = ny * width + nx
                if near == pixel or not seen[near]:
                    continue
                root = near
                while parent[root] >= 0:
                    root = parent[root]
                while parent[near] >= 0:
                    following = parent[near]
                    parent[near] = root
                    near = following
                if root == pixel:
                    continue
                if flat[root] == flat[pixel] or -parent[root] <= largest:
                    parent[pixel] = max(parent[pixel] + parent[root], -largest - 1)
                    parent[root] = pixel
                else:
                    parent[pixel] = -largest - 1
    opened = flat.copy()
    for position in range(flat.size - 1, -1, -1):
        pixel = order[position]
        if parent[pixel] >= 0:
            opened[pixel] = opened[parent[pixel]]
    return opened.reshape(levels.shape)
