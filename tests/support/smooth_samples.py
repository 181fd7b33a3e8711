"""Random smooth images: what a network restoring pictures is fed with."""

from __future__ import annotations

import numpy as np

from karat24.refimpl.graph import Array, Graph


def smooth_samples(graph: Graph, number: int, seed: int = 0) -> list[Array]:
    """``number`` arrays for the graph's input, of a few low frequencies and a little noise, in 0 … 1."""
    random = np.random.default_rng(seed)
    _, height, width, channels = graph.tensors[graph.inputs[0]].shape
    y, x = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
    samples = []
    for _ in range(number):
        image = np.zeros((height, width))
        for _ in range(6):
            fy, fx, phase = random.uniform(-4, 4), random.uniform(-4, 4), random.uniform(0, 2 * np.pi)
            image += np.cos(2 * np.pi * (fy * y + fx * x) + phase)
        image = (image - image.min()) / (image.max() - image.min())
        noisy = image[..., None] + 0.05 * random.standard_normal((height, width, channels))
        samples.append(np.clip(noisy, 0, 1)[None].astype(np.float32))
    return samples
