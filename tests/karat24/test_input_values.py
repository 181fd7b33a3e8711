"""Real values and wide pictures for a quantized input: quantized and said how, or refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from karat24.cli import main
from karat24.export.tflite import write_tflite
from karat24.feeds import load_feeds
from karat24.real_values import MOST_CLIPPED
from karat24.refimpl.builder import GraphBuilder
from karat24.refimpl.errors import FeedError
from karat24.refimpl.graph import Array, Graph, Quantization
from tests.support.small_network import small_graph

SHAPE = (1, 8, 8, 3)
UNIT = np.linspace(0, 1, 192).reshape(SHAPE)
"""float64 from 0 to 1, which is the range of the small model's int8 input."""


def load(values: Array, tmp_path: Path, span: tuple[float, float] | None = None, graph: Graph | None = None):
    path = tmp_path / "x.npy"
    np.save(path, values)
    graph = graph or small_graph()
    loaded = load_feeds(graph, [path], span)
    return loaded.feeds[graph.inputs[0]], " ".join(loaded.notes)


def float_input_graph() -> Graph:
    """A float32 input that a QUANTIZE layer turns into int8 of 0 to 1."""
    builder = GraphBuilder()
    given = builder.input("x", SHAPE, "float32")
    output = builder.tensor("y", SHAPE, "int8", Quantization.per_tensor(1 / 255, -128))
    builder.layer("QUANTIZE", [given], [output])
    return builder.build([output])


def test_real_values_are_quantized_with_the_models_own_parameters(tmp_path: Path) -> None:
    values, note = load(UNIT, tmp_path)
    assert values.dtype == np.int8
    np.testing.assert_array_equal(values, np.rint(UNIT * 255) - 128)
    assert "float64" in note
    assert "scale 0.00392157 and zero point -128" in note
    assert "range 0 to 1" in note
    assert "0 of 192 values clipped" in note


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_a_shift_of_all_values_by_one_step_is_seen_in_every_code(dtype: str, tmp_path: Path) -> None:
    """Codes follow from the values, not from their own minimum and maximum."""
    lower, _ = load(np.linspace(0.2, 0.7, 192, dtype=dtype).reshape(SHAPE), tmp_path)
    higher, _ = load(np.linspace(0.2 + 4 / 255, 0.7 + 4 / 255, 192, dtype=dtype).reshape(SHAPE), tmp_path)
    assert set(np.unique(higher.astype(int) - lower)) <= {3, 4, 5}


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (UNIT * 255, "would be clipped"),
        (UNIT - 0.5, "would be clipped"),
        (UNIT / 255 / 20, "would fall on"),
        (np.where(UNIT == 1, np.nan, UNIT), "1 of 192 values that are NaN"),
        (np.where(UNIT == 1, np.inf, UNIT), "NaN or infinite"),
        (UNIT * 1e300, "would be clipped"),
        ((UNIT * 65535).astype(np.uint16), "uint16 from 0 to 65535"),
        ((UNIT * 255).astype(np.uint8), "uint8 from 0 to 255"),
        ((UNIT * 100).astype(np.int64), "int64 from 0 to 100"),
        (UNIT.astype(np.complex64), "complex64"),
        (UNIT > 0.5, "bool"),
    ],
    ids=[
        "0 to 255", "negative", "attenuation in 1/µm", "NaN", "infinity", "huge", "uint16", "uint8",
        "codes in int64", "complex", "bool",
    ],
)  # fmt: skip
def test_values_in_another_unit_are_refused_with_a_way_out(values: Array, said: str, tmp_path: Path) -> None:
    with pytest.raises(FeedError, match=said) as refused:
        load(values, tmp_path)
    if values.dtype.kind in "iuf" and np.isfinite(values).all():
        assert "--input-range" in str(refused.value)


def test_a_few_outliers_are_clipped_and_counted(tmp_path: Path) -> None:
    values = UNIT.reshape(-1).copy()
    allowed = int(MOST_CLIPPED * values.size)
    values[:allowed] = 3.0
    codes, note = load(values.reshape(SHAPE), tmp_path)
    assert f"{allowed} of 192 values clipped" in note
    assert codes.reshape(-1)[0] == 127
    values[allowed] = 3.0
    with pytest.raises(FeedError, match=f"{allowed + 1} of 192 values would be clipped"):
        load(values.reshape(SHAPE), tmp_path)


@pytest.mark.parametrize(
    ("values", "span", "clipped"),
    [
        ((UNIT * 4095).round().astype(np.uint16), (0, 4095), 0),
        (UNIT * 255, (0, 255), 0),
        (UNIT - 0.5, (-0.5, 0.5), 0),
        ((UNIT * 254).round().astype(np.uint8), (0, 254), 0),
        (UNIT * 2 - 0.5, (0, 1), 96),
    ],
    ids=["12-bit detector", "0 to 255", "negative", "uint8 pixels", "clipped on request"],
)
def test_the_range_the_user_names_takes_all_steps(
    values: Array, span: tuple[float, float], clipped: int, tmp_path: Path
) -> None:
    codes, note = load(values, tmp_path, span)
    assert codes.dtype == np.int8
    assert (codes.min(), codes.max()) == (-128, 127)
    assert f"{clipped} of 192 values clipped" in note
    fraction = (values.astype(float) - span[0]) / (span[1] - span[0])
    np.testing.assert_array_equal(codes, np.rint(-128 + 255 * fraction.clip(0, 1)))


def test_an_input_in_floating_point_takes_the_values_and_warns_where_its_first_layer_saturates(
    tmp_path: Path,
) -> None:
    values, note = load(UNIT, tmp_path, graph=float_input_graph())
    assert values.dtype == np.float32
    assert "rounded to float32" in note
    assert "warning" not in note
    values, note = load((UNIT * 255).astype(np.float32), tmp_path, graph=float_input_graph())
    np.testing.assert_array_equal(values, (UNIT * 255).astype(np.float32))
    assert "warning" in note
    assert "lie outside 0 to 1" in note
    values, _ = load(UNIT * 255, tmp_path, (0, 255), float_input_graph())
    np.testing.assert_allclose(values, UNIT, atol=1e-6)


def picture(values: Array, path: Path) -> Path:
    Image.fromarray(values).save(path)
    return path


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_a_16_bit_picture_keeps_its_contrast(suffix: str, tmp_path: Path) -> None:
    """Pillow's own conversion to 8 bits clips at 255, which made every such picture white."""
    grey = np.linspace(0, 65535, 64).round().astype(np.uint16).reshape(8, 8)
    path = picture(grey, tmp_path / f"x{suffix}")
    graph = small_graph()
    loaded = load_feeds(graph, [path])
    expected = np.rint(grey / 65535 * 255) - 128
    for channel in range(3):
        np.testing.assert_array_equal(loaded.feeds[graph.inputs[0]][0, :, :, channel], expected)
    (note,) = loaded.notes
    assert "0 to -128 and 65535 to 127" in note
    assert "pixels reach from 0 to 65535" in note


def test_a_16_bit_picture_of_another_size_is_resized_in_its_own_depth(tmp_path: Path) -> None:
    path = picture(np.full((16, 16), 30000, np.uint16), tmp_path / "x.png")
    values = load_feeds(small_graph(), [path]).feeds[0]
    assert set(np.unique(values)) == {round(30000 / 65535 * 255) - 128}


def test_a_12_bit_picture_fills_the_range_it_is_given(tmp_path: Path) -> None:
    path = picture(np.linspace(0, 4095, 64).astype(np.uint16).reshape(8, 8), tmp_path / "x.tif")
    values = load_feeds(small_graph(), [path], (0, 4095)).feeds[0]
    assert (values.min(), values.max()) == (-128, 127)


def test_a_picture_of_real_values_is_quantized_like_an_array(tmp_path: Path) -> None:
    grey = np.linspace(0, 1, 64, dtype=np.float32).reshape(8, 8)
    values = load_feeds(small_graph(), [picture(grey, tmp_path / "x.tif")]).feeds[0]
    np.testing.assert_array_equal(values[0, :, :, 1], np.rint(grey * 255) - 128)
    with pytest.raises(FeedError, match="would be clipped"):
        load_feeds(small_graph(), [picture(grey * 900, tmp_path / "y.tif")])
    with pytest.raises(FeedError, match="int32 from 0 to 630"):
        load_feeds(
            small_graph(), [picture(np.arange(0, 640, 10, np.int32).reshape(8, 8), tmp_path / "z.tif")]
        )


def test_8_bit_pictures_are_fed_as_before(tmp_path: Path) -> None:
    pixels = np.arange(192, dtype=np.uint8).reshape(8, 8, 3)
    loaded = load_feeds(small_graph(), [picture(pixels, tmp_path / "x.png")])
    np.testing.assert_array_equal(loaded.feeds[0][0], pixels.astype(int) - 128)
    assert loaded.notes == ()


def test_integers_that_are_no_measurement_take_no_range(tmp_path: Path) -> None:
    builder = GraphBuilder()
    given = builder.input("indices", (4,), "int32")
    output = builder.tensor("y", (4,), "int64")
    builder.layer("CAST", [given], [output])
    with pytest.raises(FeedError, match="which is not quantized"):
        load(np.arange(4.0), tmp_path, (0, 1), builder.build([output]))


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "small.tflite"
    path.write_bytes(write_tflite(small_graph()))
    return path


def test_the_command_says_how_it_quantized(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.save(tmp_path / "x.npy", UNIT)
    np.save(tmp_path / "codes.npy", (np.rint(UNIT * 255) - 128).astype(np.int8))
    outcomes = []
    for name in ("x.npy", "codes.npy"):
        assert main(["run", str(model), "--input", str(tmp_path / name)]) == 0
        outcomes.append(capsys.readouterr())
    assert outcomes[0].out == outcomes[1].out
    assert "quantized to int8 with the model's scale" in outcomes[0].err
    assert outcomes[1].err == ""


@pytest.mark.parametrize("command", [["run"], ["verify", "--delegate", "oracle"]])
def test_every_door_refuses_raw_values(
    command: list[str], model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.save(tmp_path / "x.npy", UNIT * 255)
    arguments = [command[0], str(model), *command[1:], "--input", str(tmp_path / "x.npy")]
    assert main(arguments) == 2
    assert "would be clipped" in capsys.readouterr().err
    assert main([*arguments, "--input-range", "0", "255"]) == 0


@pytest.mark.parametrize(
    "arguments",
    [
        ["--input-range", "0", "1"],
        ["--input-range", "1", "1", "--input", "X"],
        ["--input-range", "0", "inf", "--input", "X"],
        ["--input-range", "nan", "1", "--input", "X"],
    ],
)
def test_a_range_without_meaning_is_refused(
    arguments: list[str], model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.save(tmp_path / "x.npy", UNIT)
    given = [str(tmp_path / "x.npy") if word == "X" else word for word in arguments]
    assert main(["run", str(model), *given]) == 2
    assert "--input-range" in capsys.readouterr().err


def test_int16_and_uint8_inputs_have_their_own_range(tmp_path: Path) -> None:
    for dtype, low, high in (("uint8", 0, 255), ("int16", -32768, 32767)):
        builder = GraphBuilder()
        given = builder.input("x", SHAPE, dtype, Quantization.per_tensor(1 / (high - low), low))
        graph = builder.build([builder.layer("RELU", [given], [builder.tensor("y", SHAPE, dtype)])])
        values, _ = load(UNIT, tmp_path, graph=graph)
        assert (values.dtype, values.min(), values.max()) == (np.dtype(dtype), low, high)


def test_the_tensor_of_a_single_value_may_hold_any_representable_one(tmp_path: Path) -> None:
    """A constant picture has no spread, and that is no sign of another unit."""
    values, _ = load(np.full(SHAPE, 0.5), tmp_path)
    assert set(np.unique(values)) == {int(np.rint(np.float32(0.5) / np.float32(1 / 255))) - 128}
