"""PAD and PADV2: a border around the input, which a convolution behind it can make itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from karat24.refimpl.contract import Border, Call, Kernel, Target, Values
from karat24.refimpl.graph import QUANTIZED_RANGE, Array, LayerView
from karat24.refimpl.kernels.jit.code import Code
from karat24.refimpl.kernels.jit.no_refcount import task_loop
from karat24.refimpl.kernels.jit.operands import buffer, flat_bytes, operand
from karat24.refimpl.kernels.moves.concatenation import BYTES_PER_STEP
from karat24.refimpl.kernels.threads.task_kernel import TaskKernel, Tasks
from karat24.refimpl.profiles.rules import Rule


@dataclass(frozen=True)
class Padding(TaskKernel):
    """A prepared PAD or PADV2: ``before`` elements per axis of ``zero``, or of the value of input 2."""

    before: tuple[int, ...]
    inner: tuple[int, ...]
    outer: tuple[int, ...]
    zero: int | None

    def __call__(self, inputs: Values, outputs: Sequence[Array], accumulator: Array | None) -> None:
        """Runs the layer."""
        place = tuple(slice(first, first + size) for first, size in zip(self.before, self.inner, strict=True))
        outputs[0][...] = operand(inputs, 2).reshape(()) if self.zero is None else self.zero
        outputs[0][place] = operand(inputs, 0)

    @property
    def function(self) -> Any:
        """The compiled loop."""
        return pad_rows

    def bind(self, inputs: Values, outputs: Sequence[Array]) -> Call:
        """The layer on these arrays; compiled where it pads images of bytes."""
        return self.layer(inputs, outputs) if self._loops(outputs) else partial(self, inputs, outputs, None)

    def uncompiled(self, inputs: Values, outputs: Sequence[Array]) -> tuple[Code, ...]:
        """The loop, unless compiled; nothing where NumPy pads."""
        return super().uncompiled(inputs, outputs) if self._loops(outputs) else ()

    def _loops(self, outputs: Sequence[Array]) -> bool:
        """Whether the compiled loop pads: images of bytes."""
        return self.border is not None and outputs[0].itemsize == 1

    def tasks(self, inputs: Values, outputs: Sequence[Array], accumulator: Array | None) -> Tasks:
        """The tasks on these images of bytes."""
        border, zero = self.border, self.zero
        assert border is not None
        assert zero is not None
        (batches, height, *_), channels = self.outer, self.outer[3]
        rows = [
            flat_bytes(data).reshape(batches, shape[1], shape[2] * channels)
            for data, shape in ((buffer(inputs, 0), self.inner), (outputs[0], self.outer))
        ]
        arguments = rows[0], border.top, border.left * channels, np.uint8(zero & 0xFF), rows[1]
        return Tasks(arguments, batches * height, outputs[0].nbytes // BYTES_PER_STEP)

    @property
    def border(self) -> Border | None:
        """The border where only rows and columns of zero points are added, as a convolution itself can do."""
        if len(self.inner) != 4 or self.zero is None:
            return None
        if self.inner[0] != self.outer[0] or self.inner[3] != self.outer[3]:
            return None
        return Border(self.before[1], self.before[2], self.inner[1:], self.outer[1:])


def prepare_pad(view: LayerView, rule: Rule, target: Target) -> Kernel:
    """PAD with the output's zero point, PADV2 with the value of input 2."""
    data, counts, output = view.input(0), view.input(1).known, view.output()
    assert counts is not None
    zero = 0
    if output.quantization is not None and output.dtype in QUANTIZED_RANGE:
        zero = output.quantization.zero_point[0]
    before = tuple(int(count) for count in counts.reshape(-1)[::2])
    return Padding(before, data.shape, output.shape, None if view.op == "PADV2" else zero)


@task_loop
def pad_rows(image: Any, top: int, left: int, value: Any, out: Any, begin: int, end: int) -> None:
    """Rows ``begin`` … ``end - 1`` of ``out`` [batch, row, byte]: ``image`` and ``value`` around it."""
    rows, width = image.shape[1], image.shape[2]
    for task in range(begin, end):
        batch, y = divmod(task, out.shape[1])
        target = out[batch, y]
        if not top <= y < top + rows:
            target[:] = value
            continue
        target[:left] = value
        target[left + width :] = value
        source, inner = image[batch, y - top], target[left : left + width]
        for k in range(width):
            inner[k] = source[k]
