"""Convolutions over one spatial axis: images of height one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

from karat24.refimpl.graph import AttributeValue, LayerView, Tensor

ALONG_Y: Mapping[str, tuple[int, ...]] = MappingProxyType(
    {"kernel_shape": (1,), "strides": (1,), "dilations": (1,)}
)
"""What the attributes say of the axis that is added."""


def as_image(view: LayerView, filter_: int) -> LayerView:
    """A layer over ``[batch, channel, x]`` and a filter ``[out, channel, x]`` as one over images of height 1.

    Anything else comes back as it is, and so do lists of the wrong length: the check refuses them.
    """
    if len(view.input(0).shape) != 3 or len(view.input(filter_).shape) != 3:
        return view
    attributes: dict[str, AttributeValue] = dict(view.layer.attributes)
    for name, along_y in ALONG_Y.items():
        if name in attributes:
            attributes[name] = (*along_y, *view.integers(name))
    pads = view.integers("pads", (0, 0))
    if len(pads) == 2:
        attributes["pads"] = (0, pads[0], 0, pads[1])
    inputs = [
        _flat_image(tensor) if tensor is not None and position in (0, filter_) else tensor
        for position, tensor in enumerate(view.inputs)
    ]
    outputs = tuple(_flat_image(tensor) for tensor in view.outputs)
    return LayerView(replace(view.layer, attributes=attributes), tuple(inputs), outputs)


def _flat_image(tensor: Tensor) -> Tensor:
    if len(tensor.shape) != 3:
        return tensor
    shape = (*tensor.shape[:2], 1, tensor.shape[2])
    data = None if tensor.data is None else tensor.data.reshape(shape)
    return replace(tensor, shape=shape, data=data, shape_signature=None)
