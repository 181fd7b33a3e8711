"""A float network with its filters rounded to powers of two, and the exact 8-bit network of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

import numpy as np

from karat24.export.quantize.affine import Range
from karat24.export.quantize.affine_layers import AFFINE_LAYERS
from karat24.export.quantize.calibration import observe
from karat24.export.quantize.powers_of_two.batch_norm import BatchNorm, fold
from karat24.export.quantize.powers_of_two.codes import FilterMemory, memory
from karat24.export.quantize.powers_of_two.integers import as_integers
from karat24.export.quantize.powers_of_two.rounding import PowerFilter, powers_for, round_filter
from karat24.export.quantize.quantize import NONE_GIVEN, check_quantizable, quantize_observed
from karat24.export.quantize.scheme import PER_CHANNEL_INT8, QuantizationScheme
from karat24.refimpl.errors import ModelError, UnsupportedOp, UsageError
from karat24.refimpl.graph import Array, Graph, LayerView

NO_NORMS: Mapping[str, BatchNorm] = MappingProxyType({})


@dataclass(frozen=True, eq=False)
class RoundedLayer:
    """One layer's filter as powers of two.

    ``layer``: its index. ``channel_axis``: the filter's axis of output channels. ``factors``: what batch
    normalization multiplies each channel's scale by, float64 ``[out_channel]``, or None.
    """

    layer: int
    name: str
    filter: PowerFilter
    channel_axis: int
    factors: Array | None = None

    @property
    def real(self) -> Array:
        """The filter of the float network, float32: powers of two times the channel's factor."""
        if self.factors is None:
            return self.filter.real
        shape = [1] * self.filter.signs.ndim
        shape[self.channel_axis] = -1
        scaled: Array = (self.filter.real * self.factors.reshape(shape)).astype(np.float32)
        return scaled


@dataclass(frozen=True, eq=False)
class RoundedNetwork:
    """A float32 graph whose filters are powers of two, biases in float, and those filters by layer."""

    graph: Graph
    layers: tuple[RoundedLayer, ...]

    @property
    def memory(self) -> FilterMemory:
        """Bits of all filters."""
        return sum((memory(layer.filter) for layer in self.layers), FilterMemory(0, 0, 0))


def round_network(
    graph: Graph,
    bits: int,
    max_span: int | None = None,
    norms: Mapping[str, BatchNorm] = NO_NORMS,
) -> RoundedNetwork:
    """Rounds the filter of every layer of a float32 graph, first and last included, each to a set of its own.

    ``norms``: batch normalization that follows a layer, before its activation, by the name of the layer's
    output; it goes into scales, signs and biases. ``max_span`` as for :func:`powers_for`.

    Raises UsageError for bits there are none of, ModelError for a filter that two layers share, weights that
    are not finite, or a name in ``norms`` that no layer with a bias has; UnsupportedOp as quantization does.
    """
    check_quantizable(graph)
    tensors, layers = list(graph.tensors), []
    unused = set(norms)
    for view in graph.views():
        affine = AFFINE_LAYERS.get(view.op)
        if affine is None:
            continue
        tensor, bias = view.input(affine.filter), view.optional_input(affine.bias)
        if tensor.data is None or tensor.dtype != "float32":
            raise UnsupportedOp(f"{view}: {tensor.name!r} is not a float32 constant")
        if tensors[tensor.index] is not tensor:
            raise ModelError(f"{view}: another layer has the filter {tensor.name!r}, too")
        try:
            powers = powers_for(tensor.data, bits, max_span)
        except ModelError as failure:
            raise ModelError(f"{view}: {tensor.name!r}: {failure}") from None
        filter_, factors = round_filter(tensor.data, powers), None
        norm = norms.get(view.output().name)
        if norm is not None:
            if bias is None or bias.data is None or tensors[bias.index] is not bias:
                raise ModelError(f"{view}: batch normalization needs a bias of the layer's own to go into")
            unused.discard(view.output().name)
            filter_, factors, folded = fold(filter_, bias.data, norm, affine.channel_axis)
            tensors[bias.index] = replace(bias, data=folded)
        layers.append(RoundedLayer(view.layer.index, tensor.name, filter_, affine.channel_axis, factors))
        tensors[tensor.index] = replace(tensor, data=layers[-1].real)
    if unused:
        raise ModelError(f"graph {graph.name!r} has no layer {sorted(unused)[0]!r} to be normalized")
    return RoundedNetwork(replace(graph, tensors=tuple(tensors)), tuple(layers))


def quantize_rounded(
    network: RoundedNetwork,
    samples: Iterable[Array],
    scheme: QuantizationScheme = PER_CHANNEL_INT8,
    given: Mapping[str, Range] = NONE_GIVEN,
    wide: bool = False,
) -> Graph:
    """The 8-bit graph whose integer filters are exactly the powers of two; activations as ever.

    ``samples``, ``given`` and errors are those of :func:`karat24.export.quantize.quantize_model`. ``wide``:
    a filter whose exponents span 7 to 14 is kept as int16, which only
    :func:`karat24.export.onnx.write_quantized_onnx` in its flavour ``qoperator`` writes, as two int8
    convolutions. Accumulators and biases are checked as for any 8-bit graph.

    Raises UnsupportedOp naming the layer whose filter does not fit, UsageError for a scheme that would
    change filters: uint8 ones, or equalization.
    """
    if scheme.activations != "int8" or scheme.equalize:
        raise UsageError("powers of two need a scheme with int8 filters and without equalization")
    per_channel = scheme.filters == "per_channel"
    filters = {}
    for layer in network.layers:
        if layer.factors is not None and not per_channel:
            raise UsageError(f"{layer.name!r}: batch normalization needs a scheme with filters per channel")
        view: LayerView = network.graph.view(layer.layer)
        axis = layer.channel_axis if per_channel else None
        filters[layer.name] = as_integers(layer.filter, str(view), axis, layer.factors, wide)
    if scheme.correct_bias:
        samples = list(samples)
    if any(values.dtype != np.int8 for values, _ in filters.values()):
        scheme = replace(scheme, correct_bias=False)  # no profile runs int16 filters
    seen = observe(network.graph, samples)
    return quantize_observed(network.graph, seen, samples, scheme, given, filters)
