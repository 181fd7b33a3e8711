"""Bias correction: the mean error of every output channel, measured and taken out of its bias.

Rounded weights and clipped activations shift a layer's outputs: ``E[W~ x~] != E[W x]``, and a shift of a
whole channel, unlike noise, adds up from layer to layer and is seen in an image. Layer by layer, what the
quantized layer makes of the inputs that the layers before it (corrected already) give it is compared with
the float network over the calibration data, and the difference of the means goes into the integer bias
(Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction", 2019, appendix D).

The comparison uses the sum before the activation function and before rounding to 8 bits. The oracle has that
sum exactly, as accumulators, and a shift of the bias shifts it by as much.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

import numpy as np

from karat24.export.quantize.affine import quantize_array
from karat24.export.quantize.affine_layers import AFFINE_LAYERS, AffineLayer
from karat24.export.quantize.calibration import each_activation
from karat24.export.quantize.filters import MAX_BIAS
from karat24.export.quantize.overflow import check_accumulators
from karat24.refimpl.engine import Program, compile_graph
from karat24.refimpl.errors import ModelError
from karat24.refimpl.graph import QUANTIZED_RANGE, Array, Graph, Layer, LayerView, Tensor
from karat24.refimpl.profiles import CANONICAL
from karat24.refimpl.step import prepare_step


def correct_biases(float_graph: Graph, quantized: Graph, samples: Iterable[Array]) -> Graph:
    """``quantized`` with the biases at which every channel has the mean it has in ``float_graph``.

    ``quantized`` is what :func:`karat24.export.quantize.quantize_graph` made of ``float_graph``; ``samples``
    as for :func:`karat24.export.quantize.calibrate`, all held at once with the activations still to be read.
    A layer without a bias stays as it is, and the next one that has one makes up for it. Only biases change.
    Raises ModelError for graphs that do not belong together, and what :func:`calibrate` raises.
    """
    pairs = _paired(float_graph, quantized)
    samples = [np.asarray(sample) for sample in samples]
    targets = _channel_means(float_graph, samples)
    program = compile_graph(quantized, CANONICAL)
    prefix = _Prefix(program, samples)
    corrections: dict[int, Array] = {}
    for view in quantized.views():
        affine = AFFINE_LAYERS.get(view.op)
        bias = view.optional_input(affine.bias) if affine else None
        if affine is None or bias is None:
            prefix.advance(view)
            continue
        assert bias.data is not None
        assert bias.quantization is not None
        scales = np.array(bias.quantization.scale)
        shift = np.rint((targets[pairs[view.layer.index]] - prefix.mean_accumulator(view) * scales) / scales)
        most = MAX_BIAS[bias.dtype]
        data = np.clip(bias.data + shift, -most, most).astype(bias.data.dtype)
        corrections[view.layer.index] = data
        prefix.advance(_with_bias(view, affine, data))
    corrected = _with_biases(quantized, corrections)
    check_accumulators(corrected)
    return corrected


def _paired(float_graph: Graph, quantized: Graph) -> Mapping[int, int]:
    """Quantized affine layer to the float layer it was made of: both graphs have them in the same order."""
    before, after = (
        [view for view in graph.views() if view.op in AFFINE_LAYERS] for graph in (float_graph, quantized)
    )
    if [(v.op, v.output().shape) for v in before] != [(v.op, v.output().shape) for v in after]:
        raise ModelError(f"{quantized.name!r} is not what quantization made of {float_graph.name!r}")
    return {late.layer.index: early.layer.index for early, late in zip(before, after, strict=True)}


def _channel_means(graph: Graph, samples: Iterable[Array]) -> dict[int, Array]:
    """Per affine layer with a bias, the mean of each output channel over the samples, before the fused
    activation."""
    linear, layer_of = _with_linear_outputs(graph)
    sums = {index: np.zeros(graph.view(layer).output().shape[-1]) for index, layer in layer_of.items()}
    counts = dict.fromkeys(layer_of, 0)
    for index, values in each_activation(linear, samples, layer_of):
        sums[index] += values.sum(axis=(0, 2, 3), dtype=np.float64)
        counts[index] += values.size // values.shape[1]
    return {layer: sums[index] / counts[index] for index, layer in layer_of.items()}


def _with_linear_outputs(graph: Graph) -> tuple[Graph, dict[int, int]]:
    """The graph with, beside each affine layer with a fused activation, a copy of it without one; and the
    tensors that hold the linear sums, by index, with the layer each belongs to."""
    tensors, layers, layer_of = list(graph.tensors), list(graph.layers), {}
    for view in graph.views():
        affine = AFFINE_LAYERS.get(view.op)
        if affine is None or view.optional_input(affine.bias) is None:
            continue
        output = view.output()
        if view.text("fused_activation_function", "NONE") == "NONE":
            layer_of[output.index] = view.layer.index
            continue
        sums = Tensor(len(tensors), f"{output.name}/sums", output.shape, output.dtype)
        attributes = {**view.layer.attributes, "fused_activation_function": "NONE"}
        layers.append(
            Layer(len(layers), view.op, view.layer.inputs, (sums.index,), attributes, view.layer.version)
        )
        tensors.append(sums)
        layer_of[sums.index] = view.layer.index
    return replace(graph, tensors=tuple(tensors), layers=tuple(layers)), layer_of


class _Prefix:
    """The activations of the quantized network up to a layer, for all samples at once."""

    def __init__(self, program: Program, samples: list[Array]) -> None:
        self._program = program
        (index,) = program.graph.inputs
        entry = program.graph.tensors[index]
        self._values = [{index: _quantized(sample, entry)} for sample in samples]

    def mean_accumulator(self, view: LayerView) -> Array:
        """The mean over all samples of each channel's accumulator, bias included, float64 ``[channel]``."""
        means = []
        for values in self._values:
            result = self._program.run_layer(view.layer.index, _inputs(view, values), accumulator=True)
            assert result.accumulator is not None
            means.append(result.accumulator.mean(axis=(0, 1, 2), dtype=np.float64))
        mean: Array = np.mean(means, axis=0)
        return mean

    def advance(self, view: LayerView) -> None:
        """Corrects a layer's bias, runs the layer, and drops activations that no later layer reads."""
        step = prepare_step(view, self._program.profile, self._program.target)
        for values in self._values:
            result = self._program.run_step(step, _inputs(view, values))
            values.update((t.index, out) for t, out in zip(view.outputs, result.outputs, strict=True))
            for index in self._program.steps[view.layer.index].last_uses:
                del values[index]


def _inputs(view: LayerView, values: Mapping[int, Array]) -> list[Array | None]:
    return [None if t is None else values[t.index] if t.data is None else t.data for t in view.inputs]


def _quantized(sample: Array, entry: Tensor) -> Array:
    limits = QUANTIZED_RANGE[entry.dtype]
    return quantize_array(sample, np.array([entry.scale]), np.array([entry.zero_point]), limits, entry.dtype)


def _with_bias(view: LayerView, affine: AffineLayer, data: Array) -> LayerView:
    inputs = list(view.inputs)
    inputs[affine.bias] = replace(view.input(affine.bias), data=data)
    return replace(view, inputs=tuple(inputs))


def _with_biases(graph: Graph, corrections: Mapping[int, Array]) -> Graph:
    """The graph with new biases by layer index; a bias two layers shared is stored for each."""
    tensors, layers = list(graph.tensors), list(graph.layers)
    written: set[int] = set()
    for number, data in corrections.items():
        position = AFFINE_LAYERS[layers[number].op].bias
        inputs = list(layers[number].inputs)
        old = graph.tensors[inputs[position]]
        if old.index in written:
            inputs[position] = len(tensors)
            tensors.append(replace(old, index=len(tensors), data=data))
            layers[number] = replace(layers[number], inputs=tuple(inputs))
        else:
            written.add(old.index)
            tensors[old.index] = replace(old, data=data)
    return replace(graph, tensors=tuple(tensors), layers=tuple(layers))
