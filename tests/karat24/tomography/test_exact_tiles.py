"""Tiles that overlap by the receptive field give the whole image's output, bit for bit."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from karat24.cli import main
from karat24.export.tflite import write_tflite
from karat24.refimpl.builder import GraphBuilder
from karat24.refimpl.engine import compile_graph
from karat24.refimpl.errors import FeedError, UnsupportedOp, UsageError
from karat24.refimpl.graph import Array, Graph, Quantization
from karat24.tomography.exact_tiles import ExactTiling, Reach, reach
from karat24.tomography.tiles import TileGrid
from tests.support.flagships import quantized

Q = Quantization.per_tensor(0.05, -3)


def layers(size: tuple[int, int], *steps: tuple) -> Graph:
    """A chain of single-channel layers of one image, called by op and what it needs."""
    rng = np.random.default_rng(8)
    builder = GraphBuilder()
    x = builder.input("x", (1, *size, 1), "int8", Q)
    shape = size
    for number, (op, *values) in enumerate(steps):
        inputs, attributes = [x], {"fused_activation_function": "NONE"}
        if op == "CONV_2D":
            (height, width), stride, dilation = values
            shape = (-(-shape[0] // stride), -(-shape[1] // stride))
            weights = rng.integers(-50, 50, (1, height, width, 1)).astype(np.int8)
            inputs += [builder.constant(f"w{number}", weights, Quantization.per_tensor(0.02)), -1]
            attributes |= {"padding": "SAME", "stride_h": stride, "stride_w": stride}
            attributes |= {"dilation_h_factor": dilation, "dilation_w_factor": dilation}
        elif op == "MAX_POOL_2D":
            (size_,) = values
            shape = (shape[0] // size_, shape[1] // size_)
            attributes |= {"padding": "VALID", "stride_h": size_, "stride_w": size_}
            attributes |= {"filter_height": size_, "filter_width": size_}
        elif op == "RESIZE_BILINEAR":
            factor, half = values
            shape = (shape[0] * factor, shape[1] * factor)
            inputs.append(builder.constant(f"s{number}", np.array(shape, np.int32)))
            attributes = {"align_corners": False, "half_pixel_centers": half}
        elif op == "TRANSPOSE_CONV":
            taps, stride = values
            shape = (shape[0] * stride, shape[1] * stride)
            weights = rng.integers(-50, 50, (1, taps, taps, 1)).astype(np.int8)
            sizes = builder.constant(f"s{number}", np.array([1, *shape, 1], np.int32))
            inputs = [sizes, builder.constant(f"w{number}", weights, Quantization.per_tensor(0.02)), x]
            attributes |= {"padding": "SAME", "stride_h": stride, "stride_w": stride}
        y = builder.tensor(f"y{number}", (1, *shape, 1), "int8", Q)
        x = builder.layer(op, inputs, (y,), 3 if op == "TRANSPOSE_CONV" else 1, **attributes)
    return builder.build((x,))


CHAINS = {
    "one window": [("CONV_2D", (3, 5), 1, 1)],
    "dilated": [("CONV_2D", (3, 3), 1, 2)],
    "even window": [("CONV_2D", (2, 4), 1, 1)],
    "pooled and doubled": [("CONV_2D", (3, 3), 1, 1), ("MAX_POOL_2D", 2), ("RESIZE_BILINEAR", 2, True)],
    "doubled from corners": [("MAX_POOL_2D", 2), ("CONV_2D", (3, 3), 1, 1), ("RESIZE_BILINEAR", 2, False)],
    "strided and transposed": [("CONV_2D", (3, 3), 2, 1), ("TRANSPOSE_CONV", 4, 2)],
    "four and back": [("MAX_POOL_2D", 4), ("CONV_2D", (3, 3), 1, 1), ("TRANSPOSE_CONV", 3, 2),
                      ("RESIZE_BILINEAR", 2, True)],
}  # fmt: skip


def runner(graph: Graph) -> Callable[[Array], Array]:
    program = compile_graph(graph, "litert-2.3-ref", 1)
    return lambda image: program.run([image]).outputs[0]


def picture(height: int, width: int, channels: int = 1) -> Array:
    return np.random.default_rng(height).integers(-128, 128, (height, width, channels)).astype(np.int8)


@pytest.mark.parametrize("name", CHAINS)
def test_the_reach_is_what_the_oracle_shows(name: str) -> None:
    """One input pixel changes exactly outputs within reach: at the found distance some, beyond it none."""
    graph = layers((48, 48), *CHAINS[name])
    run = runner(graph)
    base = np.zeros((1, 48, 48, 1), np.int8)
    rows, columns = reach(graph)
    seen = {"before": [0, 0], "behind": [0, 0]}
    for start in range(max(rows.stride, columns.stride)):
        for value in (-128, 127):
            changed = base.copy()
            changed[0, 24 + start, 24 + start] = value
            where = np.argwhere((run(changed) != run(base))[0, :, :, 0])
            if len(where):
                for axis in (0, 1):
                    distance = where[:, axis] - (24 + start)
                    seen["before"][axis] = max(seen["before"][axis], distance.max())
                    seen["behind"][axis] = max(seen["behind"][axis], -distance.min())
    for axis, found in enumerate((rows, columns)):
        assert seen["before"][axis] <= found.before
        assert seen["behind"][axis] <= found.behind
        assert (
            max(seen["before"][axis], seen["behind"][axis]) >= max(found.before, found.behind) - found.stride
        )


@pytest.mark.parametrize("size", [(48, 48), (61, 47), (96, 33)])
@pytest.mark.parametrize("name", CHAINS)
def test_small_networks_are_stitched_exactly(name: str, size: tuple[int, int]) -> None:
    tiling = ExactTiling(layers((32, 32), *CHAINS[name]), *size)
    image = picture(*size)
    whole = runner(layers(tiling.whole, *CHAINS[name]))(tiling.enlarged(image)[np.newaxis])[0]
    stitched = tiling.run(runner(tiling.graph), image)
    assert stitched.shape == (*size, 1)
    assert np.array_equal(stitched, whole[: size[0], : size[1]])


def test_a_halo_one_stride_smaller_is_seen() -> None:
    """The control: with less overlap than the reach the same comparison fails."""
    chain = CHAINS["pooled and doubled"]
    small, image = layers((32, 32), *chain), picture(64, 64)
    halo = reach(small)[0].halo
    assert halo == 4
    whole = runner(layers((64, 64), *chain))(image[np.newaxis])[0]
    for overlap, equal in ((halo, True), (halo - 2, False)):
        grid = TileGrid(64, 64, 32, 32, overlap)
        stitched = grid.map(runner(small), image)
        assert np.array_equal(stitched, whole) is equal


@cache
def network(title: str, size: int) -> Graph:
    return quantized(title, size, "uint8-2019")


@pytest.mark.parametrize("title", ["tomogan bilinear", "tomogan transposed", "chained"])
def test_our_networks_reach_over_more_than_a_tile(title: str) -> None:
    """64×64 tiles cannot be exact: a pixel depends on more than half of one at either side."""
    rows, columns = reach(network(title, 64))
    assert rows == columns
    assert rows.stride == 8
    assert 32 < rows.halo < 64
    with pytest.raises(UsageError, match=r"tiles must be larger than \d+, and these are 64"):
        ExactTiling(network(title, 64), 128, 128)


def test_fine_tune_reaches_little() -> None:
    assert reach(network("fine-tune", 64)) == (Reach(2, 2, 1), Reach(2, 2, 1))


@pytest.mark.parametrize(("title", "size"), [("tomogan bilinear", (197, 171)), ("fine-tune", (104, 136))])
def test_our_networks_are_stitched_exactly(title: str, size: tuple[int, int]) -> None:
    tile = 64 if title == "fine-tune" else 144
    check(title, size, tile)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("title", "size"),
    [("tomogan bilinear", (1024, 1024)), ("tomogan transposed", (1024, 1024)), ("chained", (1003, 517))],
)
def test_whole_slices_are_stitched_exactly(title: str, size: tuple[int, int]) -> None:
    check(title, size, 256)


def check(title: str, size: tuple[int, int], tile: int) -> None:
    tiling = ExactTiling(network(title, tile), *size)
    channels = tiling.graph.tensors[tiling.graph.inputs[0]].shape[3]
    image = np.random.default_rng(5).integers(0, 256, (*size, channels)).astype(np.uint8)
    whole = runner(resized(title, tiling.whole))(tiling.enlarged(image)[np.newaxis])[0]
    assert tiling.cost >= 1
    assert np.array_equal(tiling.run(runner(tiling.graph), image), whole[: size[0], : size[1]])


def resized(title: str, size: tuple[int, int]) -> Graph:
    """The quantized network at a size that need not be square, with the ranges of the small one."""
    from karat24.export.quantize import PRESETS, calibrate, quantize_graph
    from karat24.refimpl.networks import chain, fine_tune, tomogan
    from tests.support.flagships import float_graph, smooth

    small = float_graph(title, 64)
    shape = small.tensors[small.inputs[0]].shape
    scheme = PRESETS["uint8-2019"]
    ranges = calibrate(small, [smooth(shape, seed) for seed in range(2)], scheme.range_method)
    if title == "fine-tune":
        graph = fine_tune(*size)
    elif title == "chained":
        graph = chain(tomogan(*size), fine_tune(*size))
    else:
        graph = tomogan(*size, "transposed" if title.endswith("transposed") else "bilinear")
    return quantize_graph(graph, ranges, scheme)


def test_the_command_runs_an_image_of_any_size_in_tiles(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exact tiles give the whole image's output, plain ones do not; both say what they cost."""
    chain = CHAINS["pooled and doubled"]
    model, given, saved = tmp_path / "tile.tflite", tmp_path / "image.npy", tmp_path / "made.npz"
    model.write_bytes(write_tflite(layers((32, 32), *chain)))
    np.save(given, picture(61, 47))
    tiling = ExactTiling(layers((32, 32), *chain), 61, 47)
    whole = runner(layers(tiling.whole, *chain))(tiling.enlarged(picture(61, 47))[np.newaxis])
    for way, equal, words in (
        ("exact", True, f"exact tiles: {tiling.count} of 32×32, {tiling.cost:.2f} pixels computed"),
        ("plain", False, "plain tiles: 4 of 32×32, 1.43 pixels computed for each pixel of the image"),
    ):
        assert main(["run", str(model), "--input", str(given), "--tiles", way, "--save", str(saved)]) == 0
        out = capsys.readouterr().out
        assert words in out
        assert ("enlarged to 62×48" in out) is equal
        (made,) = np.load(saved).values()
        assert np.array_equal(made, whole[:, :61, :47]) is equal


@pytest.mark.parametrize(
    ("shape", "more", "words"),
    [
        ((40, 40, 3), [], "an image of shape (40, 40, 3), and the network takes (1, 32, 32, 1)"),
        ((40,), [], "an image of shape (40,)"),
        ((40, 40, 1), ["--trace", "t.npz"], "--trace is of one run"),
        ((16, 40, 1), [], "a tile of 32 is larger than the image of 16"),
        (None, [], "--tiles takes one image"),
    ],
)
def test_the_command_says_what_cannot_be_tiled(
    tmp_path: Path,
    shape: tuple[int, ...] | None,
    more: list[str],
    words: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    model, given = tmp_path / "tile.tflite", tmp_path / "image.npy"
    model.write_bytes(write_tflite(layers((32, 32), *CHAINS["one window"])))
    arguments = ["run", str(model), "--tiles", "exact", *more]
    if shape is not None:
        np.save(given, np.zeros(shape, np.int8))
        arguments += ["--input", str(given)]
    assert main(arguments) == 2
    assert words in capsys.readouterr().err


def test_what_cannot_be_exact_is_refused() -> None:
    small = layers((32, 32), *CHAINS["pooled and doubled"])
    with pytest.raises(UsageError, match="a tile of 32 is larger than the image of 16"):
        ExactTiling(small, 15, 64)
    with pytest.raises(FeedError, match=r"the image is \(64, 64, channels\), got \(64, 63, 1\)"):
        ExactTiling(small, 64, 64).enlarged(picture(64, 63))
    with pytest.raises(UsageError, match="have one size"):
        reach(layers((32, 32), ("MAX_POOL_2D", 2)))
    with pytest.raises(UnsupportedOp, match="not known"):
        reach(layers((32, 32), ("SOFTMAX",)))


def test_an_image_of_one_tile_is_one_tile() -> None:
    tiling = ExactTiling(layers((32, 32), *CHAINS["one window"]), 32, 32)
    assert (tiling.count, tiling.cost) == (1, 1.0)
