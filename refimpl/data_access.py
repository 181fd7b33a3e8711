"""What a network costs by the selective paper's conventions: weights, multiplications, energy of data access.

Only weights of convolutions and fully connected layers are counted (its equation 1), no biases and no batch
normalization. For multiplications there are two conventions. ``executed`` counts the products a network
computes, windows beyond the image in full. ``block-input`` is the paper's: every layer of a block, strided or
not, works at the size of the block's input, which makes 1.6 times as many of ResNet50. A ratio of the two
would mean nothing and is refused.

Energy (equation 3) is that of moving a 16-bit weight, in units of one multiplication: from DRAM 200, from
the global buffer 6, between processing elements 2, from the register file 1, so that a weight read ``a``
times from DRAM, ``b`` times from the buffer per read, and so on costs ``200 a + 6 ab + 2 abc + abcd``. The
paper does not say what a … d are for its networks: a *reading* does. Activations are not counted.

Source: "Selective Deep Convolutional Neural Network for Low Cost Distorted Image Classification"; the prices
are those of Chen et al., "Eyeriss" (ISCA 2016).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from types import MappingProxyType
from typing import Literal, TypeAlias

import numpy as np

from karat24.refimpl.cost import WEIGHTED
from karat24.refimpl.errors import ModelError, UsageError
from karat24.refimpl.graph import Format, Graph, LayerView, Tensor

Convention: TypeAlias = Literal["executed", "block-input"]

DRAM, BUFFER, BETWEEN_ELEMENTS, REGISTER_FILE = 200, 6, 2, 1

FULL_BITS = 16
"""Width of a weight that the prices are for; they are taken to grow linearly with it."""


@dataclass(frozen=True)
class WeightLayer:
    """A layer with weights. ``nonzero``: how many of them are not 0. ``executed``: products computed.
    ``height`` and ``width``: of the image at its block's input, 1 for a fully connected layer."""

    layer: int
    name: str
    weights: int
    nonzero: int
    executed: int
    height: int
    width: int

    def macs(self, convention: Convention) -> int:
        """Multiplication-additions by a convention."""
        return self.executed if convention == "executed" else self.weights * self.height * self.width


@dataclass(frozen=True)
class Counted:
    """Weights and multiplication-additions of what one image needs, by one convention."""

    convention: Convention
    weights: int
    macs: int

    def __add__(self, other: Counted) -> Counted:
        self._require_same(other)
        return Counted(self.convention, self.weights + other.weights, self.macs + other.macs)

    def share_of(self, other: Counted) -> tuple[Fraction, Fraction]:
        """Weights and multiplications as shares of another's. Raises UsageError for another convention."""
        self._require_same(other)
        return Fraction(self.weights, other.weights), Fraction(self.macs, other.macs)

    def _require_same(self, other: Counted) -> None:
        if self.convention != other.convention:
            raise UsageError(
                f"multiplications counted as {self.convention!r} and as {other.convention!r} do not compare; "
                "count both by one convention"
            )


def weight_layers(graph: Graph) -> tuple[WeightLayer, ...]:
    """The layers with weights, in order. Layers whose names are equal up to the last ``/`` form a
    block; a layer without ``/`` is a block of its own. Raises ModelError when a filter is not a constant."""
    layers = []
    sizes: dict[str, tuple[int, int]] = {}
    for view in graph.views():
        weighted = WEIGHTED.get(view.op)
        if weighted is None:
            continue
        filter_ = view.input(weighted.filter)
        if filter_.data is None:
            raise ModelError(
                f"{view}: the filter {filter_.name!r} is not a constant, so it has no weights to count"
            )
        name = view.output().name
        block = name.rpartition("/")[0] or name
        size = sizes.setdefault(block, _image(view, graph.format))
        executed = weighted.macs(view)
        # A layer that uses each weight once is fully connected, whatever op it is written in.
        height, width = (1, 1) if executed == filter_.data.size else size
        layers.append(
            WeightLayer(
                view.layer.index, name, filter_.data.size, _nonzero(filter_), executed, height, width,
            )
        )  # fmt: skip
    return tuple(layers)


def _nonzero(filter_: Tensor) -> int:
    """How many weights do not stand for 0: an unsigned filter's zero point does. (ONNX layers, whose filters'
    zero points are inputs of their own, are taken to have 0 there.)"""
    assert filter_.data is not None
    if filter_.quantization is None:
        return int(np.count_nonzero(filter_.data))
    zero_points, shape = np.array(filter_.quantization.zero_point), [1] * filter_.data.ndim
    if filter_.quantization.per_channel:
        shape[filter_.quantization.axis] = -1
    return int(np.count_nonzero(filter_.data != zero_points.reshape(shape)))


def _image(view: LayerView, format_: Format) -> tuple[int, int]:
    """Height and width of what the layer reads, 1 and 1 where that is not an image."""
    shape = view.input(2 if view.op == "TRANSPOSE_CONV" else 0).shape
    if len(shape) != 4:
        return 1, 1
    return (shape[1], shape[2]) if format_ == "tflite" else (shape[2], shape[3])


def counted(graph: Graph, convention: Convention) -> Counted:
    """A graph's weights and multiplications. Raises UsageError for an unknown convention, ModelError as
    :func:`weight_layers` does."""
    if convention not in ("executed", "block-input"):
        raise UsageError(f"no convention {convention!r}; there are 'executed' and 'block-input'")
    layers = weight_layers(graph)
    return Counted(
        convention, sum(layer.weights for layer in layers), sum(layer.macs(convention) for layer in layers)
    )


def access_energy(a: int, b: int, c: int, d: int) -> int:
    """Equation 3 for one weight."""
    return DRAM * a + BUFFER * a * b + BETWEEN_ELEMENTS * a * b * c + REGISTER_FILE * a * b * c * d


READINGS: Mapping[str, Callable[[WeightLayer], int]] = MappingProxyType(
    {
        "row": lambda layer: layer.width,
        "once": lambda _: 1,
        "image": lambda layer: layer.height * layer.width,
    }
)
"""How often a weight is read from the register file (d; a, b and c are 1), by name of the reading. ``row``,
the default: a filter row stays there while it slides along one row of the block's input. ``once``: ratios of
energy are ratios of weights. ``image``: the row slides over the whole image. The first two give the ratios
the paper prints, the last does not."""


def energy(graph: Graph, reading: str = "row", bits: int = FULL_BITS, dense: bool = True) -> Fraction:
    """Energy of moving a graph's weights for one image, in multiplications.

    ``bits``: width of a weight. ``dense=False``: weights of 0 cost nothing, and neither do the indices that
    say where they are. Raises UsageError for an unknown reading or width, ModelError as
    :func:`weight_layers` does.
    """
    if reading not in READINGS:
        raise UsageError(f"no reading {reading!r} of equation 3; there are {', '.join(READINGS)}")
    if bits <= 0:
        raise UsageError(f"a weight of {bits} bits")
    reads = READINGS[reading]
    total = sum(
        (layer.weights if dense else layer.nonzero) * access_energy(1, 1, 1, reads(layer))
        for layer in weight_layers(graph)
    )
    return Fraction(total * bits, FULL_BITS)


def stored_weights(selector: Graph, *dedicated: Graph) -> int:
    """Weights a device must hold for a selective network: the selector's and every dedicated network's."""
    return sum(counted(graph, "executed").weights for graph in (selector, *dedicated))


def expected_accuracy(
    share: float,
    false_alarms: float,
    misses: float,
    clean: tuple[float, float],
    distorted: tuple[float, float],
) -> float:
    """Accuracy of a selective network, from that of its parts.

    ``share`` of the images are distorted. ``clean`` and ``distorted`` hold the accuracies on clean and on
    distorted images, of the clean and of the distorted network: ``(C(x_c), D(x_c))`` and
    ``(C(x_d), D(x_d))``. A false alarm sends a clean image to the distorted network, a miss the other way.
    With rates of 0 this is the paper's own figure, which holds for a selector without errors. The selector's
    errors are taken to be independent of the networks'. Raises UsageError for a rate outside 0 … 1.
    """
    for name, rate in (("share", share), ("false alarms", false_alarms), ("misses", misses)):
        if not 0 <= rate <= 1:
            raise UsageError(f"{name} {rate!r} is not between 0 and 1")
    on_clean = (1 - false_alarms) * clean[0] + false_alarms * clean[1]
    on_distorted = (1 - misses) * distorted[1] + misses * distorted[0]
    return (1 - share) * on_clean + share * on_distorted
