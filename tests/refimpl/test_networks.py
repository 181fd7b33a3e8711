"""The networks' structure and size, their weights, and chaining."""

from __future__ import annotations

import numpy as np
import pytest

from karat24.refimpl.builder import GraphBuilder
from karat24.refimpl.cost import count
from karat24.refimpl.errors import ModelError, UsageError
from karat24.refimpl.graph import Graph, Quantization
from karat24.refimpl.networks import (
    chain,
    fine_tune,
    learnt_ranges,
    load_weights,
    tomogan,
    trained_weights,
    without_ranges,
)

CONV = ("CONV_2D", 1)
ENCODER = [CONV] + [CONV, CONV, ("MAX_POOL_2D", 1)] * 3 + [CONV]
CONCAT = ("CONCATENATION", 1)


def structure(graph: Graph) -> list[tuple[str, int]]:
    return [(layer.op, layer.version) for layer in graph.layers]


def weights_of(graph: Graph) -> dict[str, np.ndarray]:
    return {t.name: t.data for t in graph.tensors if t.is_constant and t.dtype == "float32"}


def test_bilinear_tomogan_is_the_published_network() -> None:
    graph = tomogan(64, 64)
    decoder = [("RESIZE_BILINEAR", 3), CONCAT, CONV, CONV] * 3 + [CONV, CONV]
    assert structure(graph) == ENCODER + decoder
    cost = count(graph)
    assert cost.parameters == 694_913
    assert cost.macs == 92_712 * 64 * 64
    assert [graph.tensors[i].shape for i in graph.outputs] == [(1, 64, 64, 1)]


def test_whole_slice_costs_97_billion_multiplications() -> None:
    assert round(count(tomogan(1024, 1024)).macs / 1e9, 1) == 97.2


def test_transposed_tomogan_agrees_with_the_papers_301_billion_operations() -> None:
    graph = tomogan(1024, 1024, "transposed")
    decoder = [("TRANSPOSE_CONV", 1), ("RELU", 1), CONCAT, CONV, CONV] * 3 + [CONV, CONV]
    assert structure(graph) == ENCODER + decoder
    operations = count(graph).operations_at_output
    assert abs(operations - 301e9) / 301e9 < 0.012
    # At the resolution the transposed convolutions really work at, it is less.
    assert count(graph).operations < operations


def test_fine_tune_is_the_papers_621_8_million_operations() -> None:
    graph = fine_tune(1024, 1024)
    assert structure(graph) == [CONV, CONV]
    cost = count(graph)
    assert cost.operations == 593 * 1024 * 1024
    assert round(cost.operations / 1e6, 1) == 621.8
    assert cost.parameters == 9 * 16 + 16 + 9 * 16 + 1


def test_skip_connections_come_first_in_every_concatenation() -> None:
    graph = tomogan(16, 24)
    names = [
        [tensor.name for tensor in view.inputs if tensor is not None]
        for view in graph.views()
        if view.op == "CONCATENATION"
    ]
    assert names == [
        ["box3/conv2", "up3/upsample"],
        ["box2/conv2", "up2/upsample"],
        ["box1/conv2", "up1/upsample"],
    ]


@pytest.mark.parametrize("upsampling", ["bilinear", "transposed"])
@pytest.mark.parametrize("size", [(8, 8), (8, 64), (72, 16)])
def test_every_multiple_of_eight_keeps_its_size(upsampling: str, size: tuple[int, int]) -> None:
    for graph in (tomogan(*size, upsampling), fine_tune(*size)):
        assert graph.tensors[graph.inputs[0]].shape[1:3] == size
        assert graph.tensors[graph.outputs[0]].shape[1:3] == size


@pytest.mark.parametrize("size", [(0, 8), (-8, 8), (8, 12), (8, 1023), (8.0, 8), (True, 8)])
def test_other_sizes_are_refused(size: tuple[int, int]) -> None:
    for network in (tomogan, fine_tune):
        with pytest.raises(UsageError, match="not a positive multiple of 8"):
            network(*size)


def test_unknown_upsampling_and_seed_are_refused() -> None:
    with pytest.raises(UsageError, match="neither 'bilinear' nor 'transposed'"):
        tomogan(8, 8, "nearest")
    with pytest.raises(UsageError, match="seed"):
        tomogan(8, 8, seed=-1)


def test_the_seed_decides_the_weights_and_the_size_does_not() -> None:
    first, again, other = tomogan(8, 8, seed=3), tomogan(64, 16, seed=3), tomogan(8, 8, seed=4)
    for name, values in weights_of(first).items():
        assert np.array_equal(values, weights_of(again)[name])
        assert not np.array_equal(values, weights_of(other)[name])


def test_seeded_filters_are_he_normal() -> None:
    weights = weights_of(tomogan(8, 8, "transposed"))
    for name, fan_in in (("bottom/conv/filter", 9 * 128), ("up3/upsample/filter", 4 * 128)):
        # 150,000 draws: the standard deviation is known to about a part in 500.
        assert np.std(weights[name]) == pytest.approx(np.sqrt(2 / fan_in), rel=0.01)


@pytest.mark.parametrize("network", [tomogan, fine_tune])
def test_weights_survive_a_file(network, tmp_path) -> None:
    graph = network(8, 8, seed=7)
    np.savez(tmp_path / "weights.npz", **weights_of(graph))
    assert network(8, 8, weights=load_weights(tmp_path / "weights.npz")) == graph


def test_learnt_ranges_travel_with_the_weights() -> None:
    """The float network passes over them; what is no range is named."""
    weights = weights_of(fine_tune(8, 8))
    ranged = weights | {"repair/range": np.array([0, 2.5], np.float32)}
    assert fine_tune(8, 8, ranged) == fine_tune(8, 8, weights)
    assert learnt_ranges(ranged) == {"repair": (0.0, 2.5)}
    assert learnt_ranges(weights) == learnt_ranges(None) == {}
    for wrong in ([1.0], [2.0, 1.0], [0.0, np.nan], [0.0, np.inf], [[0.0, 1.0]]):
        with pytest.raises(ModelError, match="repair/range"):
            learnt_ranges({"repair/range": np.array(wrong, np.float32)})
    with pytest.raises(ModelError, match="repair/range"):
        learnt_ranges({"repair/range": np.array([0, 1])})


def test_one_tomogan_ships_for_float_and_for_both_schemes() -> None:
    """Its ranges come where they are asked for only, since quantizing weights with ranges calibrates nothing;
    nothing is given for a scheme or an upsampling that it was not trained for."""
    plain = trained_weights("tomogan")
    assert plain is not None
    assert not learnt_ranges(plain)
    for scheme in ("int8", "int8-mobile", "uint8-2019"):
        aware = trained_weights("tomogan", scheme=scheme, aware=True)
        assert learnt_ranges(aware)["output"][1] > 1.0
        assert all(np.array_equal(values, aware[name]) for name, values in plain.items())
        assert without_ranges(aware).keys() == plain.keys()
    for network in ("tomogan", "fine-tune", "chained"):
        assert trained_weights(network, scheme="int16x8", aware=True) is None
    assert trained_weights("tomogan", "transposed", aware=True) is None
    assert trained_weights("tomogan", "transposed") is not None


def test_fine_tune_ships_for_each_scheme_calibrated_and_aware() -> None:
    """Four sets of weights, each for what one way to quantize cost TomoGAN; other schemes take int8's."""
    filters = {}
    for aware in (False, True):
        for scheme in ("int8", "uint8-2019", "int8-mobile"):
            weights = trained_weights("fine-tune", scheme=scheme, aware=aware)
            filters[aware, scheme] = weights["repair/filter"].tobytes()
            assert bool(learnt_ranges(weights)) is aware
        assert filters[aware, "int8-mobile"] == filters[aware, "int8"]
    assert len(set(filters.values())) == 4


def test_every_weight_that_does_not_fit_is_listed() -> None:
    weights = weights_of(fine_tune(8, 8))
    del weights["repair/bias"]
    weights["repair/filter"] = weights["repair/filter"].transpose(1, 2, 3, 0)
    weights["output/filter"] = np.where(weights["output/filter"] > 0, np.nan, 1).astype(np.float32)
    weights["output/bias"] = np.zeros(1, np.int32)
    weights["more"] = np.zeros(1, np.float32)
    with pytest.raises(ModelError) as refusal:
        fine_tune(8, 8, weights)
    message = str(refusal.value)
    assert "'repair/bias' [16] is missing" in message
    assert "'repair/filter' has shape [3, 3, 1, 16], not [16, 3, 3, 1]" in message
    assert "'output/filter' holds" in message
    assert "'output/bias' is int32" in message
    assert "'more' is not a weight" in message


def test_float64_weights_beyond_float32_are_refused() -> None:
    weights = weights_of(fine_tune(8, 8))
    weights["output/bias"] = np.array([1e39])
    with pytest.raises(ModelError, match="not finite in float32"):
        fine_tune(8, 8, weights)


def test_unreadable_weight_files_are_named(tmp_path) -> None:
    with pytest.raises(UsageError, match="does not exist"):
        load_weights(tmp_path / "absent.npz")
    (tmp_path / "text.npz").write_text("no weights")
    np.save(tmp_path / "single.npy", np.zeros(3))
    np.savez(tmp_path / "objects.npz", odd=np.array([{}], dtype=object))
    whole = tmp_path / "whole.npz"
    np.savez(whole, values=np.zeros(1000))
    (tmp_path / "cut.npz").write_bytes(whole.read_bytes()[:-200])
    flipped = bytearray(whole.read_bytes())
    flipped[500] ^= 0xFF
    (tmp_path / "flipped.npz").write_bytes(flipped)
    (tmp_path / "empty.npz").write_bytes(b"")
    for name in ("text.npz", "single.npy", "objects.npz", "cut.npz", "flipped.npz", "empty.npz"):
        with pytest.raises(UsageError, match=name):
            load_weights(tmp_path / name)
    with pytest.raises(UsageError):
        load_weights(tmp_path)


def test_integer_filters_are_multiplied_with_their_scales(tmp_path) -> None:
    """One scale for each output channel, or one for all."""
    steps = np.arange(-6, 6, dtype=np.int8).reshape(2, 1, 1, 6)
    by_channel, whole = np.array([0.5, 0.25], np.float32), np.float32(0.125)
    for scale, wanted in ((by_channel, steps * by_channel.reshape(2, 1, 1, 1)), (whole, steps * whole)):
        np.savez(tmp_path / "w.npz", **{"a/filter": steps, "a/filter/scale": scale, "a/bias": np.ones(2)})
        found = load_weights(tmp_path / "w.npz")
        assert found.keys() == {"a/filter", "a/bias"}
        assert found["a/filter"].dtype == np.float32
        assert np.array_equal(found["a/filter"], wanted)


@pytest.mark.parametrize(
    "arrays",
    [
        {"a/filter/scale": np.ones(2, np.float32)},  # of no filter
        {"a/filter": np.ones((2, 1, 1, 1), np.float32), "a/filter/scale": np.ones(2, np.float32)},
        {"a/filter": np.ones((2, 1, 1, 1), np.int8), "a/filter/scale": np.ones(3, np.float32)},
        {"a/filter": np.ones((2, 1, 1, 1), np.int8), "a/filter/scale": np.ones(2, np.int8)},
    ],
)
def test_scales_that_fit_no_filter_are_named(arrays, tmp_path) -> None:
    np.savez(tmp_path / "w.npz", **arrays)
    with pytest.raises(UsageError, match="a/filter/scale"):
        load_weights(tmp_path / "w.npz")


def test_damaged_weight_files_end_in_one_line(tmp_path) -> None:
    """Random bytes changed anywhere: the file is read, or refused by name; nothing else is raised."""
    np.savez_compressed(tmp_path / "whole.npz", a=np.zeros((3, 4), np.float32), b=np.ones(7))
    whole = (tmp_path / "whole.npz").read_bytes()
    random, refused = np.random.default_rng(1), 0
    for _ in range(400):
        damaged = bytearray(whole)
        for position in random.integers(len(whole), size=3):
            damaged[position] = random.integers(256)
        (tmp_path / "damaged.npz").write_bytes(damaged)
        try:
            load_weights(tmp_path / "damaged.npz")
        except UsageError:
            refused += 1
    assert refused > 200


def test_chained_floats_are_one_graph() -> None:
    first, second = tomogan(16, 16), fine_tune(16, 16)
    graph = chain(first, second)
    assert structure(graph) == structure(first) + structure(second)
    (signature,) = graph.signatures
    assert list(signature.inputs) == ["input"]
    assert list(signature.outputs) == ["output"]
    assert graph.tensors[graph.outputs[0]].name == "output"
    names = [tensor.name for tensor in graph.tensors]
    assert len(set(names)) == len(names)
    assert "tomogan/output" in names
    # The edge itself: what TomoGAN's last layer writes is what Fine-Tune's first reads.
    assert graph.layers[len(first.layers)].inputs[0] == graph.layers[len(first.layers) - 1].outputs[0]


def test_a_graph_chained_with_itself_keeps_names_apart() -> None:
    once = fine_tune(8, 8)
    graph = chain(chain(once, once), once)
    names = [tensor.name for tensor in graph.tensors]
    assert len(set(names)) == len(names)
    assert len(graph.layers) == 6


def relu(source: Quantization | None, target: Quantization | None, dtype: str, shape=(1, 8)) -> Graph:
    builder = GraphBuilder("relu")
    x = builder.input("x", shape, dtype, source)
    return builder.build([builder.layer("RELU", (x,), (builder.tensor("y", shape, dtype, target),))])


HALF, QUARTER = Quantization.per_tensor(0.5, 3), Quantization.per_tensor(0.25, 3)


def test_equal_parameters_join_without_a_layer_between() -> None:
    graph = chain(relu(QUARTER, HALF, "int8"), relu(HALF, QUARTER, "int8"))
    assert structure(graph) == [("RELU", 1), ("RELU", 1)]


def test_other_parameters_are_requantized_between() -> None:
    graph = chain(relu(QUARTER, HALF, "int8"), relu(QUARTER, HALF, "int8"))
    assert structure(graph) == [("RELU", 1), ("QUANTIZE", 1), ("RELU", 1)]
    between = graph.view(1)
    assert between.input(0).quantization == HALF
    assert between.output().quantization == QUARTER


def test_other_element_types_are_requantized_between() -> None:
    graph = chain(relu(HALF, HALF, "int8"), relu(HALF, HALF, "uint8"))
    assert [view.output().dtype for view in graph.views()] == ["int8", "uint8", "uint8"]


def test_graphs_that_do_not_meet_are_refused() -> None:
    with pytest.raises(ModelError, match="shapes"):
        chain(tomogan(8, 8), fine_tune(16, 8))
    with pytest.raises(ModelError, match="float32 and int8"):
        chain(relu(None, None, "float32"), relu(HALF, HALF, "int8"))
    two = GraphBuilder("two")
    outputs = [two.input("a", (1,), "float32"), two.input("b", (1,), "float32")]
    with pytest.raises(ModelError, match="2 outputs"):
        chain(two.build(outputs), relu(None, None, "float32", (1,)))


def test_cost_counts_a_shared_filter_once() -> None:
    builder = GraphBuilder()
    x = builder.input("x", (1, 4, 4, 2), "float32")
    kernel = builder.constant("w", np.ones((2, 1, 1, 2), np.float32))
    for name in ("a", "b"):
        x = builder.layer("CONV_2D", (x, kernel), (builder.tensor(name, (1, 4, 4, 2), "float32"),))
    cost = count(builder.build((x,)))
    assert cost.parameters == 4
    assert cost.macs == 2 * 16 * 4
    assert cost.operations == 2 * cost.macs


def test_cost_of_each_weighted_op() -> None:
    builder = GraphBuilder()
    x = builder.input("x", (1, 4, 6, 2), "float32")
    depthwise = builder.layer(
        "DEPTHWISE_CONV_2D",
        (x, builder.constant("d", np.ones((1, 3, 5, 4), np.float32))),
        (builder.tensor("dy", (1, 4, 6, 4), "float32"),),
    )
    transposed = builder.layer(
        "TRANSPOSE_CONV",
        (
            builder.constant("size", np.array([1, 8, 12, 3], np.int32)),
            builder.constant("t", np.ones((3, 2, 2, 4), np.float32)),
            depthwise,
        ),
        (builder.tensor("ty", (1, 8, 12, 3), "float32"),),
    )
    dense = builder.layer(
        "FULLY_CONNECTED",
        (transposed, builder.constant("f", np.ones((5, 288), np.float32)), builder.constant("b", np.ones(5))),
        (builder.tensor("fy", (1, 5), "float32"),),
    )
    costs = count(builder.build((dense,))).layers
    assert [cost.macs for cost in costs] == [24 * 4 * 15, 24 * 4 * 4 * 3, 288 * 5]
    assert [cost.macs_at_output for cost in costs] == [24 * 4 * 15, 96 * 3 * 4 * 4, 288 * 5]
    assert [cost.bias_additions for cost in costs] == [0, 0, 5]
