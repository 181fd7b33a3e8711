"""Micro-kernels on rows of pixels, as loops call them by address: one loop serves all of them."""

from __future__ import annotations

import functools

import numpy as np

from karat24.refimpl.kernels.jit.callee import Callee
from karat24.refimpl.kernels.jit.no_refcount import no_refcount_inside
from karat24.refimpl.kernels.microkernel.blocking import Amx, Block, Blocking, pixels_at_once
from karat24.refimpl.kernels.microkernel.microkernel import Microkernel, multiply_block
from karat24.refimpl.kernels.microkernel.operands import PixelRuns, Sums


def in_loops(kernel: Microkernel) -> Block | Amx:
    """The block as loops take it, of one type for all kernels that need not be opened."""
    return kernel.blocking if isinstance(kernel.blocking, Amx) else Block(*kernel.blocking)


def multiply_row(kernel: Microkernel) -> Callee:
    """The function ``multiply(pixels, patch, pixel_stride, offsets, runs, steps, weights, initial, acc,
    acc_stride)``: ``multiply_block`` for any number of pixels.

    Its last block may reach beyond the row; the sums there are written, too.
    """
    return _row_of(kernel.blocking, np.dtype(kernel.element).itemsize)


@functools.lru_cache(maxsize=None, typed=True)  # blocks of two kernels may be equal but for their type
def _row_of(blocking: Blocking, itemsize: int) -> Callee:
    def multiply_pixels(
        pixels: int, patch: int, pixel_stride: int, offsets: int, runs: int, steps: int,
        weights: int, initial: int, acc: int, acc_stride: int,
    ) -> None:  # fmt: skip
        pixel = 0
        while pixel < pixels:
            size = pixels_at_once(blocking, pixels - pixel)
            first = patch + itemsize * pixel * pixel_stride
            read = PixelRuns(first, pixel_stride, offsets, runs, steps)
            sums = Sums(initial, acc + 4 * pixel * acc_stride, acc_stride)
            multiply_block(blocking, size, read, weights, sums)
            pixel += size

    # Machine code is linked by this name. If two processes gave it to different functions, a third process
    # that loads both would take one for the other.
    numbers = "_".join(map(str, (*blocking, itemsize)))
    multiply_pixels.__qualname__ = f"multiply_pixels_{type(blocking).__name__}_{numbers}"
    return Callee(no_refcount_inside(multiply_pixels), 10)
