"""Rounding to 8 bits in training: as the exporter rounds, with ranges that are learnt."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed (pip install torch)")

from karat24.export.quantize import PRESETS, quantize_learnt  # noqa: E402
from karat24.refimpl.errors import UsageError  # noqa: E402
from karat24.refimpl.networks import learnt_ranges, tomogan  # noqa: E402
from karat24.tomography.restoration import on_onnx_runtime, on_oracle  # noqa: E402
from training.fake_quantization import FakeQuantization, observed  # noqa: E402
from training.model import TomoGAN  # noqa: E402
from training.storage import stored  # noqa: E402


def test_fake_quantization_rounds_as_the_exporter_does() -> None:
    """Per channel: the largest filter value is kept, -128 never used; zero is exact in activations."""
    rounding = FakeQuantization({"x": (-0.5, 0.7501)})
    weight = torch.tensor([[1.27, 0.014], [-12.7, 0.06]]).reshape(2, 2, 1, 1)
    rounded = rounding.filter(weight, 0).flatten().tolist()
    assert rounded == pytest.approx([1.27, 0.01, -12.7, 0.1], abs=1e-6)
    x = torch.tensor([-0.5, 0.0, 0.3, 0.7501])
    found = rounding.activation("x", x)
    assert found[1] == 0.0
    steps = found / ((0.7501 + 0.5) / 255)
    assert torch.allclose(steps, steps.round(), atol=1e-3)


def test_gradient_passes_inside_the_range_only() -> None:
    rounding = FakeQuantization({"x": (0.0, 1.0)})
    x = torch.tensor([0.3, 5.0], requires_grad=True)
    rounding.activation("x", x).sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [1.0, 0.0]


def test_a_range_learns_from_clipping_and_from_rounding() -> None:
    """The signs of an end's gradient: many values clipped; none clipped and all between two steps."""
    for values, wider in ((torch.full((1, 8), 3.0), True), (torch.linspace(0.001, 0.003, 8)[None], False)):
        rounding = FakeQuantization({"x": (-1.0, 1.0)})
        ((rounding.activation("x", values) - values) ** 2).sum().backward()
        assert rounding.growth.grad is not None
        high = float(rounding.growth.grad[0, 1])
        assert (high < 0) if wider else (high > 0)


def test_ranges_of_another_network_are_named() -> None:
    """A transposed TomoGAN has activations a bilinear one has not."""
    rounding = FakeQuantization({"up3/concat": (0.0, 1.0)})
    with pytest.raises(UsageError, match="up3/upsample/linear"):
        rounding.activation("up3/upsample/linear", torch.zeros(1, 4))


def test_a_fixed_range_is_kept_and_rounds_nothing() -> None:
    """Values on another network's grid already; the range goes to the weight file as it is."""
    rounding = FakeQuantization({"x": (0.0, 9.0), "y": (0.0, 1.0)}, fixed={"x": (-0.1, 2.0)})
    x = torch.tensor([[0.123456, 7.0]])
    assert torch.equal(rounding.activation("x", x), x)
    assert rounding.ranges() == {"x": (-0.1, 2.0), "y": (0.0, 1.0)}


@pytest.mark.parametrize("scheme", ["int8", "uint8-2019"])
@pytest.mark.parametrize("upsampling", ["bilinear", "transposed"])
def test_rounded_twin_of_the_quantized_graph(upsampling: str, scheme: str) -> None:
    """Trained with what the exported graph computes: the same groups of activations share a range. Single
    values fall to either side of a tie and part from there on; on average the two agree, while the network
    without rounding lies elsewhere."""
    torch.manual_seed(0)
    model, image = TomoGAN(upsampling), np.random.default_rng(0).random((1, 32, 40, 3), dtype=np.float32)
    given = torch.from_numpy(image.transpose(0, 3, 1, 2))
    model.rounding = FakeQuantization(observed(model, iter([(given, given)] * 16)), scheme == "int8")
    exact = tomogan(32, 40, upsampling, model.weights())
    learnt = learnt_ranges(stored(model))
    network = on_oracle(quantize_learnt(exact, learnt, PRESETS[scheme]), "litert-2.3-ref")
    step = (learnt["output"][1] - learnt["output"][0]) / 255
    found = network(image)[..., 0]
    rounded = model(given).detach().numpy()[:, 0] - found
    unrounded = on_onnx_runtime(exact)(image)[..., 0] - found
    assert abs(rounded.mean()) < 0.1 * step < abs(unrounded.mean())
    assert np.abs(rounded).mean() < 0.8 * np.abs(unrounded).mean()
