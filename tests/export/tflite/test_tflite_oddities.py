"""Sound files that look odd: what other writers do, read for what it means."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

from karat24.export.tflite import read_tflite, write_tflite
from karat24.export.tflite.schema import enum_names
from karat24.refimpl.builder import GraphBuilder
from karat24.refimpl.errors import ModelError
from tests.support.tflite_edits import broken, scales, tensor
from tests.support.tflite_samples import every_feature


def test_zero_points_may_be_left_out() -> None:
    """Symmetric quantizers leave them out; they are 0."""
    graph = read_tflite(broken(scales("filter", zeroPoint=None)))
    assert graph == read_tflite(write_tflite(every_feature()))


def test_a_scale_of_no_values_is_no_quantization() -> None:
    graph = read_tflite(broken(scales("custom", scale=[], zeroPoint=[])))
    assert graph.tensors[graph.outputs[1]].quantization is None


def test_stale_signatures_are_left_out() -> None:
    """Tools that insert tensors leave signatures that name the wrong ones; LiteRT runs such files."""

    def change(model: Any) -> None:
        model.signatureDefs[0].outputs[0].tensorIndex = 2

    assert read_tflite(broken(change)).signatures == ()


def test_names_that_are_no_text_are_escaped() -> None:
    graph = read_tflite(broken(tensor("mean", name=b"\xff\xfemean")))
    assert r"\xff\xfemean" in [tensor.name for tensor in graph.tensors]


def test_ops_without_a_line_are_kept_without_options() -> None:
    def change(model: Any) -> None:
        code = schema.BuiltinOperator.RNN
        model.operatorCodes[1].builtinCode = model.operatorCodes[1].deprecatedBuiltinCode = code

    view = read_tflite(broken(change)).view(1)
    assert (view.op, dict(view.layer.attributes)) == ("RNN", {})


def test_constants_behind_the_flatbuffer() -> None:
    """Files above 2 GiB keep constants after the flatbuffer, at offsets from the start of the file."""
    graph = read_tflite(write_tflite(every_feature()))
    (kernel,) = (t for t in graph.tensors if t.name == "filter")
    assert kernel.data is not None

    def outside(offset: int) -> Callable[[Any], None]:
        def change(model: Any) -> None:
            buffer = model.buffers[model.subgraphs[0].tensors[kernel.index].buffer]
            buffer.data, buffer.offset, buffer.size = None, offset, 54
            custom = model.subgraphs[0].operators[-1]
            custom.customOptions = None
            custom.largeCustomOptionsOffset, custom.largeCustomOptionsSize = offset + 54, 40

        return change

    length = len(broken(outside(10**6)))
    content = broken(outside(length)) + kernel.data.tobytes() + bytes(range(40))
    assert read_tflite(content) == graph
    with pytest.raises(ModelError, match="odd-op"):
        read_tflite(content[:-1])


@pytest.mark.parametrize("shift", range(4))
def test_unaligned_constants_are_copied(shift: int) -> None:
    """Some writers align nothing; kernels rely on aligned arrays."""
    builder = GraphBuilder()
    graph = builder.build([builder.constant("c", np.arange(8, dtype=np.int32))])

    def outside(offset: int) -> Callable[[Any], None]:
        def change(model: Any) -> None:
            model.buffers[1].data, model.buffers[1].offset, model.buffers[1].size = None, offset, 32

        return change

    offset = len(broken(outside(10**6), graph)) + shift
    content = broken(outside(offset), graph) + bytes(shift) + np.arange(8, dtype="<i4").tobytes()
    values = read_tflite(content).tensors[0].data
    assert values is not None
    assert values.flags.aligned
    assert values.tolist() == list(range(8))


def test_integers_python_adds_to_a_class_are_no_element_types(monkeypatch: pytest.MonkeyPatch) -> None:
    """Python 3.13 gives every class an integer ``__firstlineno__``; older ones are shown one here."""
    enum = type("Colour", (), {"RED": 0, "GREEN": 7, "__firstlineno__": 3, "__doc__": None})
    monkeypatch.setattr(schema, "Colour", enum, raising=False)
    assert dict(enum_names("Colour")) == {0: "RED", 7: "GREEN"}
