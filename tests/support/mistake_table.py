"""Mistakes that a layer can hold, made without the code that names them, and what must be said of each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import TypeAlias

import numpy as np

from karat24.refimpl.engine import compile_graph
from karat24.refimpl.graph import Array, Graph, LayerView
from karat24.refimpl.profiles import PROFILES
from karat24.refimpl.step import prepare_step
from tests.support.int8_networks import NETWORKS
from tests.support.mistakes import (
    PROFILE,
    Mistake,
    attribute,
    constant,
    entry,
    next_above,
    quantized,
    step_by_step,
    summed,
    swapped,
)


@dataclass(frozen=True)
class Row:
    """A mistake and what must be said of it; ``ties`` asks for the network in which small ones show."""

    kind: str
    place: str
    mistake: Mistake
    ties: bool = False


Make: TypeAlias = Callable[[LayerView], Row | None]
"""The row for a layer, None where the layer cannot have the mistake."""


def dense(view: LayerView) -> bool:
    return view.op == "CONV_2D"


def zero_point(role: int | str, by: int) -> Make:
    """``by`` more in a tensor's zero point."""

    def make(view: LayerView) -> Row:
        tensor = view.output() if role == "output" else view.input(int(role))
        name, own = "output" if role == "output" else "input", tensor.zero_point
        place = f"that of the {name} is {own + by} in place of {own}"
        return Row("zero point off", place, quantized(role, float, by))

    return make


def no_zero_point(role: int | str) -> Make:
    def make(view: LayerView) -> Row | None:
        own = (view.output() if role == "output" else view.input(int(role))).zero_point
        return None if own == 0 else zero_point(role, -own)(view)

    return make


def filter_zero_point(by: int) -> Make:
    place = f"that of the filter is {-by} in place of 0"
    return lambda _: Row("zero point off", place, summed(weights=by))


def of_tensor_0(role: int | str) -> Make:
    """The scale of the network's input, where the layer does not read it anyway."""
    name = "output" if role == "output" else "input"

    def make(view: LayerView) -> Row | None:
        if role == 0 and view.input(0).index == 0:
            return None
        said = f"the {name} has that of tensor 0"
        return Row("scale of another tensor", said, quantized(role, lambda _: 0.021))

    return make


def of_the_other_end(role: int | str) -> Make:
    """Input and output have each other's scale."""

    def make(view: LayerView) -> Row:
        name, other = ("output", view.input(0)) if role == "output" else ("input", view.output())
        said = f"the {name} has that of tensor {other.index}"
        return Row("scale of another tensor", said, quantized(role, lambda _: other.scale))

    return make


def scale_and_zero_point_of_tensor_0(view: LayerView) -> Row:
    by = -3 - view.output().zero_point
    said = "the output has scale and zero point of tensor 0"
    return Row("scale of another tensor", said, quantized("output", lambda _: 0.021, by))


def last_bit(role: int | str, name: str) -> Make:
    said = f"that of the {name} is the next float32 above"
    return lambda _: Row("scale off in its last bit", said, quantized(role, next_above), ties=True)


def bias(kind: str, place: str, change: Callable[[Array], Array], ties: bool = False) -> Make:
    return lambda _: Row(kind, place, constant(2, change), ties)


def weights(kind: str, place: str, change: Callable[[Array], Array], only_dense: bool = False) -> Make:
    return lambda view: None if only_dense and not dense(view) else Row(kind, place, constant(1, change))


def weight_bit(channel: int, y: int, x: int, seen: int, bit: int) -> Make:
    def make(view: LayerView) -> Row:
        index = (channel, y, x, seen) if dense(view) else (0, y, x, channel)
        said = f"bit {bit} of weight {','.join(map(str, index))}"
        flip = entry(index, lambda w: np.int8(np.uint8(w) ^ np.uint8(1 << bit)))
        return Row("one weight bit", said, constant(1, flip))

    return make


def output_channels(first: int, second: int) -> Make:
    said = f"the weights of output channels {first} and {second}"
    return lambda view: Row(
        "channels swapped", said, constant(1, swapped(first, second, 0 if dense(view) else 3))
    )


def whole_channels(first: int, second: int) -> Make:
    def mistake(graph: Graph, view: LayerView, inputs: list[Array]) -> Array:
        own = summed()(graph, view, inputs)
        return np.ascontiguousarray(swapped(first, second, 3)(own))

    return lambda _: Row("channels swapped", f"output channels {first} and {second} as a whole", mistake)


def in_and_out(view: LayerView) -> Row | None:
    shape = view.input(1).shape
    if not dense(view) or shape[0] != shape[3]:
        return None
    said = "input and output channels of the filter"
    return Row("filter transposed", said, constant(1, lambda w: w.transpose(3, 1, 2, 0)))


def windows(y: int, x: int) -> Make:
    said = " and ".join(
        f"{abs(by)} to the {'front' if by < 0 else 'back'} in {axis}"
        for by, axis in ((y, "y"), (x, "x"))
        if by
    )
    return lambda _: Row("windows off by one", f"windows {said}", summed(shift=(y, x)))


def activation(other: str) -> Make:
    def make(view: LayerView) -> Row | None:
        own = view.text("fused_activation_function")
        if own == other:
            return None
        mistake = attribute(fused_activation_function=other)
        return Row("wrong fused activation", f"{other} in place of {own}", mistake)

    return make


def narrow(place: str, mistake: Mistake, only_dense: bool = False) -> Make:
    return lambda view: None if only_dense and not dense(view) else Row("narrow accumulator", place, mistake)


def clipped(values: Array) -> Array:
    return np.clip(values, -(2**15), 2**15 - 1)


def wrapped(graph: Graph, view: LayerView, inputs: list[Array]) -> Array:
    """int16 sums, bias included, that wrap."""
    own = np.asarray(inputs[2], np.int64)
    return summed(lambda terms: (terms.sum(axis=-1) + own).astype(np.int16).astype(np.int64) - own)(
        graph, view, inputs
    )


def from_the_bias(graph: Graph, view: LayerView, inputs: list[Array]) -> Array:
    """Sums that begin with the bias and saturate at every step."""

    def total(terms: Array) -> Array:
        found = np.broadcast_to(inputs[2].astype(np.int64), terms.shape[:-1])
        for place in range(terms.shape[-1]):
            found = clipped(found + terms[..., place])
        return found - inputs[2]

    return summed(total)(graph, view, inputs)


def saturating_pairs(graph: Graph, view: LayerView, inputs: list[Array]) -> Array:
    """AVX2 without VNNI: uint8 data, 128 added to it, times int8 weights, two products in 16 bits."""
    own = view.input(0).zero_point

    def total(terms: Array) -> Array:
        constants = inputs[1].reshape(len(inputs[1]), -1).astype(np.int64)  # [channel, term]
        data = np.zeros_like(terms)
        np.floor_divide(terms, constants, out=data, where=constants != 0)
        products = (data + own + 128) * constants
        pairs = [clipped(products[..., k : k + 2].sum(axis=-1)) for k in range(0, products.shape[-1], 2)]
        return np.asarray(sum(pairs) - (own + 128) * constants.sum(axis=-1))

    return summed(total)(graph, view, inputs)


def stale(view: LayerView) -> Row:
    """The layer of another training of the same network, which is given with --stale."""

    def mistake(graph: Graph, view: LayerView, inputs: list[Array]) -> Array:
        old = old_graphs()[view.op, view.layer.index, len(graph.layers)].view(view.layer.index)
        values = [inputs[0], *(tensor and tensor.data for tensor in old.inputs[1:])]
        step = prepare_step(old, PROFILES[PROFILE], compile_graph(graph, PROFILE, 1, "spec").target, "spec")
        return compile_graph(graph, PROFILE, 1, "spec").run_step(step, values).outputs[0]

    return Row("stale model", "of old.tflite", mistake)


@cache
def old_graphs() -> dict[tuple[str, int, int], Graph]:
    """The networks with other parameters, by op, index and number of layers."""
    return {
        (view.op, view.layer.index, len(graph.layers)): graph
        for graph in (network(seed=77) for network in NETWORKS.values())
        for view in graph.views()
    }


def rounding(profile: str) -> Make:
    """The layer alone rounds as another runtime does."""

    def mistake(graph: Graph, view: LayerView, inputs: list[Array]) -> Array:
        program = compile_graph(graph, PROFILE, 1, "spec")
        step = prepare_step(view, PROFILES[profile], program.target, "spec")
        return program.run_step(step, inputs).outputs[0]

    return lambda _: Row("explained", f"every value equals {profile}", mistake, ties=True)


MISTAKES: dict[str, Make] = {
    "zero point of the input one more": zero_point(0, 1),
    "zero point of the input one less": zero_point(0, -1),
    "zero point of the input 128 more": zero_point(0, 128),
    "zero point of the input left out": no_zero_point(0),
    "zero point of the output one more": zero_point("output", 1),
    "zero point of the output one less": zero_point("output", -1),
    "zero point of the output left out": no_zero_point("output"),
    "zero point of the filter -1": filter_zero_point(1),
    "zero point of the filter 1": filter_zero_point(-1),
    "last bit of the input's scale": last_bit(0, "input"),
    "last bit of the filter's scale": last_bit(1, "filter"),
    "last bit of the output's scale": last_bit("output", "output"),
    "output with the scale of tensor 0": of_tensor_0("output"),
    "input with the scale of tensor 0": of_tensor_0(0),
    "output with the input's scale": of_the_other_end("output"),
    "input with the output's scale": of_the_other_end(0),
    "output with scale and zero point of tensor 0": scale_and_zero_point_of_tensor_0,
    "no bias": bias("bias missing", "that of every channel", np.zeros_like),
    "no bias of a channel": bias("bias missing", "that of channel 4", entry((4,), lambda _: 0)),
    "bias one more": bias("bias off by one", "one larger in every channel", lambda b: b + 1, True),
    "bias one less": bias("bias off by one", "one smaller in every channel", lambda b: b - 1, True),
    "bias of a channel one more": bias(
        "bias off by one", "one larger in channel 2", entry((2,), lambda b: b + 1), True
    ),
    "bias of the next channel": bias(
        "bias of another channel", "each channel has the next one's", lambda b: np.roll(b, -1)
    ),
    "bias of the previous channel": bias(
        "bias of another channel", "each channel has the previous one's", lambda b: np.roll(b, 1)
    ),
    "biases of two channels swapped": bias(
        "bias of another channel", "channels 1 and 3 have each other's", swapped(1, 3, 0)
    ),
    "bias of one channel in another": bias(
        "bias of another channel", "channel 5 has that of channel 0",
        lambda b: entry((5,), lambda _: b[0])(np.array(b)),
    ),
    "bit 2 of a weight": weight_bit(1, 1, 1, 0, 2),
    "bit 6 of a weight": weight_bit(3, 0, 2, 1, 6),
    "sign of a weight": weight_bit(5, 2, 1, 2, 7),
    "weights of two output channels swapped": output_channels(1, 4),
    "two output channels swapped": whole_channels(0, 5),
    "two input channels swapped": weights(
        "channels swapped", "input channels 0 and 3", swapped(0, 3, 3), only_dense=True
    ),
    "y and x of the filter swapped": weights(
        "filter transposed", "y and x of the filter", lambda w: w.swapaxes(1, 2)
    ),
    "input and output channels swapped": in_and_out,
    "filter stored with the output channel last": weights(
        "filter transposed", "as if the output channel came last",
        lambda w: np.moveaxis(w.reshape(*w.shape[1:], w.shape[0]), -1, 0), only_dense=True,
    ),
    "filter flipped": weights("filter flipped", "in y and x", lambda w: w[:, ::-1, ::-1]),
    "filter flipped in y": weights("filter flipped", "in y", lambda w: w[:, ::-1]),
    "filter flipped in x": weights("filter flipped", "in x", lambda w: w[:, :, ::-1]),
    "padding with the number 0": lambda view: None if view.input(0).zero_point == 0 else Row(
        "padding with 0", "0 in place of the zero point", summed(border=lambda zero: -zero)
    ),
    "windows one up and left": windows(-1, -1),
    "windows one down": windows(1, 0),
    "windows one to the right": windows(0, 1),
    "windows one down and right": windows(1, 1),
    "no activation": activation("NONE"),
    "RELU": activation("RELU"),
    "RELU6": activation("RELU6"),
    "RELU_N1_TO_1": activation("RELU_N1_TO_1"),
    "sums that saturate at 16 bits": narrow("the sum saturates at 16 bits", summed(over_bias=True)),
    "products that saturate at 16 bits": narrow(
        "the sum of products saturates at 16 bits, before the bias",
        summed(lambda terms: clipped(terms.sum(axis=-1))),
    ),
    "sums that wrap at 16 bits": narrow("the sum wraps at 16 bits", wrapped),
    "sums that saturate at every step": narrow(
        "every step saturates at 16 bits, from 0", summed(step_by_step)
    ),
    "sums that saturate from the bias on": narrow(
        "every step saturates at 16 bits, from the bias", from_the_bias
    ),
    "saturating AVX2 arithmetic": narrow(
        "pairs of u8s8 products saturate at 16 bits", saturating_pairs, only_dense=True
    ),
    "stale model": stale,
    "rounding of the builtin kernels": rounding("litert-2.3-builtin"),
    "rounding of XNNPACK": rounding("litert-2.3-xnnpack"),
}  # fmt: skip
