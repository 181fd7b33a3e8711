"""One layer in full: attributes, tensors, and the multipliers of its channels."""

from __future__ import annotations

from typing import Any

import numpy as np

from karat24.inspection.scalings import channel_scalings, operand_scalings
from karat24.inspection.surroundings import Surroundings
from karat24.inspection.tensors import attribute_data, tensor_data
from karat24.refimpl.errors import KaratError, UsageError
from karat24.refimpl.graph import Graph, Tensor
from karat24.refimpl.ops import check_supported
from karat24.refimpl.profiles import profile_for


def describe_layer(
    graph: Graph, index: int, channel: int | None = None, profile: str | None = None
) -> dict[str, Any]:
    """Layer ``index``: attributes, inputs, outputs and intermediates with quantization, ``channels`` and
    ``operands``.

    ``channels`` has an entry for each scale of the filter, only ``channel`` where one is named; ``operands``
    has one for each multiplier of a layer that does not accumulate (``karat24.inspection.scalings``).
    Raises UsageError for a layer or channel the model does not have.
    """
    if not 0 <= index < len(graph.layers):
        raise UsageError(f"--layer {index}: the model has layers 0 to {len(graph.layers) - 1}")
    view = graph.view(index)
    channels = channel_scalings(Surroundings(graph), view)
    if channel is not None:
        channels = _only(channels, channel, index)
    content: dict[str, Any] = {
        "layer": index,
        "op": view.op,
        "version": view.layer.version,
        "attributes": attribute_data(view.layer),
        "inputs": [None if tensor is None else _with_values(tensor) for tensor in view.inputs],
        "outputs": [tensor_data(tensor) for tensor in view.outputs],
        "intermediates": [None if tensor is None else tensor_data(tensor) for tensor in view.intermediates],
        "channels": channels,
        "operands": operand_scalings(view),
    }
    try:
        check_supported(view)
        if profile is not None:
            content["rule"] = str(profile_for(graph, profile).rule(view))
    except KaratError as error:
        content["problem"] = str(error)
    return content


def _only(channels: list[dict[str, Any]], channel: int, index: int) -> list[dict[str, Any]]:
    """The entry of one channel: its own, or the one that all channels share."""
    found = [entry for entry in channels if entry["channel"] in (channel, None)]
    if not channels:
        raise UsageError(f"--channel {channel}: layer {index} has no multiplier per channel; leave it out")
    if not found or channel < 0:
        raise UsageError(f"--channel {channel}: layer {index} has channels 0 to {len(channels) - 1}")
    return found


def _with_values(tensor: Tensor) -> dict[str, Any]:
    """The tensor, and what values the file stores for it."""
    entry = tensor_data(tensor)
    if tensor.data is None:
        return entry
    values: dict[str, Any] = {"bytes": int(tensor.data.nbytes)}
    if tensor.data.size and tensor.data.dtype.kind in "iuf" and not tensor.is_opaque:
        values |= {"min": _number(tensor.data.min()), "max": _number(tensor.data.max())}
        if tensor.data.size <= FEW:
            values["values"] = [_number(value) for value in tensor.data.reshape(-1)]
    return entry | {"constant": values}


def _number(value: np.generic) -> int | float | str:
    """The value, as a word where JSON has no number for it."""
    return value.item() if np.isfinite(value) else str(value)


FEW = 16
"""Constants of no more values are shown in full."""
