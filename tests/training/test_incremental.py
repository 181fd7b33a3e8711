"""Incremental quantization: frozen weights to the last bit, the control, ensembles, pruning."""

from __future__ import annotations

from copy import deepcopy

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed (pip install torch)")

from torch import nn  # noqa: E402

from karat24.export.quantize.powers_of_two import powers_for, quantize_rounded, round_network  # noqa: E402
from karat24.refimpl.errors import UsageError  # noqa: E402
from karat24.refimpl.networks import fine_tune  # noqa: E402
from tests.support.smooth_samples import smooth_samples  # noqa: E402
from training.incremental import (  # noqa: E402
    SHARES,
    Ensemble,
    FrozenWeight,
    partition,
    prune_incrementally,
    quantize_incrementally,
    retrain_as_control,
    weights_of,
)
from training.model import FineTune  # noqa: E402

WEIGHTS = np.array([0.05, -0.4, 0.3, -0.1, 0.2, -0.25, 0.02, 0.15], np.float32)


def momentum(parameters) -> torch.optim.Optimizer:
    """Everything that could move a weight without a gradient: momentum and weight decay."""
    return torch.optim.SGD(parameters, 0.05, momentum=0.9, weight_decay=0.01)


def small_network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3)
    )


def on_noise(steps: int = 3):
    """Trains towards random classes: every free weight moves."""

    def retrain(module: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        generator = torch.Generator().manual_seed(1)
        for _ in range(steps):
            x = torch.randn(8, 1, 4, 4, generator=generator)
            loss = nn.functional.cross_entropy(module(x), torch.randint(0, 3, (8,), generator=generator))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    return retrain


def test_the_partition_grows_by_the_largest() -> None:
    frozen, found = np.zeros(8, bool), []
    for share in SHARES:
        grown = partition(WEIGHTS, frozen, share)
        found.append(set(np.flatnonzero(grown & ~frozen).tolist()))
        frozen = grown
    assert found == [{1, 2, 4, 5}, {3, 7}, {0}, {6}]


def test_of_equal_weights_the_first_is_frozen_and_nothing_thaws() -> None:
    equal = np.array([1, -1, 1, -1], np.float32)
    assert partition(equal, np.zeros(4, bool), 0.5).tolist() == [True, True, False, False]
    # A frozen weight that is now the least stays frozen, and a share already reached adds none.
    kept = partition(np.array([0.1, 5, 6, 7], np.float32), np.array([True, False, False, False]), 0.5)
    assert kept.tolist() == [True, False, False, True]
    assert partition(equal, np.ones(4, bool), 0.5).all()


@pytest.mark.parametrize("optimizer", [momentum, lambda p: torch.optim.AdamW(p, 0.01, weight_decay=0.1)])
def test_frozen_weights_are_bit_identical_after_retraining(optimizer) -> None:
    """Through momentum, weight decay and Adam; free weights, biases and batch normalization move."""
    network, seen = small_network(), []
    weights = weights_of(network)
    sets = {name: powers_for(w.detach().numpy(), 4) for name, w in weights.items()}

    def retrain(module: nn.Module, stepper: torch.optim.Optimizer) -> None:
        before = {name: w.detach().numpy().copy() for name, w in weights.items()}
        bias = module[4].bias.detach().clone()
        on_noise()(module, stepper)
        after = {name: w.detach().numpy().copy() for name, w in weights.items()}
        assert not torch.equal(bias, module[4].bias)
        seen.append((before, after))

    quantize_incrementally(network, 4, retrain, optimizer)
    assert len(seen) == len(SHARES) - 1
    for name in weights:
        frozen = np.zeros(seen[0][0][name].shape, bool)
        for share, (before, after) in zip(SHARES, seen, strict=False):
            in_set = np.isin(before[name].astype(np.float64), sets[name].values)
            count = round(share * in_set.size)
            assert np.count_nonzero(in_set) == count
            assert in_set[frozen].all()
            assert before[name][in_set].tobytes() == after[name][in_set].tobytes()
            assert (before[name] != after[name])[~in_set].all()
            frozen = in_set
        final = weights[name].detach().numpy()
        assert np.isin(final.astype(np.float64), sets[name].values).all()
        assert final[frozen].tobytes() == seen[-1][1][name][frozen].tobytes()


def test_sets_follow_from_the_weights_before_the_first_step() -> None:
    """Retraining that makes a weight grow does not move its layer's set."""
    network = nn.Linear(4, 1, bias=False)
    with torch.no_grad():
        network.weight.copy_(torch.tensor([[0.9, 0.8, 0.1, 0.05]]))

    def grow(module: nn.Module, _: torch.optim.Optimizer) -> None:
        with torch.no_grad():
            module.weight[0, 3] = 40.0

    (weight,) = quantize_incrementally(network, 3, grow, momentum, (0.5, 1.0))
    assert (weight.powers.greatest, weight.powers.least) == (0, -1)
    assert network.weight.tolist() == [[1.0, 1.0, 0.0, 1.0]]


def test_the_control_trains_as_often_and_rounds_nothing() -> None:
    network = small_network()
    control, optimizers = deepcopy(network), []

    def retrain(module: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        optimizers.append(optimizer)
        on_noise()(module, optimizer)

    retrain_as_control(control, retrain, momentum)
    assert len(optimizers) == len(set(map(id, optimizers))) == 3
    values = control[4].weight.detach().numpy()
    assert not np.isin(np.log2(np.abs(values)), np.arange(-20, 5)).any()
    assert torch.equal(network[4].weight, small_network()[4].weight)


def test_weights_of_any_module_without_biases_and_norms() -> None:
    gru = nn.GRU(3, 4, num_layers=2, bidirectional=True)
    assert len(weights_of(gru)) == 8
    assert all(name.startswith("weight") for name in weights_of(gru))
    network = nn.Sequential(small_network(), gru)
    assert sorted(weights_of(network))[:2] == ["0.0.weight", "0.4.weight"]
    tied = nn.ModuleList([nn.Linear(2, 2), nn.Linear(2, 2)])
    tied[1].weight = tied[0].weight
    assert list(weights_of(tied)) == ["0.weight"]
    with pytest.raises(UsageError, match="no convolution"):
        weights_of(nn.BatchNorm1d(3))


def test_shares_must_rise_to_one() -> None:
    for shares in ((), (0.5,), (0.5, 0.5, 1), (1, 0.5), (0, 1), (0.5, 1.5)):
        with pytest.raises(UsageError, match="do not rise"):
            quantize_incrementally(small_network(), 4, on_noise(), momentum, shares)


def test_a_network_of_the_project_is_quantized_and_runs_in_int8() -> None:
    """Fine-Tune in PyTorch, five bits with a span of 6; the exported filters are the frozen weights."""
    torch.manual_seed(3)
    model = FineTune()

    def retrain(module: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        x = torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(2))
        loss = nn.functional.mse_loss(module(x), x)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    frozen = quantize_incrementally(model, 5, retrain, momentum, max_span=6)
    graph = fine_tune(8, 8, model.weights())
    network = round_network(graph, 5, max_span=6)
    for layer, weight in zip(network.layers, frozen, strict=True):
        assert np.array_equal(layer.filter.real.transpose(0, 3, 1, 2), weight.weight.detach().numpy())
    assert quantize_rounded(network, smooth_samples(graph, 1)).tensors[1].dtype == "int8"


def test_an_ensemble_averages_probabilities() -> None:
    members = [small_network(seed).eval() for seed in range(3)]
    x = torch.randn(2, 1, 4, 4)
    mean = sum(torch.softmax(member(x), 1) for member in members) / 3
    assert torch.allclose(Ensemble(members)(x), mean)
    maps = Ensemble(members[:2], torch.sigmoid)(x)
    assert torch.allclose(maps, (torch.sigmoid(members[0](x)) + torch.sigmoid(members[1](x))) / 2)
    with pytest.raises(UsageError, match="two members or more, not 1"):
        Ensemble(members[:1])


def test_pruned_weights_stay_zero_while_the_rest_trains() -> None:
    network, zeros = small_network(), []

    def retrain(module: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        before = module[4].weight.detach().clone()
        on_noise()(module, optimizer)
        after = module[4].weight.detach()
        assert ((before == 0) == (after == 0)).all()
        assert (before != after)[before != 0].all()
        zeros.append(int((after == 0).sum()))

    prune_incrementally(network, (0.5, 0.8), retrain, momentum, dense=["0.weight"])
    assert zeros == [96, round(0.8 * 192)]
    assert (network[0].weight != 0).all()
    with pytest.raises(UsageError, match=r"no weights 'x'; there are 0\.weight, 4\.weight"):
        prune_incrementally(network, (0.5,), retrain, momentum, dense=["x"])


def test_frozen_values_survive_what_is_done_to_them() -> None:
    weight = nn.Parameter(torch.tensor([0.9, 0.1]))
    frozen = FrozenWeight.of("w", weight, 3, None)
    frozen.freeze(0.5)
    with torch.no_grad():
        weight.fill_(7)
    frozen.hold()
    assert weight.tolist() == [1.0, 7.0]
