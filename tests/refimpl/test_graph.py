"""A graph that exists is consistent: every way of being wrong is refused when it is built."""

from __future__ import annotations

from dataclasses import FrozenInstanceError

import numpy as np
import pytest

from karat24.refimpl.errors import ModelError
from karat24.refimpl.graph import Graph, Layer, Quantization, Signature, Tensor


def tensor(index: int, **changes: object) -> Tensor:
    fields: dict[str, object] = {"name": f"t{index}", "shape": (2,), "dtype": "int8"}
    return Tensor(index, **{**fields, **changes})  # type: ignore[arg-type]


def graph(**changes: object) -> Graph:
    fields: dict[str, object] = {
        "tensors": (tensor(0), tensor(1), tensor(2)),
        "layers": (Layer(0, "RELU", (0,), (1,)), Layer(1, "RELU", (1,), (2,))),
        "inputs": (0,),
        "outputs": (2,),
    }
    return Graph(**{**fields, **changes})  # type: ignore[arg-type]


def test_sound_graph_is_accepted() -> None:
    assert graph().view(1).input(0).name == "t1"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"outputs": (7,)}, "tensor 7"),
        ({"inputs": (-2,)}, "tensor -2"),
        ({"inputs": (0, 0)}, "listed twice"),
        ({"inputs": ()}, "before any layer produced it"),
        ({"outputs": (0, 2), "layers": ()}, "produced by no layer"),
        ({"tensors": (tensor(0), tensor(2), tensor(1))}, "calls itself"),
        ({"layers": (Layer(0, "RELU", (1,), (2,)), Layer(1, "RELU", (2,), (1,)))}, "cyclic"),
        ({"layers": (Layer(0, "RELU", (0,), (9,)),)}, "tensor 9"),
        ({"layers": (Layer(0, "RELU", (0,), (1,)), Layer(1, "RELU", (0,), (1,)))}, "already has a value"),
        ({"layers": (Layer(0, "RELU", (0,), (0,)),)}, "already has a value"),
        ({"layers": (Layer(5, "RELU", (0,), (1,)),)}, "calls itself layer 5"),
        ({"layers": (Layer(0, "RELU", (0,), (1,), intermediates=(-1, 9)),)}, "tensor 9"),
        ({"signatures": (Signature("s", {"x": 1}, {"y": 2}),)}, "not a graph input"),
        ({"signatures": (Signature("s", {"x": 0}, {"y": 1}),)}, "not a graph output"),
    ],
)
def test_inconsistent_graph_is_refused(changes: dict[str, object], said: str) -> None:
    with pytest.raises(ModelError, match=said):
        graph(**changes)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"dtype": "int5"}, "unknown element type"),
        ({"shape": (-1, 2)}, "unknown size"),
        ({"shape": (2**16, 2**16)}, "elements"),
        ({"data": np.zeros(3, np.int8)}, "buffer of shape"),
        ({"data": np.zeros(2, np.uint8)}, "buffer of uint8"),
        ({"quantization": Quantization((0.5, 0.5, 0.5), (0, 0, 0), 0)}, "3 scales for axis 0"),
        ({"shape": (1, 2), "quantization": Quantization((0.5, 0.5), (0, 0), 2)}, "axis 2 of a rank-2"),
        ({"quantization": Quantization((0.5, 0.5), (0, 0), -1)}, "axis -1 of a rank-1"),
        ({"quantization": Quantization.per_tensor(0.5, 128)}, "zero point 128"),
    ],
)
def test_inconsistent_tensor_is_refused(changes: dict[str, object], said: str) -> None:
    with pytest.raises(ModelError, match=said):
        tensor(0, **changes)


def test_scales_of_a_vector_belong_to_its_elements_whatever_axis_the_file_names() -> None:
    """TFLM's person_detect stores a bias with quantized_dimension 3; the graph keeps the number."""
    quantization = Quantization((0.5, 0.25), (0, 0), 3)
    assert tensor(0, shape=(2,), quantization=quantization).quantization == quantization
    with pytest.raises(ModelError, match="2 scales for axis 3"):
        tensor(0, shape=(3,), quantization=quantization)


@pytest.mark.parametrize(
    ("scale", "zero_point"),
    [
        ((), ()),
        ((0.5,), ()),
        ((0.0,), (0,)),
        ((-1.0,), (0,)),
        ((float("nan"),), (0,)),
        ((float("inf"),), (0,)),
        ((0.1,), (0,)),
    ],
)
def test_impossible_quantization_is_refused(scale: tuple[float, ...], zero_point: tuple[int, ...]) -> None:
    """The last one, 0.1, is no float32 value: kept exact, never rounded silently."""
    with pytest.raises(ModelError):
        Quantization(scale, zero_point)


def test_constants_cannot_be_changed_from_outside() -> None:
    values = np.array([1, 2], np.int8)
    constant = tensor(0, data=values)
    values[0] = 9
    assert constant.data is not None
    assert constant.data[0] == 1
    with pytest.raises(ValueError, match="read-only"):
        constant.data[0] = 3
    with pytest.raises(FrozenInstanceError):
        constant.name = "other"  # type: ignore[misc]


def test_attributes_are_read_with_their_type() -> None:
    layer = Layer(0, "X", (0,), (1,), {"n": 3, "f": True, "s": "SAME", "v": (1, 2), "r": 0.5})
    view = graph(layers=(layer, Layer(1, "RELU", (1,), (2,)))).view(0)
    assert (view.integer("n"), view.flag("f"), view.text("s"), view.integers("v"), view.real("r")) == (
        3, True, "SAME", (1, 2), 0.5,
    )  # fmt: skip
    for wrong in (lambda: view.integer("f"), lambda: view.integer("s"), lambda: view.text("n")):
        with pytest.raises(ModelError, match="layer 0"):
            wrong()
    with pytest.raises(ModelError, match="input 4 is missing"):
        view.input(4)
