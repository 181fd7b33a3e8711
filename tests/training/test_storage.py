"""Weight files of integers: read back as what the network computes with."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed (pip install torch)")

from karat24.refimpl.networks import load_weights  # noqa: E402
from training.fake_quantization import FakeQuantization, observed  # noqa: E402
from training.model import TomoGAN  # noqa: E402
from training.storage import FINE_LEVELS, stored  # noqa: E402


def network(upsampling: str) -> TomoGAN:
    torch.manual_seed(0)
    return TomoGAN(upsampling)


@pytest.mark.parametrize("upsampling", ["bilinear", "transposed"])
def test_filters_come_back_to_half_a_step(upsampling: str, tmp_path: Path) -> None:
    model = network(upsampling)
    np.savez_compressed(tmp_path / "w.npz", **stored(model))
    found = load_weights(tmp_path / "w.npz")
    wanted = model.weights()
    assert found.keys() == wanted.keys()
    for name, values in wanted.items():
        axes = tuple(range(1, values.ndim))
        step = np.abs(values).max(axis=axes, keepdims=True) / FINE_LEVELS if axes else 0.0
        assert (np.abs(found[name] - values) <= 0.501 * step).all(), name
        assert found[name].dtype == np.float32


@pytest.mark.parametrize("per_channel", [True, False])
@pytest.mark.parametrize("upsampling", ["bilinear", "transposed"])
def test_rounded_filters_come_back_as_rounding_left_them(
    upsampling: str, per_channel: bool, tmp_path: Path
) -> None:
    """In 8 bits, and rounding them once more changes nothing; the model itself keeps its own."""
    model, given = network(upsampling), torch.rand(1, 3, 16, 16)
    rounding = FakeQuantization(observed(model, iter([(given, given)] * 16)), per_channel)
    model.rounding = rounding
    before, wanted = model.weights(), model(given).detach()
    arrays = stored(model)
    assert all(np.array_equal(before[name], values) for name, values in model.weights().items())
    np.savez_compressed(tmp_path / "w.npz", **arrays)
    again = network(upsampling)
    again.load(load_weights(tmp_path / "w.npz"))
    again.rounding = rounding
    assert float((again(given).detach() - wanted).abs().max()) < 1e-4
    filters = {name: values for name, values in arrays.items() if name.endswith("/filter")}
    limit = 127 if per_channel else 254
    assert all(np.abs(values).max() <= limit for values in filters.values())
