"""What a sample is made of in one slice."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from karat24.refimpl.graph import Array
from karat24.tomography.imaging.phantom import Phantom
from karat24.tomography.imaging.projector import project


@dataclass(frozen=True)
class SampleSlice:
    """One slice of a sample: ``phantom`` projected in closed form, plus ``raster`` (float32
    ``[canvas, canvas]``, canvas at least the image's size), whose pixels are the definition of what no closed
    form describes: textures, shading, rough surfaces. Densities are relative, about 1 for solid matter."""

    phantom: Phantom
    raster: Array

    def project(self, degrees: Array, bins: int) -> Array:
        """Line integrals of density (pixels): float32 ``[angle, bins]``."""
        total: Array = (self.phantom.project(degrees, bins) + project(self.raster, degrees, bins)).astype(
            np.float32
        )
        return total

    def rasterize(self, size: int) -> Array:
        """Density of the middle ``[size, size]`` pixels: float32."""
        canvas = len(self.raster)
        first = canvas // 2 - size // 2
        middle: Array = self.phantom.rasterize(size) + self.raster[first : first + size, first : first + size]
        return middle
