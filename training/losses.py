"""The losses that training minimises."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812 - PyTorch's own custom
from torch import Tensor

WINDOW, SIGMA = 11, 1.5


FAINT = 0.006
"""The standard deviation, in grey, from which structure counts in :func:`lost_structure`; it is 0.03 in
SSIM."""


def ssim(first: Tensor, second: Tensor, data_range: float = 1.0) -> Tensor:
    """Mean structural similarity of ``[batch, 1, y, x]`` images, Gaussian window 11, sigma 1.5.

    Source: Wang et al. 2004, equation 13, with K1 = 0.01 and K2 = 0.03.
    """
    c1 = (0.01 * data_range) ** 2
    mean1, mean2, shared, both = _moments(first, second, (0.03 * data_range) ** 2)
    numerator = (2 * mean1 * mean2 + c1) * shared
    denominator = (mean1**2 + mean2**2 + c1) * both
    return (numerator / denominator).mean()


def lost_structure(found: Tensor, wanted: Tensor, scales: int = 1) -> Tensor:
    """One minus the mean of SSIM's structure and contrast terms, with a smaller constant: to lose detail of
    1 % of the grey range costs nearly as much as to lose an edge.

    The mean is over ``scales`` sizes of the images, each half of the one before: the window of 11 pixels then
    sees structure of up to ``11 · 2 ** (scales - 1)``.
    """
    lost = []
    for scale in range(scales):
        if scale:
            found, wanted = F.avg_pool2d(found, 2), F.avg_pool2d(wanted, 2)
        _, _, shared, both = _moments(found, wanted, FAINT**2)
        lost.append(1 - (shared / both).mean())
    return torch.stack(lost).mean()


def lost_pattern(found: Tensor, wanted: Tensor, twins: int) -> Tensor:
    """How far the patterns by which the last ``twins`` images differ from the first ones are missed: mean
    magnitude of the error over that of the pattern."""
    response, pattern = found[-twins:] - found[:twins], wanted[-twins:] - wanted[:twins]
    missed = (response - pattern).abs().mean(dim=(1, 2, 3))
    return (missed / pattern.abs().mean(dim=(1, 2, 3)).clamp_min(1e-3)).mean()


def _moments(first: Tensor, second: Tensor, constant: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Local means, and twice the covariance and the sum of variances, each plus ``constant``."""
    position = torch.arange(WINDOW, dtype=first.dtype, device=first.device) - WINDOW // 2
    line = torch.exp(-(position**2) / (2 * SIGMA**2))
    line = line / line.sum()

    def blur(x: Tensor) -> Tensor:
        x = F.conv2d(x, line.view(1, 1, 1, -1))
        return F.conv2d(x, line.view(1, 1, -1, 1))

    mean1, mean2 = blur(first), blur(second)
    variance1 = blur(first * first) - mean1**2
    variance2 = blur(second * second) - mean2**2
    covariance = blur(first * second) - mean1 * mean2
    return mean1, mean2, 2 * covariance + constant, variance1 + variance2 + constant


def pixel_loss(found: Tensor, wanted: Tensor, similarity: float = 0.2) -> Tensor:
    """``L1 + similarity (1 - SSIM)``: sharp edges without ringing."""
    return F.l1_loss(found, wanted) + similarity * (1 - ssim(found, wanted))


def critic_loss(critic: torch.nn.Module, real: Tensor, fake: Tensor, penalty: float = 10.0) -> Tensor:
    """Wasserstein loss with gradient penalty (Gulrajani et al. 2017, equation 3).

    ``real`` and ``fake`` are ``[batch, 1, y, x]``; the norm is over all pixels of an image.
    """
    mix = torch.rand(len(real), 1, 1, 1, device=real.device, dtype=real.dtype)
    between = (mix * real + (1 - mix) * fake).requires_grad_(True)
    (gradient,) = torch.autograd.grad(critic(between).sum(), between, create_graph=True)
    norm = gradient.float().flatten(1).norm(dim=1)
    return critic(fake).mean() - critic(real).mean() + penalty * ((norm - 1) ** 2).mean()
