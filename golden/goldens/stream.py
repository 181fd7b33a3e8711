"""One run of the oracle that is hashed while it runs.

A tensor is hashed by other threads while the layers behind it run. Once that is done and no later layer
reads it, its memory serves another one, so a run takes neither the time nor the memory of a trace.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from karat24.golden.goldens.shown import HASHING_THREADS, Shown, show, show_counted
from karat24.refimpl.engine import Feeds, Program, Progress, resolve_feeds
from karat24.refimpl.graph import DTYPES, Array, Tensor


def run_hashed(
    program: Program,
    feeds: Feeds,
    keeps: Callable[[int], bool],
    counted: bool = False,
    progress: Progress | None = None,
) -> tuple[dict[int, Shown], dict[int, Array]]:
    """What layers write, by tensor index, hashed, and the values of those tensors that ``keeps`` names.

    ``counted``: saturated values and ties are counted, too. Raises FeedError for a feed that does not fit.
    """
    values: dict[int, Array | None] = {
        tensor.index: tensor.data for tensor in program.graph.tensors if tensor.data is not None
    }
    values.update(resolve_feeds(program.graph, feeds))
    memory = _Memory()
    kept: dict[int, Array] = {}
    hashing: dict[int, Future[Shown]] = {}
    with ThreadPoolExecutor(HASHING_THREADS) as pool:
        for step in progress(program.steps) if progress else program.steps:
            view = step.view
            outputs = [
                np.empty(tensor.shape, DTYPES[tensor.dtype]) if keeps(tensor.index) else memory.take(tensor)
                for tensor in view.outputs
            ]
            inputs = [None if tensor is None else values[tensor.index] for tensor in view.inputs]
            result = program.run_step(step, inputs, counted, outputs)
            for tensor, array in zip(view.outputs, result.outputs, strict=True):
                values[tensor.index] = array
                if keeps(tensor.index):
                    kept[tensor.index] = array
                hashing[tensor.index] = (
                    pool.submit(show_counted, array, view, result.accumulator)
                    if counted
                    else pool.submit(show, array)
                )
            if counted:  # accumulators are four times as large as what they become
                for tensor in view.outputs:
                    hashing[tensor.index].result()
            for index in step.last_uses:
                values.pop(index, None)
                if index in hashing:
                    memory.give_back(index, hashing[index])
        return {index: future.result() for index, future in hashing.items()}, kept


class _Memory:
    """Blocks that tensors lie in, one after the other."""

    def __init__(self) -> None:
        self._taken: dict[int, Array] = {}
        self._free: list[Array] = []
        self._waiting: list[tuple[Array, Future[Shown]]] = []

    def take(self, tensor: Tensor) -> Array:
        """An array for a tensor: in the smallest free block that holds it, else in a new one."""
        waiting, self._waiting = self._waiting, []
        for block, hashed in waiting:
            if hashed.done():
                self._free.append(block)
            else:
                self._waiting.append((block, hashed))
        dtype = DTYPES[tensor.dtype]
        needed = math.prod(tensor.shape) * dtype.itemsize
        fitting = [block for block in self._free if block.size >= needed]
        if fitting:
            block = min(fitting, key=lambda block: block.size)
            self._free = [other for other in self._free if other is not block]
        else:
            block = np.empty(needed, np.uint8)
        self._taken[tensor.index] = block
        return block[:needed].view(dtype).reshape(tensor.shape)

    def give_back(self, index: int, hashed: Future[Shown]) -> None:
        """No later layer reads the tensor: its block is free once its values are hashed."""
        block = self._taken.pop(index, None)
        if block is not None:
            self._waiting.append((block, hashed))
