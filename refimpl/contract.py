"""What the engine, an op's slow spec and its fast kernel promise one another."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, TypeAlias, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from karat24.refimpl.graph import Array, LayerView
from karat24.refimpl.profiles.rules import Rule


def accumulator_dtype(view: LayerView) -> np.dtype[Any]:
    """The element type of a layer's accumulators: int64 where its outputs are int16, else int32."""
    return np.dtype(np.int64 if view.output().dtype == "int16" else np.int32)


class SpecResult(NamedTuple):
    """What a spec returns: the outputs and, where the op has them, accumulators (:func:`accumulator_dtype`).

    Accumulators have the shape of output 0 and hold what the requantization
    consumes: products summed, zero points removed, bias added.
    """

    outputs: tuple[Array, ...]
    accumulator: Array | None = None


Values: TypeAlias = Sequence[Array | None]
"""One array per layer input, constants included; None where an optional input is left out."""

Check: TypeAlias = Callable[[LayerView], None]
"""Refuses a layer no implementation can run: ModelError when it is malformed (arity, ranks,
shapes that do not follow from one another), UnsupportedOp when it is a variant nobody wrote.
After it passes, spec and kernel may rely on every shape."""

Spec: TypeAlias = Callable[[LayerView, Values, Rule], SpecResult]


Defined: TypeAlias = Callable[[LayerView, Sequence[Array]], tuple[Array, ...]]
"""Which values of its outputs, given them all, an op writes (True); the others are as memory was before."""


Leaves: TypeAlias = Callable[[LayerView, Values, Rule], tuple[Array, ...]]
"""What an op leaves in the variables of its state, in the order of ``karat24.refimpl.ops.STATES``."""


@dataclass(frozen=True)
class Op:
    """One line of the op table. ``accumulates``: its spec and kernel can give accumulators. ``defined`` is
    there where the op does not write every value; its spec writes 0 in their place. ``leaves`` is there where
    the op keeps a state."""

    check: Check
    spec: Spec
    accumulates: bool = False
    defined: Defined | None = None
    leaves: Leaves | None = None


LOCKS_NOTHING = "karat24-reader"
"""The name of a thread that only waits for a pipe: kernels may be compiled in processes forked beside it."""


class Kernel(Protocol):
    """A prepared layer: reads ``inputs``, fills every element of ``outputs``, and of
    ``accumulator`` (:func:`accumulator_dtype`, shaped like output 0) unless it is None."""

    def __call__(self, inputs: Values, outputs: Sequence[Array], accumulator: Array | None) -> None:
        """Runs the layer once."""


@dataclass(frozen=True)
class Target:
    """The machine a kernel is prepared for: instruction set and number of threads."""

    isa: str = "portable"
    threads: int = 1


Prepare: TypeAlias = Callable[[LayerView, Rule, Target], Kernel | None]
"""Called once per layer when a graph is compiled: packs constants, derives multipliers. None where
no kernel was written for the variant, whose spec then runs."""


# ---- What a kernel may be able to do beyond running by itself. ``karat24.refimpl.fusion``,
# ``karat24.refimpl.planning`` and ``karat24.refimpl.workspace`` ask for these abilities and for nothing else.

Call: TypeAlias = Callable[[], None]


@runtime_checkable
class Bindable(Protocol):
    """A kernel that can be tied to its arrays once and then run again and again."""

    def bind(self, inputs: Values, outputs: Sequence[Array]) -> Call:
        """The layer on these arrays, whose values may change between calls; neither traced nor measured."""


@runtime_checkable
class Compiled(Protocol):
    """A kernel that runs a compiled loop."""

    @property
    def compile_seconds(self) -> float:
        """An estimate of the time that compiling the loop takes, in seconds of one core of 2024 (Zen 4)."""

    def uncompiled(self, inputs: Values, outputs: Sequence[Array]) -> Sequence[Hashable]:
        """What has to be compiled before the layer runs on such arrays, its loop first.

        Layers with equal members share them. Looks at no value of the arrays.
        """


@runtime_checkable
class FromShapes(Protocol):
    """A kernel that reads shapes and no values, so that its result is known before anything runs."""

    reads_no_values: bool


@runtime_checkable
class ByteTable(Protocol):
    """A kernel that maps each byte of its only input to one byte of its output."""

    @property
    def byte_table(self) -> NDArray[np.uint8] | None:
        """Byte to byte, [256]; None where more than one table decides."""


@runtime_checkable
class FollowedByTable(Protocol):
    """A kernel that can look its results up in a table while they are in the cache."""

    def followed_by(self, table: NDArray[np.uint8]) -> Kernel:
        """This kernel with ``table``, [256], applied to each byte of its output."""


class Border(NamedTuple):
    """Zero points around an NHWC image. ``inner`` and ``outer`` are (height, width, channels)."""

    top: int
    """Rows above the image."""
    left: int
    """Columns before the image."""
    inner: tuple[int, ...]
    """Size of the image."""
    outer: tuple[int, ...]
    """Size of the image with its border."""


@runtime_checkable
class MakesBorder(Protocol):
    """A kernel that may do no more than add a border of zero points to an image."""

    @property
    def border(self) -> Border | None:
        """The border; None where the kernel does anything else."""


@runtime_checkable
class ReadsInside(Protocol):
    """A kernel that can read an image and make up the border around it."""

    def reading_inside(self, border: Border) -> Kernel | None:
        """This kernel on the image without ``border``; None where it does not read an image of that size."""


class MaxPool2x2(NamedTuple):
    """The largest of each 2x2 pixels of an NHWC image of bytes, side by side."""

    height: int
    """Rows of the result."""
    width: int
    """Columns of the result."""
    signed: int
    """1 for int8, 0 for uint8."""
    low: int
    """Least result, in the element type."""
    high: int
    """Greatest result, in the element type."""
    pitch: int = 0
    """Bytes from a pixel of the result to the next; 0 until the result's place is known."""


@runtime_checkable
class TakesMaxima(Protocol):
    """A kernel of pooled maxima."""

    maxima: MaxPool2x2 | None
    """How it pools, where its windows are 2x2 and side by side."""


@runtime_checkable
class WritesMaxima(Protocol):
    """A kernel that can write pooled maxima of its output beside the output."""

    def with_maxima(self, maxima: MaxPool2x2) -> Kernel:
        """This kernel with a second output: ``maxima`` of the first."""


@runtime_checkable
class Strided(Protocol):
    """A kernel that may read or write images whose pixels are a part of wider ones (``strided_images``)."""

    @property
    def strided_inputs(self) -> bool:
        """Whether its inputs may be such images."""

    @property
    def strided_outputs(self) -> bool:
        """Whether its outputs may be such images."""


@runtime_checkable
class JoinsInputs(Protocol):
    """A kernel that writes its inputs side by side along ``axis`` of its output."""

    axis: int

    @property
    def copied(self) -> Sequence[bool]:
        """For each input whether its bytes are copied as they are."""

    def bind_parts(
        self, positions: Sequence[int], inputs: Values, outputs: Sequence[Array]
    ) -> Sequence[Call]:
        """One call for each of the inputs at ``positions``, which writes that input into the output."""


@runtime_checkable
class OnImages(Protocol):
    """A kernel of a layer on NCHW images that can run on their NHWC form (``karat24.refimpl.layout``).

    ``nhwc`` and ``nchw`` read the layer's inputs at ``positions``, in this order, and no others.
    """

    positions: tuple[int, ...]
    nhwc: Kernel
    """Reads and writes images [batch, y, x, channel]."""
    nchw: Kernel | None
    """Reads and writes tensors as the file says; None where that is slower than to change the layout."""
