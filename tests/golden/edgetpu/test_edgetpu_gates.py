"""The gates of an LSTM, as the one public pair lays them out; a stand-in writes the file."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from karat24.export.edgetpu import CompiledModel, read_compiled
from karat24.export.edgetpu.check import check_graph
from karat24.golden.edgetpu import Proof, lines, prove
from karat24.refimpl.builder import GraphBuilder
from karat24.refimpl.graph import Graph, Quantization
from tests.support.edgetpu_standin import compiled

OP = "UNIDIRECTIONAL_SEQUENCE_LSTM"


def network(units: int = 18, depth: int = 6) -> Graph:
    """Neither units nor inputs fill groups of 4 or blocks of 16."""
    rng = np.random.default_rng(9)
    builder = GraphBuilder("lstm")
    one = Quantization.per_tensor(0.01)
    x = builder.input("x", (1, 3, depth), "int8", Quantization.per_tensor(0.05, 3))
    given = [x]
    for kind, width in (("input", depth), ("state", units)):
        for gate in range(4):
            values = rng.integers(-127, 128, (units, width)).astype(np.int8)
            given.append(builder.constant(f"{kind}{gate}", values, one))
    given += [-1] * 3
    for gate in range(4):
        given.append(builder.constant(f"bias{gate}", rng.integers(-900, 900, units).astype(np.int32)))
    y = builder.tensor("y", (1, 3, units), "int8", Quantization.per_tensor(1 / 128))
    return builder.build((builder.layer(OP, given, [y]),))


def changed(source: Graph, model: CompiledModel, byte: int, bit: int) -> Proof:
    (op,) = model.ops
    main, cache = op.package.executables
    content = bytearray(cache.parameters)
    content[byte] ^= 1 << bit
    package = replace(op.package, executables=(main, replace(cache, parameters=bytes(content))))
    return prove(source, [replace(model, ops=(replace(op, package=package),))])


def test_weights_and_biases_are_proved_and_multipliers_are_not() -> None:
    source = network()
    proof = prove(source, [read_compiled(compiled(source))])
    (layer,) = proof.layers
    assert layer.proved == {"weights": 4 * 18 * (6 + 18), "biases": 4 * 18}
    assert layer.verdict == "not_provable"
    assert layer.reasons == ("no known field of a compiled file holds its gates' multipliers",)
    (part,) = proof.parameters
    assert part.unexplained == ()
    assert (part.explained, part.routing) == (4 * (32 * 4 + 7 * 32 * 4), 3 * 64)
    assert proof.exit_code == 3
    assert "gates' multipliers" in "\n".join(lines(proof))


def test_a_changed_bit_is_told_by_gate_and_place() -> None:
    """One of a bias of the first gate, one of a weight of the third."""
    source = network()
    model = read_compiled(compiled(source))
    size = 32 * 4 + 7 * 32 * 4
    for byte, gate, field in ((4 * 5, "input", "bias"), (2 * size + 128 + 32 * 4 + 4 * 7, "cell", "filter")):
        proof = changed(source, model, byte, 6)
        (layer,) = proof.layers
        assert layer.verdict == "differs"
        (finding,) = layer.findings
        assert (finding.field, finding.where.startswith(f"{gate} gate, channel ")) == (field, True)
        assert finding.where.endswith(f"byte {byte}")
        assert proof.exit_code == 1


def test_gates_in_another_order_are_another_network() -> None:
    source = network()
    view = source.view(0)
    order = list(view.layer.inputs)
    for first in (1, 5, 12):
        order[first], order[first + 1] = order[first + 1], order[first]
    swapped = replace(source, layers=(replace(view.layer, inputs=tuple(order)),))
    proof = prove(swapped, [read_compiled(compiled(source))])
    assert proof.layers[0].verdict == "differs"
    assert [finding.field for finding in proof.layers[0].findings] == ["order of gates"]


def test_the_checker_knows_what_runtime_an_lstm_needs() -> None:
    (check,) = check_graph(network())
    assert (check.outcome, check.runtime) == ("maps", 14)
