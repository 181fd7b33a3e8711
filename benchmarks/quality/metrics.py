"""Structural similarity and peak signal to noise ratio to the clean slice, by scikit-image."""

from __future__ import annotations

import numpy as np
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from karat24.refimpl.graph import Array

SSIM_OPTIONS = {"data_range": 1.0, "gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
"""The settings of Wang et al., "Image quality assessment" (2004), for images of grey 0 … 1."""


def ssim(clean: Array, image: Array) -> float:
    """Mean structural similarity of two grey slices ``[y, x]``; 1 for equal ones."""
    return float(structural_similarity(_single(clean), _single(image), **SSIM_OPTIONS))


def psnr(clean: Array, image: Array) -> float:
    """Peak signal to noise ratio in dB for a peak of 1: ``-10 log10(mean squared error)``."""
    return float(peak_signal_noise_ratio(_single(clean), _single(image), data_range=1.0))


def _single(image: Array) -> Array:
    return np.asarray(image, np.float32)
