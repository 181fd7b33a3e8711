"""The content of a weight file.

Filters are kept as integers with scales, which takes a third of float32: those of quantization-aware training
exactly as they were rounded to 8 bits, others in 10 bits, four times as fine. Biases and learnt ranges are
float32. ``karat24.refimpl.networks.load_weights`` multiplies filters with their scales.
"""

from __future__ import annotations

import copy

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from karat24.refimpl.networks import SCALE
from training.fake_quantization import FakeQuantization
from training.model import NamedConvolutions

FINE_LEVELS = 511
"""Greatest integer of a filter that was not trained to be rounded."""

LEAST_SCALE = np.float32(1e-9)

Stored = dict[str, NDArray[np.int8 | np.int16 | np.float32]]


def stored(model: NamedConvolutions) -> Stored:
    """Every array of ``model``'s weight file by name; filters OHWI, int8 or int16, with scales
    ``[out_channel]`` or, if rounding has one scale for the whole filter, ``[]``."""
    rounding = model.rounding if isinstance(model.rounding, FakeQuantization) else None
    if rounding is not None:
        model = copy.deepcopy(model)
        _round_filters(model, rounding)
    found: Stored = dict(model.ranges())
    for name, values in model.weights().items():
        layer = name.removesuffix("/filter")
        if layer == name:
            found[name] = values
            continue
        if rounding is not None and not rounding.per_channel:
            scale = np.asarray(np.maximum((values.max() - values.min()) / np.float32(254), LEAST_SCALE))
        else:
            levels = np.float32(127 if rounding is not None else FINE_LEVELS)
            scale = np.maximum(np.abs(values).max(axis=(1, 2, 3)) / levels, LEAST_SCALE)
        steps = np.rint(values / scale.reshape(scale.shape + (1,) * (values.ndim - scale.ndim)))
        found[name] = steps.astype(np.int8 if np.abs(steps).max() <= 127 else np.int16)
        found[f"{layer}{SCALE}"] = scale.astype(np.float32)
    return found


def _round_filters(model: NamedConvolutions, rounding: FakeQuantization) -> None:
    with torch.no_grad():
        for layer in map(model.layer, model.names()):
            layer.weight.copy_(rounding.filter(layer.weight, int(isinstance(layer, nn.ConvTranspose2d))))
