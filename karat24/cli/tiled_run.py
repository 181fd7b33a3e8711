"""``karat24 run --tiles``: an image of any size through a network for tiles of one size."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from karat24.cli import options as shared

if TYPE_CHECKING:
    from collections.abc import Callable

    from karat24.refimpl.engine import Program
    from karat24.refimpl.graph import Array, Graph

WAYS = ("exact", "plain")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the option."""
    parser.add_argument(
        "--tiles", choices=WAYS,
        help="run an image [y, x, channel] of any size (one .npy of --input) in tiles of the model's size: "
        "exact ones overlap so far that the result is the whole image's, bit for bit; plain ones abut",
    )  # fmt: skip


def run(options: argparse.Namespace, graph: Graph, program: Program) -> Array:
    """The stitched output ``[1, y, x, channel]``; prints what the tiles cost.

    Raises UsageError for other inputs than one .npy, and where the network cannot be tiled so.
    """
    image = _image(options, graph)

    def network(tile: Array) -> Array:
        result: Array = program.run([tile]).outputs[0]
        return result

    tiled = {"exact": _exact, "plain": _plain}[options.tiles]
    stitched: Array = tiled(graph, image, network)[None]
    return stitched


def _exact(graph: Graph, image: Array, network: Callable[[Array], Array]) -> Array:
    from karat24.tomography.exact_tiles import ExactTiling

    tiling = ExactTiling(graph, *image.shape[:2])
    rows, columns = tiling.reaches
    depth = f"{rows.before} rows above to {rows.behind} below, {columns.before} columns before to "
    _print_cost("exact", tiling.count, tiling.tile, tiling.cost)
    print(f"a pixel depends on {depth}{columns.behind} behind it; tiles begin at multiples of {rows.stride}")
    if tiling.whole != image.shape[:2]:
        height, width = tiling.whole
        print(f"the image was enlarged to {height}×{width} by repeating its last row and column")
    return tiling.run(network, image)


def _plain(graph: Graph, image: Array, network: Callable[[Array], Array]) -> Array:
    from karat24.tomography.exact_tiles import tile_of
    from karat24.tomography.tiles import TileGrid

    tile, (height, width) = tile_of(graph), image.shape[:2]
    grid = TileGrid(height, width, *tile)
    cost = grid.count * tile[0] * tile[1] / (height * width)
    _print_cost("plain", grid.count, tile, cost)
    return grid.map(network, image)


def _print_cost(way: str, count: int, tile: tuple[int, int], cost: float) -> None:
    size = f"{tile[0]}×{tile[1]}"
    print(f"{way} tiles: {count:,} of {size}, {cost:.2f} pixels computed for each pixel of the image")


def _image(options: argparse.Namespace, graph: Graph) -> Array:
    """The image of ``--input``, as the network's input takes its values."""
    from dataclasses import replace

    import numpy as np

    from karat24.refimpl.errors import FeedError, UsageError
    from karat24.refimpl.graph import Graph as AnyGraph

    if len(options.input) != 1 or options.input[0].suffix.lower() != ".npy" or len(graph.inputs) != 1:
        raise UsageError("--tiles takes one image, [y, x, channel] in one .npy file of --input")
    path = options.input[0]
    try:
        shape = np.load(path, mmap_mode="r", allow_pickle=False).shape
    except (OSError, ValueError, EOFError) as error:
        raise FeedError(f"{path}: not a readable .npy file ({error})") from None
    tensor = graph.tensors[graph.inputs[0]]
    whole = replace(tensor, index=0, shape=(1, *shape[-3:]), shape_signature=None)
    if len(whole.shape) != 4 or whole.shape[3:] != tensor.shape[3:] or 0 in whole.shape:
        raise FeedError(f"{path}: an image of shape {shape}, and the network takes {tensor.shape}")
    # A graph of nothing but the image: it says what may be fed.
    fed: Array
    (fed,) = shared.feeds_of(AnyGraph((whole,), (), (0,), (0,)), options).values()
    only: Array = fed[0]
    return only
