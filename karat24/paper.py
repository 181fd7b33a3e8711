"""Figures of the paper this project began with, to stand beside ours.

Source: Abeykoon et al., "Scientific Image Restoration Anywhere" (2019), Table I and sections III and IV:
one 1024×1024 image, TomoGAN on 256 tiles of 64×64, Fine-Tune on the whole.
"""

from __future__ import annotations

from dataclasses import dataclass

IMAGE = 1024
TOMOGAN_OPERATIONS = 301_000_000_000
"""Operations of quantized TomoGAN per image, as the paper counts."""

FINE_TUNE_OPERATIONS = 621_000_000
"""Operations of Fine-Tune per image."""


@dataclass(frozen=True)
class Device:
    """Seconds per image as the paper has them, None where it has none. ``tera_operations`` is what the
    maker promises per second, in ``precision``: Coral's data sheets and NVIDIA's Jetson TX2 data sheet."""

    name: str
    tomogan: float
    stitching: float | None
    fine_tune: float | None
    total: float
    watts: float | None
    tera_operations: float | None
    precision: str

    @property
    def joules(self) -> float | None:
        """Energy per image."""
        return None if self.watts is None else self.watts * self.total


DEVICES = (
    Device("Edge TPU, USB accelerator", 0.435, 0.049, 0.070, 0.554, 2.0, 4.0, "int8"),
    Device("Edge TPU, Dev Board", 0.512, 0.120, 0.166, 0.798, 2.0, 4.0, "int8"),
    Device("Jetson TX2", 0.880, None, None, 0.880, 7.5, 1.33, "float16"),
    Device("Intel Core i7", 1.537, None, None, 1.537, None, None, "float32"),
)
"""The devices of Table I."""
