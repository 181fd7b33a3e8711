"""Ops that only pick or reorder values: SLICE, STRIDED_SLICE, SPLIT, SPLIT_V, TRANSPOSE, GATHER.

Where an op makes an image of an image, it works on NCHW with its axes renamed; otherwise the values are
brought into TFLite's order first.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from karat24.export.onnx.layout import TO_NCHW
from karat24.export.onnx.writing.convert_reshape import in_tflite_order, reshaped
from karat24.export.onnx.writing.converter import EIGHT_BITS, Converter, layout
from karat24.refimpl.errors import UnsupportedOp
from karat24.refimpl.graph import LayerView, Tensor
from karat24.refimpl.spec.tflite import slice as slice_box
from karat24.refimpl.spec.tflite.gather import check_gather
from karat24.refimpl.spec.tflite.split import check_split, check_split_v
from karat24.refimpl.spec.tflite.strided_slice import check_strided_slice, sliced_axes
from karat24.refimpl.spec.tflite.transpose import permutation

BACKWARD_END = -(2**62)
"""An end that a Slice with a negative step clamps, so that the first value is included."""


def slice_(converter: Converter, view: LayerView) -> None:
    """SLICE takes a box: all steps are 1."""
    index, ranges = converter.activation(view, 0), [range(*ends) for ends in slice_box.box(view)]
    _slice(converter, view, index, ranges, converter.moved_output(view))


def strided_slice(converter: Converter, view: LayerView) -> None:
    """STRIDED_SLICE of 8-bit values becomes a Slice, between Reshapes where axes appear or disappear.

    Slices of sizes are not written, since the sizes are known.
    """
    if view.output().dtype in ("int32", "int64"):
        return
    check_strided_slice(view)
    index, axes = converter.activation(view, 0), sliced_axes(view)
    output, source, name = converter.moved_output(view), view.input(0), converter.name(view.output())
    sizes = tuple(axis.size for axis in axes)
    if sizes != source.shape:
        wide = _like(converter, source, f"{name}/wide", sizes)
        index = reshaped(converter, source, index, f"{name}/wide", sizes, wide)
    taken = tuple(len(axis.indices) for axis in axes)
    dropped = any(axis.shrunk for axis in axes)
    target = _like(converter, source, f"{name}/slice", taken) if dropped else output
    _slice(converter, view, index, [axis.indices for axis in axes], target)
    if dropped:
        part = dataclasses.replace(source, shape=taken, data=None)
        reshaped(converter, part, target, name, view.output().shape, output)


def _like(converter: Converter, tensor: Tensor, name: str, shape: tuple[int, ...]) -> int:
    """A new edge with the parameters of ``tensor``; ``shape`` is in TFLite's order."""
    return converter.edge(name, layout(shape), tensor)


def _slice(converter: Converter, view: LayerView, index: int, ranges: Sequence[range], output: int) -> None:
    """``ranges`` are the positions taken along each axis, in TFLite's order."""
    if not all(ranges):
        raise UnsupportedOp(f"{view} gives no values, which ONNX Runtime does not take")
    order = _order(len(ranges))
    given = {
        "starts": [ranges[axis].start for axis in order],
        "ends": [ranges[axis].stop if ranges[axis].stop >= 0 else BACKWARD_END for axis in order],
        "axes": list(range(len(order))),
        "steps": [ranges[axis].step for axis in order],
    }
    name = converter.name(view.output())
    constants = [converter.constant(f"{name}/{key}", np.array(v, np.int64)) for key, v in given.items()]
    converter.move("Slice", index, output, *constants)


def split(converter: Converter, view: LayerView) -> None:
    """SPLIT reads its axis before the data."""
    check_split(view)
    _split(converter, view, 1, 0)


def split_v(converter: Converter, view: LayerView) -> None:
    """SPLIT_V reads its axis last; the sizes are those of the outputs."""
    check_split_v(view)
    _split(converter, view, 0, 2)


def _split(converter: Converter, view: LayerView, data: int, axis: int) -> None:
    source, position = view.input(data), view.input(axis).data
    assert position is not None
    rank = len(source.shape)
    along = int(position.item()) % rank
    if any(0 in output.shape for output in view.outputs):
        raise UnsupportedOp(f"{view} gives parts without values, which ONNX Runtime does not take")
    index = converter.activation(view, data)
    outputs = [converter.moved_output(view, data, number) for number in range(len(view.outputs))]
    sizes = np.array([output.shape[along] for output in view.outputs], np.int64)
    constant = converter.constant(f"{converter.name(view.outputs[0])}/sizes", sizes)
    converter.move("Split", index, outputs, constant, axis=_order(rank).index(along))


def transpose(converter: Converter, view: LayerView) -> None:
    """TRANSPOSE, its permutation rewritten for an image in NCHW."""
    order, wanted = _order(len(view.input(0).shape)), permutation(view)
    index = converter.activation(view, 0)
    axes = tuple(order.index(wanted[axis]) for axis in order)
    converter.move("Transpose", index, converter.moved_output(view), perm=axes)


def gather(converter: Converter, view: LayerView) -> None:
    """GATHER by constant positions, or by positions fed to the model; the data may be a constant table."""
    check_gather(view)
    if view.integer("batch_dims", 0):
        raise UnsupportedOp(f"{view}: batch_dims must be 0; ONNX has no op for others")
    data, positions, output = view.input(0), view.input(1), view.output()
    if data.dtype not in EIGHT_BITS or data.quantization is None or data.quantization.per_channel:
        raise UnsupportedOp(f"{view}: the data {data.name!r} is not quantized per tensor to 8 bits")
    name, rank = converter.name(output), len(data.shape)
    where = (
        converter.constant(f"{name}/positions", positions.data.astype(np.int64))
        if positions.data is not None
        else converter.at(positions)
    )
    axis = view.integer("axis", 0) % rank
    if data.data is not None:
        index = converter.constant(converter.name(data), data.data, data.quantization)
    else:
        index = converter.activation(view, 0)
        if rank == len(output.shape):
            axis = _order(rank).index(axis)
            converter.move("Gather", index, converter.moved_output(view), where, axis=axis)
            return
        index = in_tflite_order(converter, data, index, name)
    target = converter.moved_output(view)
    if len(output.shape) != 4:
        converter.move("Gather", index, target, where, axis=axis)
        return
    middle = converter.edge(f"{name}/nhwc_gathered", output.shape, output)
    converter.move("Gather", index, middle, where, axis=axis)
    converter.move("Transpose", middle, target, perm=TO_NCHW)


def _order(rank: int) -> tuple[int, ...]:
    """TFLite's axes in the order of the ONNX graph."""
    return tuple(TO_NCHW) if rank == 4 else tuple(range(rank))
