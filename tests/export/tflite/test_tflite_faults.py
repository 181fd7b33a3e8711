"""One fault at a time: each is named in the message, with the layer or tensor it was found at."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

from karat24.export.tflite import read_tflite, write_tflite
from karat24.refimpl.builder import GraphBuilder
from karat24.refimpl.errors import (
    KaratError,
    ModelError,
    UnsupportedOp,
    UsageError,
)
from tests.support.tflite_edits import broken, scales, tensor
from tests.support.tflite_samples import every_feature


def layer(index: int, **values: Any) -> Callable[[Any], None]:
    def change(model: Any) -> None:
        for field, value in values.items():
            setattr(model.subgraphs[0].operators[index], field, value)

    return change


def option(index: int, **values: Any) -> Callable[[Any], None]:
    def change(model: Any) -> None:
        for field, value in values.items():
            setattr(model.subgraphs[0].operators[index].builtinOptions, field, value)

    return change


def code(index: int, **values: Any) -> Callable[[Any], None]:
    def change(model: Any) -> None:
        for field, value in values.items():
            setattr(model.operatorCodes[index], field, value)

    return change


def whole(**values: Any) -> Callable[[Any], None]:
    def change(model: Any) -> None:
        for field, value in values.items():
            setattr(model, field, value)

    return change


def subgraph(**values: Any) -> Callable[[Any], None]:
    def change(model: Any) -> None:
        for field, value in values.items():
            setattr(model.subgraphs[0], field, value)

    return change


def shorter_buffer(model: Any) -> None:
    (found,) = (t for t in model.subgraphs[0].tensors if t.name == b"filter")
    model.buffers[found.buffer].data = model.buffers[found.buffer].data[:-1]


def two_entered_subgraphs(model: Any) -> None:
    model.subgraphs.append(model.subgraphs[0])
    model.signatureDefs.append(copy.deepcopy(model.signatureDefs[0]))
    model.signatureDefs[1].signatureKey, model.signatureDefs[1].subgraphIndex = b"second", 1


def buffer_behind_the_end(model: Any) -> None:
    (found,) = (t for t in model.subgraphs[0].tensors if t.name == b"filter")
    model.buffers[found.buffer].data = None
    model.buffers[found.buffer].offset = 10**6
    model.buffers[found.buffer].size = 54


def cyclic(model: Any) -> None:
    """The convolution reads what is computed from it."""
    convolution, concatenation = model.subgraphs[0].operators[1:3]
    convolution.inputs = [concatenation.outputs[0], *convolution.inputs[1:]]


def signature_names_no_tensor(model: Any) -> None:
    model.signatureDefs[0].outputs[0].tensorIndex = 99


def signature_name_twice(model: Any) -> None:
    for entry in model.signatureDefs[0].inputs:
        entry.name = b"image"


def signature_of_another_subgraph(model: Any) -> None:
    model.signatureDefs[0].subgraphIndex = 1


CASES: dict[str, tuple[Callable[[Any], None], type[KaratError], str]] = {
    "buffer shorter than its shape": (shorter_buffer, ModelError, r"'filter'.*holds 53 bytes.*needs 54"),
    "buffer longer than its shape": (
        tensor("filter", shape=[3, 3, 3, 1]),
        ModelError,
        "'filter'.*holds 54 bytes.*needs 27",
    ),
    "buffer not there": (tensor("filter", buffer=99), ModelError, "'filter'.*buffer 99.*the file has"),
    "buffer behind the end": (buffer_behind_the_end, ModelError, "'filter'.*bytes 1000000 to 1000054"),
    "constant without data": (tensor("filter", buffer=0), ModelError, r"CONV_2D.*'filter'.*missing"),
    "values for a computed tensor": (
        tensor("mean", buffer=1, shape=[54]),
        ModelError,
        r"'mean'.*already has a value",
    ),
    "cycle": (cyclic, ModelError, r"layer 1 \(CONV_2D\) reads.*'joined'.*cyclic"),
    "dangling input": (layer(0, inputs=[99]), ModelError, "QUANTIZE.*names tensor 99"),
    "negative input": (layer(0, inputs=[-2]), ModelError, "QUANTIZE.*names tensor -2"),
    "dangling output": (layer(0, outputs=[99]), ModelError, "QUANTIZE.*names tensor 99"),
    "dangling intermediate": (layer(0, intermediates=[-1, 99]), ModelError, "QUANTIZE.*names tensor 99"),
    "output left out": (layer(0, outputs=[-1]), ModelError, "QUANTIZE.*names tensor -1"),
    "dangling graph input": (subgraph(inputs=[0, 1, 99]), ModelError, "graph input names tensor 99"),
    "graph input twice": (subgraph(inputs=[0, 1, 1]), ModelError, "'extra'.*listed twice"),
    "dangling graph output": (subgraph(outputs=[99]), ModelError, "graph output names tensor 99"),
    "output nobody writes": (subgraph(operators=[]), ModelError, "graph output.*produced by no layer"),
    "no such operator code": (layer(1, opcodeIndex=99), ModelError, "layer 1 names operator code 99"),
    "negative operator": (
        code(1, deprecatedBuiltinCode=-5, builtinCode=-5),
        ModelError,
        "operator code -5",
    ),
    "version zero": (code(1, version=0), ModelError, "version 0 of op CONV_2D"),
    "custom name with a line break": (code(6, customCode=b"a\nb"), ModelError, r"'a\\nb'.*cannot be printed"),
    "padding of no kind": (option(1, padding=7), ModelError, "CONV_2D.*padding is number 7.*SAME"),
    "activation of no kind": (
        option(1, fusedActivationFunction=-1),
        ModelError,
        "fused_activation_function is number -1",
    ),
    "options of another op": (
        layer(1, builtinOptionsType=schema.BuiltinOptions.MulOptions, builtinOptions=schema.MulOptionsT()),
        ModelError,
        "CONV_2D.*MulOptions, not Conv2DOptions",
    ),
    "options of no kind": (
        layer(1, builtinOptionsType=250, builtinOptions=None),
        ModelError,
        "options of type number 250",
    ),
    "element type of no kind": (tensor("image", type=99), UnsupportedOp, "'image'.*number 99"),
    "negative size": (tensor("image", shape=[1, -6, 6, 2]), ModelError, "'image'.*fixed shape"),
    "unknown batch": (tensor("image", shape=[-1, 6, 6, 2]), ModelError, "'image'.*fixed shape"),
    "batch of nothing": (tensor("image", shape=[0, 6, 6, 2]), ModelError, "'image'.*fixed shape"),
    "more elements than an index": (
        tensor("image", shape=[2**30, 4, 1, 1]),
        ModelError,
        "'image'.*elements",
    ),
    "a thousand dimensions": (tensor("image", shape=[1] * 1000), ModelError, "'image'.*1000 dimensions"),
    "signature of a thousand": (
        tensor("image", shapeSignature=[1] * 1000),
        ModelError,
        "'image'.*1000 dimensions",
    ),
    "scale of zero": (scales("image", scale=[0.0]), ModelError, "'image'.*scale 0.0"),
    "negative scale": (scales("image", scale=[-0.5]), ModelError, "'image'.*scale -0.5"),
    "scale not a number": (scales("image", scale=[float("nan")]), ModelError, "'image'.*scale nan"),
    "infinite scale": (scales("image", scale=[float("inf")]), ModelError, "'image'.*scale inf"),
    "a zero point too many": (scales("image", zeroPoint=[1, 2]), ModelError, "'image'.*2 zero points"),
    "zero point out of range": (
        scales("image", zeroPoint=[256]),
        ModelError,
        "'image'.*256 is outside uint8",
    ),
    "a scale too few": (
        scales("filter", scale=[0.5, 0.5], zeroPoint=[0, 0]),
        ModelError,
        "'filter'.*2 scales for axis 0",
    ),
    "axis outside": (scales("filter", quantizedDimension=4), ModelError, "'filter'.*axis 4 of a rank-4"),
    "negative axis": (scales("filter", quantizedDimension=-1), ModelError, "'filter'.*axis -1"),
    "schema version 2": (whole(version=2), ModelError, "schema version 2"),
    "no subgraph": (whole(subgraphs=[]), ModelError, "no subgraph"),
    "two subgraphs to enter": (two_entered_subgraphs, UsageError, "0 .*'serving_default'.*1 .*'second'"),
    "signature: no such tensor": (signature_names_no_tensor, ModelError, "'serving_default' names tensor 99"),
    "signature: a name twice": (signature_name_twice, ModelError, "'image' twice"),
    "signature: subgraph": (signature_of_another_subgraph, ModelError, "is of subgraph 1; the file has 1"),
}


@pytest.mark.parametrize("case", CASES)
def test_named_faults(case: str) -> None:
    change, error, said = CASES[case]
    with pytest.raises(error, match=said) as caught:
        read_tflite(broken(change))
    assert type(caught.value) is error
    assert str(caught.value).isprintable()


def test_the_sample_is_sound_before_it_is_broken() -> None:
    """Otherwise the faults above would prove nothing."""
    assert read_tflite(broken(lambda model: None)) == read_tflite(write_tflite(every_feature()))


def test_bool_bytes_that_are_no_bool() -> None:
    builder = GraphBuilder()
    constant = builder.constant("mask", np.array([True, False, True]))

    def change(model: Any) -> None:
        model.buffers[1].data = [1, 2, 0]

    with pytest.raises(ModelError, match=r"'mask'.*other than 0 and 1"):
        read_tflite(broken(change, builder.build([constant])))


def test_option_that_is_no_number() -> None:
    builder = GraphBuilder()
    x = builder.input("x", (1, 4), "float32")
    y = builder.layer("SOFTMAX", [x], [builder.tensor("y", (1, 4), "float32")], beta=1.0)
    with pytest.raises(ModelError, match=r"SOFTMAX.*beta is nan"):
        read_tflite(broken(option(0, beta=float("nan")), builder.build([y])))
