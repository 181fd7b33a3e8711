"""What an LSTM has to be: every other one is refused by name, before anything runs."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from karat24.refimpl.errors import ModelError, RefusedByRuntime, UnsupportedOp
from karat24.refimpl.graph import Graph, Quantization
from karat24.refimpl.ops import check_supported
from karat24.refimpl.profiles import PROFILES
from tests.cases.lstm import Lstm

Change = Callable[[Graph], Graph]
FULL = Lstm(
    "checked", cells=8, outputs=8, peephole=0.01, projection=True, norm=0.001, bias=(-900, 900)
)  # every input is there


def attributes(**changed: Any) -> Change:
    def change(graph: Graph) -> Graph:
        layer = graph.layers[0]
        return replace(graph, layers=(replace(layer, attributes={**layer.attributes, **changed}),))

    return change


def layer(**changed: Any) -> Change:
    return lambda graph: replace(graph, layers=(replace(graph.layers[0], **changed),))


def without(*positions: int) -> Change:
    def change(graph: Graph) -> Graph:
        kept = enumerate(graph.layers[0].inputs)
        return layer(inputs=tuple(-1 if position in positions else i for position, i in kept))(graph)

    return change


def tensor(position: int, **changed: Any) -> Change:
    """Another tensor at an input."""

    def change(graph: Graph) -> Graph:
        index = graph.layers[0].inputs[position]
        tensors = list(graph.tensors)
        tensors[index] = replace(tensors[index], **changed)
        return replace(graph, tensors=tuple(tensors), signatures=())

    return change


def scaled(position: int, scale: float, zero_point: int = 0) -> Change:
    return tensor(position, quantization=Quantization.per_tensor(scale, zero_point))


@pytest.mark.parametrize(
    ("change", "error", "said"),
    [
        (attributes(fused_activation_function="RELU"), UnsupportedOp, "activation RELU"),
        (attributes(diagonal_recurrent_tensors=True), UnsupportedOp, "diagonal"),
        (attributes(cell_clip=-0.5), ModelError, "cell_clip is -0.5"),
        (attributes(proj_clip=-1.0), ModelError, "proj_clip is -1.0"),
        (layer(intermediates=()), ModelError, "0 intermediates"),
        (
            lambda graph: layer(intermediates=graph.layers[0].intermediates[:1] * 12)(graph),
            UnsupportedOp,
            "8 bits",
        ),
        (lambda graph: layer(intermediates=(-1,) * 5)(graph), ModelError, "intermediate 0"),
        (lambda graph: layer(inputs=graph.layers[0].inputs[:23])(graph), ModelError, "23 inputs"),
        (without(4), ModelError, "input 4"),
        (without(1), ModelError, "input 5, which this LSTM cannot have"),
        (without(5), ModelError, "input 5"),
        (without(13), ModelError, "input 13"),
        (without(10), ModelError, "input 10"),
        (without(11), ModelError, "input 9, which"),
        (without(16), ModelError, "bias of a projection"),
        (without(22), ModelError, "input 22"),
        (without(18), ModelError, "input 18"),
        (tensor(2, data=None), ModelError, "before any layer"),
        (tensor(3, dtype="uint8", data=np.ones((8, 5), np.uint8)), UnsupportedOp, "is uint8"),
        (tensor(6, shape=(8, 7), data=np.ones((8, 7), np.int8)), ModelError, "shape"),
        (tensor(0, shape=(2, 5)), ModelError, "3 dimensions"),
        (tensor(18, dtype="variable int16"), ModelError, "variable of int8"),
        (tensor(19, dtype="variable float32"), ModelError, "variable of int16"),
        (tensor(19, shape=(3, 8)), ModelError, "shape"),
        (scaled(4, 0.01, 3), UnsupportedOp, "zero point 3"),
        (scaled(19, 2.0**-11, 1), UnsupportedOp, "zero point 1"),
        (scaled(19, 2.0**-8), UnsupportedOp, "2^-15 to 2^-9"),
        (scaled(19, 2.0**-16), UnsupportedOp, "2^-15 to 2^-9"),
        (scaled(19, 1 / 2047), UnsupportedOp, "power of two"),
        (scaled(6, 1e30), UnsupportedOp, "s_state"),
        (scaled(16, 1e30), UnsupportedOp, "s_projection"),
        (tensor(7, quantization=None), ModelError, "quantization"),
        (tensor(8, quantization=Quantization((0.5,) * 8, (0,) * 8)), ModelError, "per channel"),
    ],
)
def test_every_other_lstm_is_refused(change: Change, error: type[Exception], said: str) -> None:
    graph = FULL.case().graph
    check_supported(graph.view(0))
    with pytest.raises(error, match=re.escape(said)):
        check_supported(change(graph).view(0))


def test_sizes_that_runtimes_confuse_are_refused() -> None:
    cut = Lstm("confused", cells=8, outputs=6, projection=True, peephole=0.01).case().graph
    with pytest.raises(UnsupportedOp, match="there are 6 and 8"):
        check_supported(cut.view(0))
    short = Lstm("short", cells=8, outputs=6).case().graph
    with pytest.raises(ModelError, match="8 cells give 6 outputs"):
        check_supported(short.view(0))


def test_the_basic_kernel_is_refused_by_name() -> None:
    graph = attributes(kernel_type="BASIC")(Lstm("basic", op="LSTM").case().graph)
    with pytest.raises(UnsupportedOp, match="basic LSTM kernel"):
        check_supported(graph.view(0))


@pytest.mark.parametrize(
    ("lstm", "said"),
    [
        (Lstm("no input gate", cifg=True), "four gates"),
        (Lstm("peephole", peephole=0.01), "four gates"),
        (Lstm("projection", projection=True), "four gates"),
        (Lstm("norm", norm=0.01), "four gates"),
        (Lstm("short", short=True), "24 inputs"),
        (Lstm("single", op="LSTM"), "lacks the op"),
    ],
)
def test_tflm_runs_the_plain_one_only(lstm: Lstm, said: str) -> None:
    view = lstm.case().graph.view(0)
    with pytest.raises(RefusedByRuntime, match=said):
        PROFILES["tflm"].rule(view)
    assert PROFILES["tflm"].rule(Lstm("plain").case().graph.view(0)).method == "reference"


def test_nobody_knows_it_on_arm() -> None:
    view = Lstm("arm").case().graph.view(0)
    for profile in PROFILES.values():
        if "arm64" in profile.name and profile.format == "tflite":
            with pytest.raises(UnsupportedOp, match="which nobody has run"):
                profile.rule(view)
