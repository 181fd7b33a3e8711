"""Weights of a network: given by name, loaded from an .npz file, or seeded.

Names are the constants' names in the graph (``box1/conv1/filter``); filters are
laid out OHWI, ``[out_channel, y, x, in_channel]``, biases ``[out_channel]``, computed with in float32.
Weights of quantization-aware training come with ``<activation>/range``, ``[low, high]``: the ranges the
network was trained to be rounded in. The quantizer uses them; float networks ignore them.
A file may hold a filter as integers, with ``<filter>/scale``, ``[out_channel]`` or ``[]``: their product is
the filter.
"""

from __future__ import annotations

import lzma
import math
import struct
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from karat24.refimpl.errors import ModelError, UsageError
from karat24.refimpl.graph import Array

SEEDED_BIAS_DEVIATION = 0.05
"""Seeded biases are small but not zero, so that a runtime that drops a bias is seen."""

REPAIR = "fine-tune/"
"""How the names of Fine-Tune's weights begin in the chained network."""

RANGE = "/range"
"""How the names of learnt ranges end."""

SCALE = "/filter/scale"
"""How the names of the scales of integer filters end."""

AWARE_SCHEMES = ("int8", "int8-mobile", "uint8-2019")
"""The schemes that weights were trained to be quantized in."""

UNREADABLE = (
    OSError, ValueError, EOFError, RuntimeError, MemoryError, KeyError, struct.error,
    zipfile.BadZipFile, zlib.error, lzma.LZMAError,
)  # fmt: skip
"""What NumPy and zipfile raise on damaged archives (encrypted and foreign ones: RuntimeError)."""


def load_weights(path: str | Path) -> dict[str, Array]:
    """Every array of an .npz file, by name, integer filters multiplied with their scales. Raises UsageError
    naming the file when it cannot be read.

    Whether the names and shapes suit a network is checked by the network.
    """
    if not Path(path).exists():
        raise UsageError(f"weights file {path} does not exist")
    try:
        if not zipfile.is_zipfile(path):
            raise ValueError("no archive of named arrays")
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as archive:
            return _scaled({name: archive[name] for name in archive.files})
    except UNREADABLE as failure:
        raise UsageError(f"weights file {path} cannot be read as .npz: {failure}") from failure


def _scaled(arrays: dict[str, Array]) -> dict[str, Array]:
    found = {name: values for name, values in arrays.items() if not name.endswith(SCALE)}
    for name in arrays.keys() - found.keys():
        filter_name, scale = name.removesuffix("/scale"), arrays[name]
        values = found.get(filter_name)
        if values is None or values.dtype.kind != "i" or scale.dtype.kind != "f":
            raise ValueError(f"{name!r} must be the scale of an array of integers, {filter_name!r}")
        if scale.shape not in ((), values.shape[:1]):
            raise ValueError(f"{name!r} has shape {scale.shape}, {filter_name!r} {values.shape}")
        by_channel = scale.astype(np.float32).reshape(scale.shape + (1,) * (values.ndim - scale.ndim))
        found[filter_name] = values.astype(np.float32) * by_channel
    return found


def learnt_ranges(weights: Mapping[str, Array] | None) -> dict[str, tuple[float, float]]:
    """Least and greatest real value of activations, by name, as far as ``weights`` hold them.

    Raises ModelError for a range that is not two finite ascending numbers.
    """
    found = {}
    for name, values in (weights or {}).items():
        if name.endswith(RANGE):
            ends = np.asarray(values)
            if (
                ends.shape != (2,)
                or ends.dtype.kind != "f"
                or not np.isfinite(ends).all()
                or ends[0] > ends[1]
            ):
                raise ModelError(f"weights: {name!r} must be a range [low, high]: {ends.tolist()}")
            found[name.removesuffix(RANGE)] = (float(ends[0]), float(ends[1]))
    return found


def parted(
    weights: Mapping[str, Array] | None,
) -> tuple[dict[str, Array] | None, dict[str, Array] | None]:
    """Weights of the chained network as TomoGAN's and Fine-Tune's."""
    if weights is None:
        return None, None
    repairing = {name.removeprefix(REPAIR): v for name, v in weights.items() if name.startswith(REPAIR)}
    return {name: v for name, v in weights.items() if not name.startswith(REPAIR)}, repairing


class Weights:
    """Hands a network its weights one by one and, at the end, tells what did not fit.

    Given a mapping, every name asked for must be there and every name there must
    be asked for. Given None, filters are drawn from the He-normal distribution and
    biases from a narrow normal one; each array has its own random stream, keyed
    by the seed and its name, so that values do not depend on the order of layers.
    """

    def __init__(self, network: str, given: Mapping[str, Array] | None, seed: int) -> None:
        if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
            raise UsageError(f"{network}: seed {seed!r} is not a non-negative integer")
        self._network, self._given, self._seed = network, given, seed
        self._asked: set[str] = set()
        self._problems: list[str] = []

    def filter(self, name: str, shape: tuple[int, ...], fan_in: int) -> Array:
        """A float32 filter; ``fan_in`` is the number of products summed into one output value."""
        return self._take(name, shape, math.sqrt(2.0 / fan_in))

    def bias(self, name: str, shape: tuple[int, ...]) -> Array:
        """A float32 bias."""
        return self._take(name, shape, SEEDED_BIAS_DEVIATION)

    def finish(self) -> None:
        """Raises ModelError listing every missing, extra and unfit array."""
        extra = {name for name in self._given or () if not name.endswith(RANGE)} - self._asked
        for name in sorted(extra):
            self._problems.append(f"{name!r} is not a weight of this network")
        if self._problems:
            raise ModelError(f"weights do not fit {self._network}: " + "; ".join(self._problems))

    def _take(self, name: str, shape: tuple[int, ...], deviation: float) -> Array:
        self._asked.add(name)
        if self._given is None:
            stream = np.random.default_rng([self._seed, zlib.crc32(name.encode())])
            return (stream.standard_normal(shape) * deviation).astype(np.float32)
        problem = self._problem(name, shape)
        if problem is None:
            return np.asarray(self._given[name], dtype=np.float32)
        self._problems.append(problem)
        return np.zeros(shape, np.float32)

    def _problem(self, name: str, shape: tuple[int, ...]) -> str | None:
        assert self._given is not None
        if name not in self._given:
            return f"{name!r} {list(shape)} is missing"
        values = np.asarray(self._given[name])
        if values.shape != shape:
            return f"{name!r} has shape {list(values.shape)}, not {list(shape)}"
        if values.dtype not in (np.float16, np.float32, np.float64):
            return f"{name!r} is {values.dtype}, not float32"
        with np.errstate(over="ignore"):
            finite = np.isfinite(values.astype(np.float32))
        if not finite.all():
            return f"{name!r} holds {np.count_nonzero(~finite)} values that are not finite in float32"
        return None


def trained_weights(
    network: str, upsampling: str = "bilinear", scheme: str = "int8", aware: bool = False
) -> dict[str, Array] | None:
    """The weights that ship for a network (``tomogan``, ``fine-tune``, ``chained``, ``slice-selector``), or
    None when none do.

    ``aware``: those trained to be quantized in ``scheme``, with their ranges. TomoGAN's filters are the same
    for every scheme, and with or without rounding. Fine-Tune's repair what quantization by ``uint8-2019``,
    or else int8, cost TomoGAN.
    """
    if aware and scheme not in AWARE_SCHEMES:
        return None
    if network == "chained":
        first, second = (trained_weights(part, upsampling, scheme) for part in ("tomogan", "fine-tune"))
        if aware or first is None or second is None:
            return None
        return {**first, **{f"{REPAIR}{name}": values for name, values in second.items()}}
    if network == "tomogan":
        weights = _shipped(f"tomogan-{upsampling}")
        if aware:
            return weights if learnt_ranges(weights) else None
        return None if weights is None else without_ranges(weights)
    if network == "fine-tune":
        kind = "uint8-2019" if scheme == "uint8-2019" else "int8"
        return _shipped(f"fine-tune-aware-{kind}" if aware else f"fine-tune-{kind}")
    return _shipped(network)


def without_ranges(weights: Mapping[str, Array]) -> dict[str, Array]:
    """The weights alone: quantizing them means calibrating."""
    return {name: values for name, values in weights.items() if not name.endswith(RANGE)}


def _shipped(name: str) -> dict[str, Array] | None:
    path = Path(__file__).parent / "trained" / f"{name}.npz"
    return load_weights(path) if path.is_file() else None
