"""Filtered back projection against scikit-image's ``iradon``: interleaved medians, parity first.

python benchmarks/filtered_back_projection.py [--size 1024] [--angles 1024] [--repeats 5]
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time

import numpy as np
from skimage.transform import iradon

from karat24.tomography.imaging.fbp import fbp
from karat24.tomography.imaging.geometry import even_angles


def main() -> int:
    """Prints both medians and their ratio; returns 1 where the images differ by more than float32
    rounding."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=1024)
    parser.add_argument("--angles", type=int, default=1024)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    sinogram = rng.standard_normal((options.angles, options.size)).astype(np.float32)
    degrees = even_angles(options.angles)
    columns = np.ascontiguousarray(sinogram.T)

    difference = np.abs(fbp(sinogram, degrees) - iradon(columns, degrees))  # also compiles
    relative = float(difference.max() / np.abs(iradon(columns, degrees)).max())
    if relative > 8.0 * np.finfo(np.float32).eps * np.sqrt(options.angles):
        print(f"images differ by {relative:.2g} of their range: nothing timed")
        return 1
    ours, theirs = [], []
    for _ in range(options.repeats):
        start = time.perf_counter()
        fbp(sinogram, degrees)
        middle = time.perf_counter()
        iradon(columns, degrees)
        theirs.append(time.perf_counter() - middle)
        ours.append(middle - start)
    fast, slow = statistics.median(ours), statistics.median(theirs)
    print(f"{options.size}×{options.size} from {options.angles} angles, median of {options.repeats}:")
    print(
        f"karat24 {fast:.3f} s   scikit-image {slow:.3f} s   ratio {slow / fast:.1f}   off by {relative:.1e}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
