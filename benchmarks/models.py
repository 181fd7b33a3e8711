"""The models that are timed: the flagship networks at several sizes, and public ones."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import numpy as np

from benchmarks.results import ROOT
from karat24.export import read_model
from karat24.export.quantize import PRESETS, Range, calibrate, quantize_graph
from karat24.refimpl.graph import Graph, Tensor
from karat24.refimpl.networks import Upsampling, network

FLAGSHIPS = ("tomogan-bilinear", "tomogan-transposed", "fine-tune")

CALIBRATION_SIZE = 64
"""The size of the noise on which ranges are observed, which do not change speed."""


@dataclass(frozen=True)
class Model:
    """A model by its name; ``size`` is a flagship's height and width, 0 for a public model at ``path``."""

    name: str
    size: int = 0
    path: Path | None = None

    def quantized(self) -> Graph:
        """The 8-bit graph. Raises the errors of reading a file."""
        if self.path is not None:
            return read_model(self.path)
        return quantize_graph(_flagship(self.family, self.size), _ranges(self.family), PRESETS["int8"])

    def float32(self) -> Graph | None:
        """The float network, if there is one."""
        return None if self.path is not None else _flagship(self.family, self.size)

    @property
    def family(self) -> str:
        """The name without the size."""
        return self.name.removesuffix(f"-{self.size}")

    def resized(self, size: int) -> Model:
        """A flagship at another size."""
        return Model(f"{self.family}-{size}", size)


def public_folder() -> Path:
    """The folder of public models: ``KARAT24_MODELS``, else ``../shared/models``."""
    return Path(os.environ.get("KARAT24_MODELS", ROOT.parent / "shared" / "models"))


def all_models(sizes: Sequence[int]) -> Iterator[Model]:
    """The flagships at ``sizes``, then the public models of ``KARAT24_MODELS`` (``../shared/models``)."""
    for size in sizes:
        for family in FLAGSHIPS:
            yield Model(f"{family}-{size}", size)
    folder = public_folder()
    for path in sorted(folder.glob("*/*.tflite")):
        yield Model(path.relative_to(folder).with_suffix("").as_posix(), path=path)


def unsigned(graph: Graph) -> Graph:
    """The network with its int8 activations as uint8, zero points moved by 128: ONNX Runtime's u8s8."""

    def moved(tensor: Tensor) -> Tensor:
        if tensor.dtype != "int8" or tensor.is_constant or tensor.quantization is None:
            return tensor
        zero_point = tuple(value + 128 for value in tensor.quantization.zero_point)
        return replace(
            tensor, dtype="uint8", quantization=replace(tensor.quantization, zero_point=zero_point)
        )

    return replace(graph, tensors=tuple(moved(tensor) for tensor in graph.tensors))


def _flagship(family: str, size: int) -> Graph:
    name, _, upsampling = family.partition("-")
    if name == "tomogan":
        return network(name, size, size, cast(Upsampling, upsampling))
    return network(family, size, size)


@functools.cache
def _ranges(family: str) -> dict[int, Range]:
    """Ranges by tensor index, equal for every size."""
    graph = _flagship(family, CALIBRATION_SIZE)
    sample = np.random.default_rng(0).random(graph.tensors[graph.inputs[0]].shape, np.float32)
    return calibrate(graph, [sample])
