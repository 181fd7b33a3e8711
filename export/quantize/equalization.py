"""Cross-layer equalization: channels get ranges of like size, and the float function stays as it is.

A channel that a ReLU (or nothing) passes on may be divided by a positive factor where it is made and
multiplied by it where it is read: ``W2 relu(W1 x + b1) = (W2 S) relu(S^-1 W1 x + S^-1 b1)``. The factors
are chosen so that each channel's filter has the same range on both sides,
``s = sqrt(r1 / r2)`` with ``r1`` the range of the weights that make it, ``r2`` of those that read it
(Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction", 2019, section 4.1).

Max pooling, bilinear resizing and ReLU commute with a positive factor; a concatenation passes each channel
on as it is, so that its reader takes each slice's own factors. A channel that another layer reads (the
graph's inputs and outputs, a clipped activation, another op) keeps its size.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace

import numpy as np

from karat24.export.quantize.affine_layers import AFFINE_LAYERS, AffineLayer
from karat24.export.quantize.sharing import KEEPING
from karat24.refimpl.errors import ModelError
from karat24.refimpl.graph import Array, Graph, LayerView

HOMOGENEOUS = frozenset({"NONE", "RELU"})
"""Fused activations with ``f(s x) = s f(x)`` for positive s."""

MOST_SWEEPS = 40
"""Greatest number of sweeps over the layers that compute the factors anew."""

SETTLED = 1e-3
"""A sweep that changes no factor by more than this share is the last."""

GREATEST_FACTOR = 2.0**12
"""Factors stay within this of 1, so that products of them stay far inside float32."""

KEPT = 0
"""The class of all channels that must keep their size."""


def equalize(graph: Graph) -> Graph:
    """The float32 ``graph`` with filters and biases rescaled; its function is the same but for rounding.

    Tensors, layers and names stay. Graphs in which nothing can be rescaled come back as they are.
    Raises ModelError for a graph that is not in TFLite layout or a filter that is not finite.
    """
    if graph.format != "tflite":
        raise ModelError(f"graph {graph.name!r} is {graph.format}; only TFLite-style graphs are equalized")
    classes = _channel_classes(graph)
    links = [_link(view, classes) for view in graph.views() if _rescalable(graph, view)]
    factors = _settle(links, 1 + max((int(ids.max()) for ids in classes.values() if ids.size), default=0))
    constants: dict[int, Array] = {}
    for link in links:
        constants.update(_rescaled(link, factors))
    return replace(
        graph,
        tensors=tuple(
            replace(tensor, data=constants[tensor.index]) if tensor.index in constants else tensor
            for tensor in graph.tensors
        ),
    )


@dataclass(frozen=True)
class _Link:
    """A filter between two sets of channels: ``sizes[out, in]`` is the greatest magnitude of the weights
    that lead from one to the other, ``reads`` and ``makes`` the classes of the channels."""

    view: LayerView
    affine: AffineLayer
    reads: Array
    makes: Array
    sizes: Array


def _rescalable(graph: Graph, view: LayerView) -> bool:
    """Whether the layer's constants are float32 and its own: no other layer and no output reads them."""
    affine = AFFINE_LAYERS.get(view.op)
    if affine is None:
        return False
    readers = Counter(index for layer in graph.layers for index in layer.inputs)
    constants = [view.input(affine.filter), view.optional_input(affine.bias)]
    return all(
        tensor is None
        or (
            tensor.data is not None
            and tensor.dtype == "float32"
            and readers[tensor.index] == 1
            and tensor.index not in graph.outputs
        )
        for tensor in constants
    )


def _channel_classes(graph: Graph) -> dict[int, Array]:
    """For each activation, the class of each channel of its last axis; channels of one class must be
    rescaled alike, those of class ``KEPT`` not at all."""
    ids: dict[int, Array] = {}
    free = KEPT + 1
    for tensor in graph.tensors:
        if not tensor.is_constant:
            channels = tensor.shape[-1] if tensor.shape else 1
            ids[tensor.index] = np.arange(free, free + channels)
            free += channels
    leader = np.arange(free)

    def lead(index: int) -> int:
        while leader[index] != index:
            leader[index] = leader[leader[index]]
            index = int(leader[index])
        return index

    def join(left: Array, right: Array) -> None:
        for one, other in zip(left.tolist(), right.tolist(), strict=True):
            first, second = sorted((lead(one), lead(other)))
            leader[second] = first

    def keep(index: int) -> None:
        join(ids[index], np.full_like(ids[index], KEPT))

    for index in (*graph.inputs, *graph.outputs):
        if index in ids:
            keep(index)
    for view in graph.views():
        read = [t.index for t in view.inputs if t is not None and not t.is_constant]
        made = [tensor.index for tensor in view.outputs]
        passes_on = view.op in KEEPING or view.op in ("RELU", "CONCATENATION")
        if not passes_on and not _rescalable(graph, view):
            for index in (*read, *made):
                keep(index)
            continue
        if view.text("fused_activation_function", "NONE") not in HOMOGENEOUS:
            keep(made[0])
        rank = len(view.output().shape)
        if view.op == "CONCATENATION" and view.integer("axis") % rank == rank - 1:
            join(np.concatenate([ids[index] for index in read]), ids[made[0]])
        elif passes_on:
            for index in read:
                join(ids[index], ids[made[0]])
    return {index: np.array([lead(i) for i in own.tolist()]) for index, own in ids.items()}


def _link(view: LayerView, classes: dict[int, Array]) -> _Link:
    affine = AFFINE_LAYERS[view.op]
    image, filter_ = view.input(affine.input), view.input(affine.filter)
    assert filter_.data is not None
    if not np.isfinite(filter_.data).all():
        raise ModelError(f"{view}: {filter_.name!r} holds NaN or infinite values")
    taps = np.abs(filter_.data).max(axis=(1, 2)).astype(np.float64)
    if affine.channel_axis == 3:
        taps = taps.reshape(-1, 1)
    makes, reads = classes[view.output().index], classes[image.index]
    sizes = np.zeros((len(makes), len(reads)))
    np.put_along_axis(sizes, _read_channels(view, affine), taps, axis=1)
    return _Link(view, affine, reads, makes, sizes)


def _read_channels(view: LayerView, affine: AffineLayer) -> Array:
    """``[out, k]``: the input channels each output channel reads. Group g of a grouped convolution reads its
    own slice, a depthwise one (multiplier m) channel ``out // m``."""
    channels = view.input(affine.input).shape[-1]
    filter_shape = view.input(affine.filter).shape
    outputs = filter_shape[affine.channel_axis]
    per_group = 1 if affine.channel_axis == 3 else filter_shape[3]
    groups = channels // per_group
    first = np.arange(outputs) // (outputs // groups) * per_group
    return np.asarray(first[:, None] + np.arange(per_group))


def _settle(links: list[_Link], number: int) -> Array:
    """The factor of each class, by which its channels are divided where they are made."""
    factors = np.ones(number)
    made_by = [np.unique(link.makes[link.makes != KEPT]) for link in links]
    touching = [
        [link for link in links if np.isin(link.makes, mine).any() or np.isin(link.reads, mine).any()]
        for mine in made_by
    ]
    for _ in range(MOST_SWEEPS):
        before = factors.copy()
        for mine, around in zip(made_by, touching, strict=True):
            _balance(mine, around, factors)
        if np.abs(np.log(factors / before)).max() < SETTLED:
            break
    return factors


def _balance(mine: Array, links: list[_Link], factors: Array) -> None:
    """Sets the factors of the classes ``mine`` so that their ranges on both sides agree; ``links`` are all
    that make or read them."""
    made, read = np.zeros(len(factors)), np.zeros(len(factors))
    for link in links:
        scaled = link.sizes * factors[link.reads] / factors[link.makes][:, None]
        np.maximum.at(made, link.makes, scaled.max(axis=1))
        np.maximum.at(read, link.reads, scaled.max(axis=0))
    # A channel that no layer makes or no layer reads has no range to balance.
    live = mine[(made[mine] > 0) & (read[mine] > 0)]
    factors[live] = np.clip(
        factors[live] * np.sqrt(made[live] / read[live]), 1 / GREATEST_FACTOR, GREATEST_FACTOR
    )


def _rescaled(link: _Link, factors: Array) -> dict[int, Array]:
    """The layer's filter and bias with their factors, by tensor index."""
    view, affine = link.view, link.affine
    filter_, bias = view.input(affine.filter), view.optional_input(affine.bias)
    assert filter_.data is not None
    # [out, k] for filters [out, y, x, k]; one axis of outputs, last, for depthwise ones.
    ratios = factors[link.reads][_read_channels(view, affine)] / factors[link.makes][:, None]
    shaped = ratios.reshape(1, 1, 1, -1) if affine.channel_axis == 3 else ratios[:, None, None, :]
    constants = {filter_.index: (filter_.data * shaped).astype(np.float32)}
    if bias is not None:
        assert bias.data is not None
        constants[bias.index] = (bias.data / factors[link.makes]).astype(np.float32)
    return constants
