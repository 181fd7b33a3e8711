"""MICCAI 2015 gland segmentation (Warwick-QU): 85 training and 80 test images of stained tissue with masks.

``train_1.bmp`` … lies beside ``train_1_anno.bmp`` …, in which each gland has its own number and 0 is outside.

Source of the layout: the archive warwick_qu_dataset_released_2016_07_08.zip.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from karat24.refimpl.errors import UsageError
from training.data_sets.files import missing, read_picture

SOURCE = "https://warwick.ac.uk/fac/cross_fac/tia/data/glascontest (Warwick QU data set)"
ARCHIVE = "Warwick QU Dataset (Released 2016_07_08)"

Part = Literal["train", "testA", "testB"]


def read_glands(folder: Path, part: Part) -> list[tuple[NDArray[np.float32], NDArray[np.bool_]]]:
    """Images ``[y, x, 3]`` in 0 … 1 and masks ``[y, x]``, True in a gland, in the order of their numbers.

    They are read from ``folder`` or the archive's folder in it. Raises UsageError for a missing data set, an
    image without a mask, or a mask of another size.
    """
    place = folder if any(folder.glob(f"{part}_*.bmp")) else folder / ARCHIVE
    found = {}
    for path in place.glob(f"{part}_*.bmp"):
        match = re.fullmatch(rf"{part}_(\d+)\.bmp", path.name)
        if match:
            found[int(match[1])] = path
    if not found:
        raise missing("MICCAI glands", folder, f"{part}_1.bmp", SOURCE)
    pairs = []
    for _, path in sorted(found.items()):
        annotated = path.with_name(f"{path.stem}_anno.bmp")
        if not annotated.is_file():
            raise UsageError(f"{path}: has no mask {annotated.name} beside it")
        image, mask = read_picture(path, "RGB"), read_picture(annotated, "L")
        if image.shape[:2] != mask.shape:
            raise UsageError(f"{path}: {image.shape[:2]}, and its mask {mask.shape}")
        pairs.append((image.astype(np.float32) / np.float32(255), mask > 0))
    return pairs
