"""From a float32 graph and ranges to a graph of 8 or 16 bits, as TensorFlow's converter writes it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType

import numpy as np

from karat24.export.quantize.affine import Range, parameters_of_range, quantize_bias, range_of_parameters
from karat24.export.quantize.affine_layers import AFFINE_LAYERS, AffineLayer
from karat24.export.quantize.bias_correction import correct_biases
from karat24.export.quantize.calibration import observe
from karat24.export.quantize.equalization import equalize
from karat24.export.quantize.filters import FILTER_TYPE, quantize_filter
from karat24.export.quantize.histogram import Histogram
from karat24.export.quantize.overflow import check_accumulators
from karat24.export.quantize.ranges import choose_range
from karat24.export.quantize.scheme import PER_CHANNEL_INT8, QuantizationScheme
from karat24.export.quantize.sharing import KEEPING, SHARING, share_ranges, spread_ranges
from karat24.export.tflite import with_lowest_versions
from karat24.refimpl.builder import GraphBuilder
from karat24.refimpl.errors import ModelError, UnsupportedOp
from karat24.refimpl.graph import Array, AttributeValue, Graph, LayerView, Quantization, Tensor

NONE_GIVEN: Mapping[str, Range] = MappingProxyType({})

NO_FILTERS: Mapping[str, tuple[Array, Quantization]] = MappingProxyType({})

RESCALING = frozenset({"ADD", "MEAN", "RELU"})
"""Ops without a filter whose output has parameters of its own."""


def quantize_model(
    graph: Graph,
    samples: Iterable[Array],
    scheme: QuantizationScheme = PER_CHANNEL_INT8,
    given: Mapping[str, Range] = NONE_GIVEN,
) -> Graph:
    """Calibrates a float32 graph on ``samples`` and quantizes it; the same input gives the same graph.

    ``samples`` as for :func:`calibrate`; with ``scheme.correct_bias`` all of them are held at once. ``given``
    are ranges of activations, by name, that are known beforehand: an input fed by another quantized network
    is best read in that one's parameters, or its values are rounded twice. Errors are :func:`calibrate`'s,
    :func:`quantize_graph`'s and :func:`correct_biases`'s, and ModelError for a name of no activation.
    """
    check_quantizable(graph)
    if scheme.correct_bias:
        samples = list(samples)
    graph = prepared(graph, scheme)
    return quantize_observed(graph, observe(graph, samples), samples, scheme, given)


def quantize_learnt(
    graph: Graph, ranges: Mapping[str, tuple[float, float]], scheme: QuantizationScheme = PER_CHANNEL_INT8
) -> Graph:
    """Quantizes a float32 graph as it was trained to be: in the ranges it learnt, by activation.

    One named tensor is enough for all that share its parameters. Only the types and the granularity of
    ``scheme`` are used; its steps would undo what was learnt. Errors are :func:`quantize_graph`'s, and
    ModelError for a name that is not an activation or an activation without a range.
    """
    named = {name: Range(*ends) for name, ends in ranges.items()}
    return quantize_graph(graph, spread_ranges(graph, named), scheme.without_steps())


def prepared(graph: Graph, scheme: QuantizationScheme) -> Graph:
    """The float32 graph to be observed and quantized: equalized, if the scheme says so."""
    return equalize(graph) if scheme.equalize else graph


def quantize_observed(
    graph: Graph,
    seen: Mapping[int, Histogram],
    samples: Iterable[Array],
    scheme: QuantizationScheme,
    given: Mapping[str, Range] = NONE_GIVEN,
    filters: Mapping[str, tuple[Array, Quantization]] = NO_FILTERS,
) -> Graph:
    """Quantizes a prepared graph, given what :func:`observe` saw of it over ``samples``, which are read
    again only to correct biases; ranges known beforehand; and ``filters`` as for :func:`quantize_graph`."""
    ranges = {
        index: choose_range(histogram, scheme.range_method, scheme.symmetric_activations)
        for index, histogram in seen.items()
    }
    by_name = {graph.tensors[index].name: index for index in seen}
    for name, values in given.items():
        if name not in by_name:
            raise ModelError(f"graph {graph.name!r} has no activation {name!r}, for which a range is given")
        ranges[by_name[name]] = values
    quantized = quantize_graph(graph, ranges, scheme, filters)
    return correct_biases(graph, quantized, samples) if scheme.correct_bias else quantized


def quantize_graph(
    graph: Graph,
    ranges: Mapping[int, Range],
    scheme: QuantizationScheme = PER_CHANNEL_INT8,
    filters: Mapping[str, tuple[Array, Quantization]] = NO_FILTERS,
) -> Graph:
    """The quantized graph of a float32 graph, given the range of each activation by tensor index.

    ``filters`` holds filters that are integers already, by the name of the float filter each stands for,
    with their parameters; ``scheme`` says how the others are quantized.

    Layers, names and order stay; op versions become the lowest that say it; tensors get the parameters
    of ``scheme`` and biases become integers. With ``scheme.input_output`` other than
    ``scheme.activations`` the public inputs and outputs keep their names and a QUANTIZE stands between
    each and its inner tensor, called ``<name>_<activations>``. What changes the graph itself or needs the
    samples again, ``scheme.equalize`` and ``scheme.correct_bias``, is :func:`quantize_model`'s to do.

    Raises UnsupportedOp for an op that cannot be quantized, ModelError for a missing or infinite range,
    a filter that is not finite, or an accumulator that could overflow.
    """
    check_quantizable(graph)
    quantized = with_lowest_versions(_Quantizer(graph, ranges, scheme, filters).run())
    check_accumulators(quantized)
    return quantized


def output_range(graph: Graph) -> Range:
    """The real values a quantized graph's first output can take: what a network that reads it is to be
    ``given`` for its input."""
    tensor = graph.tensors[graph.outputs[0]]
    if tensor.quantization is None:
        raise ModelError(f"{graph.label(tensor.index)} is not quantized")
    return range_of_parameters(tensor.quantization, tensor.dtype)


def check_quantizable(graph: Graph) -> None:
    """Raises ModelError or UnsupportedOp naming the first layer that cannot be quantized."""
    if graph.format != "tflite":
        raise ModelError(f"graph {graph.name!r} is {graph.format}; only TFLite-style graphs are quantized")
    for view in graph.views():
        if view.op not in KEEPING | SHARING | RESCALING and view.op not in AFFINE_LAYERS:
            raise UnsupportedOp(f"{view}: no quantization for {view.op}; add it in export/quantize")
        if view.output().dtype != "float32":
            raise ModelError(f"{view} gives {view.output().dtype}, not float32: is it quantized already?")


class _Quantizer:
    """One quantization under way: the graph being built and where each old tensor went."""

    def __init__(
        self,
        graph: Graph,
        ranges: Mapping[int, Range],
        scheme: QuantizationScheme,
        filters: Mapping[str, tuple[Array, Quantization]],
    ) -> None:
        self._graph, self._scheme, self._filters = graph, scheme, filters
        self._builder = GraphBuilder(graph.name, description=_description(graph, scheme))
        self._parameters = {
            index: self._activation_parameters(index, values)
            for index, values in share_ranges(graph, ranges).items()
        }
        self._new_index: dict[int, int] = {}
        self._constants: dict[tuple[object, ...], int] = {}

    def run(self) -> Graph:
        """Inputs, layers and outputs in order."""
        for index in self._graph.inputs:
            self._add_input(self._graph.tensors[index])
        for view in self._graph.views():
            self._add_layer(view)
        return self._builder.build([self._output(self._graph.tensors[i]) for i in self._graph.outputs])

    @property
    def _converts_ends(self) -> bool:
        return self._scheme.input_output != self._scheme.activations

    def _activation_parameters(self, index: int, values: Range) -> Quantization:
        try:
            return parameters_of_range(values, self._scheme.activations, self._scheme.symmetric_activations)
        except ModelError as failure:
            raise ModelError(f"{self._graph.label(index)}: {failure}") from None

    def _public_parameters(self, index: int) -> Quantization:
        """Parameters that give equal real values in the other element type: int8 and uint8 differ by 128."""
        (scale,), (zero_point,) = self._parameters[index].scale, self._parameters[index].zero_point
        offset = 128 if self._scheme.input_output == "uint8" else -128
        return Quantization.per_tensor(scale, zero_point + offset)

    def _inner_name(self, tensor: Tensor) -> str:
        public = tensor.index in self._graph.inputs or tensor.index in self._graph.outputs
        return f"{tensor.name}_{self._scheme.activations}" if public and self._converts_ends else tensor.name

    def _add_input(self, tensor: Tensor) -> None:
        inner = self._parameters[tensor.index]
        if not self._converts_ends:
            self._new_index[tensor.index] = self._builder.input(
                tensor.name, tensor.shape, self._scheme.activations, inner
            )
            return
        public = self._builder.input(
            tensor.name, tensor.shape, self._scheme.input_output, self._public_parameters(tensor.index)
        )
        self._new_index[tensor.index] = self._builder.layer(
            "QUANTIZE", (public,), (self._activation(tensor),)
        )

    def _output(self, tensor: Tensor) -> int:
        inner = self._new_index[tensor.index]
        if not self._converts_ends:
            return inner
        public = self._builder.tensor(
            tensor.name, tensor.shape, self._scheme.input_output, self._public_parameters(tensor.index)
        )
        return self._builder.layer("QUANTIZE", (inner,), (public,))

    def _activation(self, tensor: Tensor) -> int:
        return self._builder.tensor(
            self._inner_name(tensor), tensor.shape, self._scheme.activations, self._parameters[tensor.index]
        )

    def _add_layer(self, view: LayerView) -> None:
        affine = AFFINE_LAYERS.get(view.op)
        inputs = self._affine_inputs(view, affine) if affine else self._plain_inputs(view)
        output = self._activation(view.output())
        attributes = {**view.layer.attributes, **self._attributes_of_16_bits(view)}
        self._new_index[view.output().index] = self._builder.layer(
            view.op, inputs, (output,), 1, **attributes
        )

    def _attributes_of_16_bits(self, view: LayerView) -> dict[str, AttributeValue]:
        """What says that an int16 layer's bias is int32, which its kernel would read as int64, or that its
        operands are multiplied where their scales happen to be powers of two, which ends LiteRT's process
        when shapes differ."""
        if self._scheme.activations != "int16":
            return {}
        if view.op == "ADD":
            return {"pot_scale_int16": False}
        affine = AFFINE_LAYERS.get(view.op)
        narrow = affine and view.optional_input(affine.bias) is not None and self._scheme.biases == "int32"
        return {"quantized_bias_type": "int32"} if narrow else {}

    def _plain_inputs(self, view: LayerView) -> list[int]:
        """Activations where they went; constants (sizes, shapes) as they are."""
        return [-1 if tensor is None else self._moved(tensor) for tensor in view.inputs]

    def _moved(self, tensor: Tensor) -> int:
        if tensor.data is None:
            return self._new_index[tensor.index]
        return self._constant((tensor.index,), tensor.name, tensor.data, tensor.quantization)

    def _affine_inputs(self, view: LayerView, affine: AffineLayer) -> list[int]:
        image, filter_ = view.input(affine.input), view.input(affine.filter)
        bias = view.optional_input(affine.bias)
        filter_values = _finite(view, filter_)
        bias_values = None if bias is None else _finite(view, bias)
        input_scale = self._parameters[image.index].scale[0]
        values, parameters = self._filters.get(filter_.name) or quantize_filter(
            filter_values,
            bias_values,
            input_scale,
            FILTER_TYPE[self._scheme.activations],
            self._scheme.filters == "per_channel",
            affine.channel_axis,
            self._scheme.filter_ranges == "mse",
            self._scheme.biases,
        )
        inputs = []
        for position, tensor in enumerate(view.inputs):
            if tensor is None:
                inputs.append(-1)
            elif position == affine.filter:
                inputs.append(self._constant((tensor.index, parameters), tensor.name, values, parameters))
            elif position == affine.bias:
                assert bias_values is not None
                quantized, scales = quantize_bias(bias_values, input_scale, parameters, self._scheme.biases)
                inputs.append(self._constant((tensor.index, scales), tensor.name, quantized, scales))
            else:
                inputs.append(self._moved(tensor))
        return inputs

    def _constant(
        self, key: Sequence[object], name: str, values: Array, parameters: Quantization | None
    ) -> int:
        """Stores a constant once for every set of parameters layers need it in."""
        found = self._constants.get(tuple(key))
        if found is None:
            found = self._constants[tuple(key)] = self._builder.constant(name, values, parameters)
        return found


def _finite(view: LayerView, tensor: Tensor) -> Array:
    if tensor.data is None or tensor.dtype != "float32":
        raise UnsupportedOp(f"{view}: {tensor.name!r} is not a float32 constant")
    if not np.isfinite(tensor.data).all():
        raise ModelError(f"{view}: {tensor.name!r} holds NaN or infinite values")
    return tensor.data


def _description(graph: Graph, scheme: QuantizationScheme) -> str:
    symmetry = "symmetric " if scheme.symmetric_activations else ""
    return (
        f"{graph.description or graph.name}; {symmetry}{scheme.activations}, "
        f"filters {scheme.filters.replace('_', ' ')}"
    )
