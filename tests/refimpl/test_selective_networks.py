"""VGG16, ResNet50 and the selector: layers, and every cost the selective paper prints, from the graphs."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from functools import cache

import numpy as np
import pytest

from karat24.refimpl.builder import GraphBuilder
from karat24.refimpl.cost import count
from karat24.refimpl.data_access import (
    Convention,
    access_energy,
    counted,
    energy,
    expected_accuracy,
    stored_weights,
    weight_layers,
)
from karat24.refimpl.errors import ModelError, UsageError
from karat24.refimpl.graph import Graph
from karat24.refimpl.networks import resnet50, selector, vgg16
from karat24.refimpl.networks.pruning import kept, prune

PAPER: Convention = "block-input"


@cache
def vgg(width: float = 1) -> Graph:
    return vgg16(width)


@cache
def resnet(width: float = 1) -> Graph:
    return resnet50(width)


@cache
def tiny(layers: str = "tiny-5") -> Graph:
    return selector(layers)


NETWORKS: dict[str, Callable[[float], Graph]] = {"vgg": vgg, "resnet": resnet}


@pytest.mark.parametrize(("network", "width", "weights", "macs"), [
    ("vgg", 1, 15_285_952, 313_772_032), ("vgg", 0.75, 8_608_272, 176_838_144),
    ("vgg", 0.5, 3_834_720, 78_898_176), ("vgg", 0.25, 965_296, 19_952_128),
    ("resnet", 1, 23_652_032, 2_090_737_664), ("resnet", 0.75, 13_342_992, 1_176_410_112),
    ("resnet", 0.5, 5_964_640, 523_177_984), ("resnet", 0.25, 1_516_976, 131_041_280),
])  # fmt: skip
def test_weights_and_multiplications_of_every_width(
    network: str, width: float, weights: int, macs: int
) -> None:
    found = counted(NETWORKS[network](width), PAPER)
    assert (found.weights, found.macs) == (weights, macs)


@pytest.mark.parametrize(("network", "width", "weights", "macs"), [
    ("vgg", 1, "15.3", "313.8"), ("vgg", 0.75, "8.9", "178.1"), ("vgg", 0.5, "4.1", "80.2"),
    ("vgg", 0.25, "1.2", "21.2"), ("resnet", 1, "23.7", "2.1"), ("resnet", 0.75, "13.6", "1.2"),
    ("resnet", 0.5, "6.2", "524.5"), ("resnet", 0.25, "1.8", "132.3"),
])  # fmt: skip
@pytest.mark.parametrize("layers", ["tiny-5", "tiny-3"])
def test_cells_of_tables_3_and_4(layers: str, network: str, width: float, weights: str, macs: str) -> None:
    """A selective row is the selector and one dedicated network; the row of width 1 has no selector."""
    total = counted(NETWORKS[network](width), PAPER)
    if width < 1:
        total += counted(tiny(layers), PAPER)
    unit = 1e9 if float(macs) < 10 else 1e6
    assert (f"{total.weights / 1e6:.1f}", f"{total.macs / unit:.1f}") == (weights, macs)


@pytest.mark.parametrize(("layers", "weights", "macs"), [
    ("tiny-5", [600, 1_600, 262_144, 8_192, 32], [614_400, 409_600, 262_144, 8_192, 32]),
    ("tiny-3", [432, 2_304, 262_144, 512], [442_368, 589_824, 262_144, 512]),
])  # fmt: skip
def test_layers_of_the_selector(layers: str, weights: list[int], macs: list[int]) -> None:
    """Both lie in the window that the paper's totals leave."""
    found = weight_layers(tiny(layers))
    assert [layer.weights for layer in found] == weights
    assert [layer.macs(PAPER) for layer in found] == [layer.executed for layer in found] == macs
    assert 241_728 <= sum(weights) < 284_704
    assert 1_272_016 <= sum(macs) < 1_297_872


def test_layers_of_vgg16() -> None:
    layers = weight_layers(vgg())
    assert [layer.height for layer in layers] == [32] * 2 + [16] * 2 + [8] * 3 + [4] * 3 + [2] * 3 + [1] * 3
    assert [(layer.weights, layer.executed) for layer in layers[:2]] == [
        (1_728, 1_769_472), (36_864, 37_748_736),
    ]  # fmt: skip
    assert sum(layer.weights for layer in layers[:13]) == 14_710_464
    assert [layer.weights for layer in layers[13:]] == [262_144, 262_144, 51_200]
    assert counted(vgg(), "executed").macs == counted(vgg(), PAPER).macs
    # Biases, and two factors of batch normalization for each channel of a convolution, would be 13,796 more.
    assert count(vgg()).parameters - counted(vgg(), PAPER).weights == 13_796 - 2 * 4_224


def test_layers_of_resnet50() -> None:
    layers = weight_layers(resnet())
    assert len(layers) == 1 + 3 * (3 + 4 + 6 + 3) + 4 + 1

    def weights(prefix: str) -> int:
        return sum(layer.weights for layer in layers if layer.name.startswith(prefix))

    assert [weights(f"stage{n}/") for n in (1, 2, 3, 4)] == [212_992, 1_212_416, 7_077_888, 14_942_208]
    assert [weights(f"stage{n}/block1/") for n in (2, 3, 4)] == [376_832, 1_507_328, 6_029_312]
    assert (weights("stem"), weights("output")) == (1_728, 204_800)
    assert {layer.height for layer in layers if layer.name.startswith("stage3/block1/")} == {16}
    assert 2 * (count(resnet()).parameters - counted(resnet(), PAPER).weights - 100) == 53_120
    assert [resnet().tensors[i].shape for i in resnet().outputs] == [(1, 1, 1, 100)]


@pytest.mark.parametrize(("width", "millions"), [(0.75, 730.5), (0.5, 325.0), (0.25, 81.5)])
def test_what_resnet50_really_executes(width: float, millions: float) -> None:
    assert round(counted(resnet(width), "executed").macs / 1e6, 1) == millions


def test_the_paper_counts_161_percent_of_what_resnet50_executes() -> None:
    executed = counted(resnet(), "executed")
    assert executed.macs == count(resnet()).macs == 1_298_014_208
    assert round(counted(resnet(), PAPER).macs / executed.macs, 2) == 1.61


def test_conventions_are_never_mixed() -> None:
    with pytest.raises(UsageError, match="do not compare"):
        counted(tiny(), PAPER).share_of(counted(vgg(), "executed"))
    with pytest.raises(UsageError, match="do not compare"):
        counted(tiny(), PAPER) + counted(vgg(), "executed")
    with pytest.raises(UsageError, match="no convention 'paper'"):
        counted(tiny(), "paper")
    assert counted(vgg(0.5), PAPER).share_of(counted(vgg(), PAPER))[0] == Fraction(3_834_720, 15_285_952)


@pytest.mark.parametrize(("network", "width", "millions"), [
    ("vgg", 0.75, 17.49), ("vgg", 0.5, 7.94), ("vgg", 0.25, 2.20), ("resnet", 0.75, 26.96),
    ("resnet", 0.5, 12.20), ("resnet", 0.25, 3.31),
])  # fmt: skip
def test_what_must_be_stored(network: str, width: float, millions: float) -> None:
    """The selector and both dedicated networks: at width 0.75 more than the one network they replace."""
    dedicated = NETWORKS[network](width)
    stored = stored_weights(tiny(), dedicated, dedicated)
    assert round(stored / 1e6, 2) == millions
    assert (stored > counted(NETWORKS[network](1), PAPER).weights) == (width == 0.75)


@pytest.mark.parametrize(("network", "width", "value"), [
    ("vgg", 1, 3_234_372_608), ("vgg", 0.5, 811_372_032), ("resnet", 1, 5_104_694_272),
    ("resnet", 0.25, 327_146_752),
])  # fmt: skip
def test_energy_of_a_row_kept_in_registers(network: str, width: float, value: int) -> None:
    assert energy(NETWORKS[network](width)) == value
    assert energy(tiny()) == 57_009_312


def ratio(network: str, width: float, reading: str, layers: str = "tiny-5") -> float:
    base, dedicated = (energy(NETWORKS[network](w), reading) for w in (1, width))
    return float(base / (energy(tiny(layers), reading) + dedicated))


@pytest.mark.parametrize(("network", "width", "printed", "row"), [
    ("vgg", 0.5, 3.7, 3.725), ("vgg", 0.75, 1.7, 1.722), ("resnet", 0.75, 1.7, 1.738),
    ("resnet", 0.25, 13.3, 13.288),
])  # fmt: skip
def test_energy_ratios_the_paper_prints(network: str, width: float, printed: float, row: float) -> None:
    """By the recommended reading with the selector of five layers."""
    assert round(ratio(network, width, "row"), 3) == row
    assert round(ratio(network, width, "row"), 1) == printed


def test_energy_when_each_weight_is_used_once() -> None:
    """209 for each weight: with the selector of three layers all ratios are the printed ones."""
    assert energy(vgg(), "once") == 209 * 15_285_952
    found = [
        round(ratio(network, width, "once", "tiny-3"), 1)
        for network, width in (("vgg", 0.5), ("vgg", 0.75), ("resnet", 0.75), ("resnet", 0.25))
    ]
    assert found == [3.7, 1.7, 1.7, 13.3]
    share = energy(tiny("tiny-3"), "once") / energy(vgg(), "once")
    assert round(100 * float(share), 3) == 1.736  # the paper prints 1.8
    assert round(100 * float(energy(tiny("tiny-3"), "once") / energy(resnet(), "once")), 1) == 1.1


def test_the_selectors_share_of_the_energy() -> None:
    assert round(100 * float(energy(tiny()) / energy(vgg())), 3) == 1.763
    assert round(100 * float(energy(tiny()) / energy(resnet())), 3) == 1.117


def test_full_reuse_does_not_fit_the_paper() -> None:
    """The literal total of a row-stationary dataflow, 208 for each weight and 1 for each product."""
    assert energy(resnet(), "image") == 208 * 23_652_032 + 2_090_737_664
    shares = [energy(tiny("tiny-3"), "image") / energy(base, "image") for base in (vgg(), resnet())]
    assert [round(100 * float(share), 2) for share in shares] == [1.62, 0.81]  # 1.8 and 1.1 are printed
    assert round(ratio("resnet", 0.25, "image"), 1) == 13.9  # and 13.3


def test_equation_3() -> None:
    assert access_energy(1, 1, 1, 1) == 209
    assert access_energy(2, 3, 5, 7) == 400 + 36 + 60 + 210
    with pytest.raises(UsageError, match="no reading 'twice'"):
        energy(tiny(), "twice")
    with pytest.raises(UsageError, match="0 bits"):
        energy(tiny(), bits=0)


def test_table_5_prunes_all_but_the_last_layer() -> None:
    """80 % of each filter gone, 12 bits: 3.1 M and 1.1 M weights, 5.6 % of the energy, 18 times less."""
    base, half = prune(vgg(), 0.8, dense=["output"]), prune(vgg(0.5), 0.8, dense=["output"])

    def left(graph: Graph) -> int:
        return sum(layer.nonzero for layer in weight_layers(graph))

    assert round(left(base) / 1e6, 3) == 3.098
    assert round((left(half) + left(tiny())) / 1e6, 3) == 1.060
    share = (energy(tiny()) + energy(half, bits=12, dense=False)) / energy(vgg())
    assert round(100 * float(share), 3) == 5.625
    assert round(float(1 / share)) == 18
    uniform = prune(vgg(), 0.8)
    assert round(left(uniform) / 1e6, 3) == 3.057


def test_pruning_keeps_the_greatest_and_the_earlier_of_equals() -> None:
    values = np.array([[0.5, -0.1], [0.1, -2.0], [0.0, 0.1]])
    assert kept(values, 0.5).tolist() == [[True, True], [False, True], [False, False]]
    assert kept(values, 0).all()
    assert not kept(values, 1).any()
    pruned = prune(tiny(), 0.9)
    before, after = (weight_layers(graph)[2] for graph in (tiny(), pruned))
    assert after.nonzero == before.weights - round(0.9 * before.weights)
    with pytest.raises(UsageError, match=r"share 1\.5"):
        prune(tiny(), 1.5)
    with pytest.raises(UsageError, match="no layer 'nothing'"):
        prune(tiny(), 0.5, dense=["nothing"])


def test_accuracy_of_a_perfect_selector_is_the_papers() -> None:
    assert round(expected_accuracy(0.5, 0, 0, (70.96, 0), (0, 59.08)), 2) == 65.02
    assert expected_accuracy(0.5, 0, 0, (73.73, 0), (0, 71.02)) == pytest.approx(72.375)
    for distorted, printed in ((57.89, 68.09), (63.79, 68.68), (61.02, 68.40)):
        assert round(expected_accuracy(0.1, 0, 0, (69.22, 0), (0, distorted)), 2) == printed


def test_accuracy_with_misses_and_false_alarms() -> None:
    """Selectors that are always wrong, always say clean, always say distorted; and a mixture."""
    clean, distorted = (0.8, 0.5), (0.3, 0.7)
    assert expected_accuracy(0.25, 1, 1, clean, distorted) == pytest.approx(0.75 * 0.5 + 0.25 * 0.3)
    assert expected_accuracy(0.25, 0, 1, clean, distorted) == pytest.approx(0.75 * 0.8 + 0.25 * 0.3)
    assert expected_accuracy(0.25, 1, 0, clean, distorted) == pytest.approx(0.75 * 0.5 + 0.25 * 0.7)
    expected = 0.6 * (0.9 * 0.8 + 0.1 * 0.5) + 0.4 * (0.8 * 0.7 + 0.2 * 0.3)
    assert expected_accuracy(0.4, 0.1, 0.2, clean, distorted) == pytest.approx(expected)
    with pytest.raises(UsageError, match=r"misses 1\.1"):
        expected_accuracy(0.5, 0, 1.1, clean, distorted)


def test_widths_that_leave_no_whole_number_are_refused() -> None:
    for network in (vgg16, resnet50):
        for width in (0, 1.5, -0.5, 0.3, True, "1"):
            with pytest.raises(UsageError, match="width"):
                network(width)
    with pytest.raises(UsageError, match="neither 'tiny-5' nor 'tiny-3'"):
        selector("tiny")
    with pytest.raises(UsageError, match="multiple of 8"):
        selector(height=12)


def test_a_filter_that_is_computed_has_no_weights() -> None:
    builder = GraphBuilder()
    x = builder.input("x", (1, 4, 4, 2), "float32")
    w = builder.input("w", (3, 1, 1, 2), "float32")
    y = builder.tensor("y", (1, 4, 4, 3), "float32")
    graph = builder.build([builder.layer("CONV_2D", (x, w), (y,), padding="SAME", stride_w=1, stride_h=1)])
    with pytest.raises(ModelError, match="'w' is not a constant"):
        counted(graph, "executed")
