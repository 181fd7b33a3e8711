"""ONNX images in NHWC memory, between the layers that can run on it.

The compiled loops run along an image's channels, which lie beside one another in NHWC memory and a plane
apart in NCHW, the layout of ONNX. A layer that can run on either takes the layout its inputs are in; a layer
that needs one gets it, if necessary from a copy. Graph inputs and outputs stay NCHW, and a run with a trace
knows nothing of this: it runs the file's layers one by one. No value changes.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from karat24.refimpl.contract import Kernel, OnImages
from karat24.refimpl.graph import Array, Tensor
from karat24.refimpl.kernels.moves.image_layout import TO_NHWC, ToChannelsFirst, ToChannelsLast
from karat24.refimpl.run_plan import PlannedLayer, RunPlan

RANK = 4


def lay_out(plan: RunPlan) -> RunPlan:
    """The plan with images in the layout that its kernels prefer; unchanged where none has a preference."""
    if not any(isinstance(layer.kernel, OnImages) for layer in plan.layers):
        return plan
    layouts = _Layouts(plan)
    for layer in plan.layers:
        layouts.add(layer)
    for index in plan.outputs:
        layouts.as_nchw(index, plan.layer_count - 1)
    return replace(
        plan, tensors=tuple(layouts.tensors), layers=tuple(layouts.layers), nhwc_forms=layouts.nhwc_forms
    )


class _Layouts:
    """The plan's tensors and layers so far, and the layouts each tensor is stored in."""

    def __init__(self, plan: RunPlan) -> None:
        self.tensors: list[Tensor] = list(plan.tensors)
        self.layers: list[PlannedLayer] = []
        self.nhwc_forms: dict[int, int] = {}
        written = {index for layer in plan.layers for index in layer.outputs}
        self._in_nchw = {tensor.index for tensor in plan.tensors} - written

    def add(self, layer: PlannedLayer) -> None:
        """Appends a layer, and before it the copies it needs."""
        kernel = layer.kernel
        if not isinstance(kernel, OnImages):
            self._append_nchw(layer, kernel, layer.inputs)
            return
        inputs = tuple(layer.inputs[position] for position in kernel.positions)
        if kernel.nchw is not None and not self._fits_nhwc(inputs, layer.outputs):
            self._append_nchw(layer, kernel.nchw, inputs)
            return
        images = tuple(self._as_nhwc(index, layer.origin) for index in inputs)
        outputs = tuple(self._new_form(index) for index in layer.outputs)
        self.layers.append(PlannedLayer(kernel.nhwc, images, outputs, layer.origin))

    def _append_nchw(self, layer: PlannedLayer, kernel: Kernel, inputs: tuple[int, ...]) -> None:
        stored = tuple(self.as_nchw(index, layer.origin) for index in inputs)
        self.layers.append(PlannedLayer(kernel, stored, layer.outputs, layer.origin))
        self._in_nchw.update(layer.outputs)

    def _fits_nhwc(self, inputs: tuple[int, ...], outputs: tuple[int, ...]) -> bool:
        """Whether an input is in NHWC already, and everything is an image or a constant."""
        images = [index for index in inputs if not self.tensors[index].is_constant]
        ranks = {len(self.tensors[index].shape) for index in (*images, *outputs)}
        return ranks == {RANK} and any(index in self.nhwc_forms for index in images)

    def as_nchw(self, index: int, origin: int) -> int:
        """The tensor as the file says, copied from its NHWC form where only that is stored."""
        if index != -1 and index not in self._in_nchw:
            form = self.nhwc_forms[index]
            self.layers.append(PlannedLayer(ToChannelsFirst(), (form,), (index,), origin))
            self._in_nchw.add(index)
        return index

    def _as_nhwc(self, index: int, origin: int) -> int:
        """The tensor's NHWC form; a copy where it is not stored in that form."""
        if index in self.nhwc_forms:
            return self.nhwc_forms[index]
        data = self.tensors[index].data
        form = self._new_form(index)
        if data is not None:
            self.tensors[form] = replace(self.tensors[form], data=_channels_last(data))
        else:
            self.layers.append(PlannedLayer(ToChannelsLast(), (index,), (form,), origin))
        return form

    def _new_form(self, index: int) -> int:
        tensor, form = self.tensors[index], len(self.tensors)
        shape = (1,) * (RANK - len(tensor.shape)) + tensor.shape
        self.tensors.append(
            Tensor(form, f"{tensor.name} (NHWC)", tuple(shape[axis] for axis in TO_NHWC), tensor.dtype)
        )
        self.nhwc_forms[index] = form
        return form


def _channels_last(data: Array) -> Array:
    """A constant of four axes or fewer, the missing ones in front, as NHWC."""
    image = data.reshape((1,) * (RANK - data.ndim) + data.shape)
    result = np.ascontiguousarray(image.transpose(TO_NHWC))
    result.flags.writeable = False
    return result
