"""A recipe made ready: grey slices in, restored grey slices out."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from karat24.refimpl.graph import Array, Graph
from karat24.tomography.restoration import Network, on_oracle
from karat24.tomography.scan.recipe import Recipe, networks_for
from karat24.tomography.tiles import TileGrid

MakeNetwork = Callable[[Graph], Network]


def network_maker(recipe: Recipe, threads: int | None, make: MakeNetwork | None) -> MakeNetwork:
    """``make``, or else the oracle under the recipe's profile."""
    return make or (lambda graph: on_oracle(graph, recipe.profile, threads))


class Restorer:
    """Restores slices of one size under a recipe.

    ``make`` gives the runtime: the oracle with ``threads`` threads unless it is given.
    """

    def __init__(
        self,
        recipe: Recipe,
        shape: tuple[int, int],
        threads: int | None = None,
        make: MakeNetwork | None = None,
    ) -> None:
        build = network_maker(recipe, threads, make)
        self._networks = [build(graph) for graph in networks_for(recipe.tile, recipe.repair)]
        self._grid = TileGrid(*shape, *recipe.tile, recipe.halo, recipe.blend)

    def __call__(self, window: Array) -> Array:
        """The middle slice, grey float32 ``[y, x]``, of three ``[y, x, 3]``.

        What lies beyond the grey values of the networks is clipped. A slice smaller than a tile is enlarged
        by its border.
        """
        tiles = self._grid.cut(window)
        restored = np.empty((*tiles.shape[:3], 1), np.float32)
        for index in range(len(tiles)):
            values = tiles[index : index + 1]
            for network in self._networks:
                values = network(values)
            restored[index] = values[0]
        stitched: Array = self._grid.stitch(restored)[..., 0]
        return stitched
