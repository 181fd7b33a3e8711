"""What Fine-Tune is trained on: slices restored by the quantized TomoGAN, as the oracle computes it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from karat.restoration import on_oracle, quantized_tomogan, restore
from refimpl.networks import Upsampling, load_weights

Float = NDArray[np.float32]


def restored_by_oracle(noisy: Float, weights: Path, upsampling: Upsampling, scheme: str) -> Float:
    """``[slice, y, x, 1]``: each slice restored tile by tile (64×64), bit-exact to ``litert-2.3-ref``."""
    graph = quantized_tomogan(load_weights(weights), upsampling, noisy[:4], scheme)
    network = on_oracle(graph, "litert-2.3-ref")
    return np.stack([restore(image, network).tomogan[..., None] for image in noisy])
