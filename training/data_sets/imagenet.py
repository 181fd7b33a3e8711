"""ImageNet's validation images (ILSVRC 2012): 50,000 photographs of 1,000 classes, read one by one.

Two layouts are read. As released: ``ILSVRC2012_val_00000001.JPEG`` … and the development kit's
``ILSVRC2012_validation_ground_truth.txt`` with the kit's numbers, 1 to 1000, line by line. As sorted for
PyTorch: a folder for each class, ``n01440764/ILSVRC2012_val_00000293.JPEG``; classes are numbered from 0 in
the order of their names, as in networks of torchvision and Keras.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from karat24.refimpl.errors import UsageError
from training.data_sets.files import missing, read_picture, read_text

SOURCE = "https://image-net.org/download-images (registration is required)"
TRUTH = "ILSVRC2012_validation_ground_truth.txt"
CLASSES = 1000
NAME = re.compile(r"ILSVRC2012_val_[0-9]{8}\.JPEG")
SHORTER, SIDE = 256, 224
MEANS = np.array([103.939, 116.779, 123.68], np.float32)
"""Means of blue, green and red with which VGG-16 was trained (Simonyan and Zisserman 2014)."""


@dataclass(frozen=True)
class ImageNetValidation:
    """``paths`` and ``labels`` of images. ``kit_numbers``: labels are the development kit's, 1 to 1000;
    otherwise they count the classes' names from 0."""

    paths: tuple[Path, ...]
    labels: tuple[int, ...]
    kit_numbers: bool

    def __len__(self) -> int:
        return len(self.paths)

    def vgg_inputs(self) -> Iterator[tuple[NDArray[np.float32], int]]:
        """Each image in VGG-16's form, ``[1, 224, 224, 3]``, and its label."""
        for path, label in zip(self.paths, self.labels, strict=True):
            yield vgg_input(read_picture(path, "RGB")), label


def vgg_input(picture: NDArray[np.uint8]) -> NDArray[np.float32]:
    """``[y, x, 3]`` of red, green, blue → ``[1, 224, 224, 3]`` of blue, green, red less their means: the
    shorter side to 256, bilinear, and the middle of it."""
    from PIL import Image

    height, width = picture.shape[:2]
    factor = SHORTER / min(height, width)
    size = max(SHORTER, round(width * factor)), max(SHORTER, round(height * factor))
    resized = np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.BILINEAR), np.float32)
    y, x = (resized.shape[0] - SIDE) // 2, (resized.shape[1] - SIDE) // 2
    middle: NDArray[np.float32] = resized[y : y + SIDE, x : x + SIDE, ::-1] - MEANS
    return middle[None]


def read_imagenet(folder: Path) -> ImageNetValidation:
    """The validation set in ``folder`` in either layout; images are opened when they are asked for.

    Raises UsageError for a data set that is missing, for a part of the classes' folders only, for an image
    that is there twice, and for fewer labels than images.
    """
    classes = sorted(
        path for path in folder.glob("n*") if path.is_dir() and re.fullmatch(r"n\d{8}", path.name)
    )
    if classes:
        if len(classes) != CLASSES:
            raise UsageError(
                f"{folder}: holds {len(classes)} folders of classes, and ImageNet has {CLASSES}; counted in "
                "part, their numbers would not be those of a network"
            )
        pairs = [(path, n) for n, place in enumerate(classes) for path in sorted(place.glob("*.JPEG"))]
        if pairs:
            return ImageNetValidation(tuple(p for p, _ in pairs), tuple(n for _, n in pairs), False)
    images = sorted(path for path in folder.rglob("ILSVRC2012_val_*.JPEG") if NAME.fullmatch(path.name))
    if not images:
        raise missing("ImageNet", folder, "ILSVRC2012_val_*.JPEG", SOURCE)
    truths = sorted(folder.rglob(TRUTH))
    if not truths:
        raise missing("ImageNet", folder, f"{TRUTH}, which is in the development kit", SOURCE)
    words = read_text(truths[0]).split()
    if not all(word.isdecimal() and 1 <= int(word) <= CLASSES for word in words):
        raise UsageError(f"{truths[0]}: holds other words than numbers from 1 to {CLASSES}")
    numbers = [int(path.stem.rpartition("_")[2]) for path in images]
    if len(set(numbers)) < len(numbers):
        (twice,) = Counter(numbers).most_common(1)
        raise UsageError(f"{folder}: holds image {twice[0]} {twice[1]} times; keep one copy")
    if min(numbers) < 1:
        raise UsageError(f"{folder}: images are counted from 1, and {images[numbers.index(0)].name} is 0")
    if max(numbers) > len(words):
        raise UsageError(f"{truths[0]}: {len(words)} labels, and {images[-1].name} has none")
    return ImageNetValidation(tuple(images), tuple(int(words[n - 1]) for n in numbers), True)
