"""What the Edge TPU proof says of files another compiler may write: never a difference that is none, never a
proof of what was not seen."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from karat24.export.edgetpu import CompiledModel, read_compiled
from karat24.export.edgetpu.instructions import FACTOR_PLACES, InstructionStream
from karat24.golden.edgetpu import Proof, lines, prove
from karat24.golden.edgetpu.pairing import pair as pair_stages
from karat24.refimpl.errors import UsageError
from karat24.refimpl.graph import Graph, Quantization
from tests.support.edgetpu_chain import chain
from tests.support.edgetpu_pairs import PAIRS, pair
from tests.support.edgetpu_standin import compiled

STAGE = 6
"""Instructions the stand-in writes per layer: filler, nothing, before, stage, behind, filler."""


def with_words(source: Graph, change: Callable[[list[int]], list[int]]) -> CompiledModel:
    """The source compiled, its instructions changed."""
    model = read_compiled(compiled(source))
    (op,) = model.ops
    main, cache = op.package.executables
    (stream,) = main.instructions
    words = [int.from_bytes(stream[at : at + 16], "little") for at in range(0, len(stream), 16)]
    content = b"".join(word.to_bytes(16, "little") for word in change(words))
    package = replace(op.package, executables=(replace(main, instructions=(content,)), cache))
    return replace(model, ops=(replace(op, package=package),))


def verdicts(proof: Proof) -> list[str]:
    return [layer.verdict for layer in proof.layers]


def test_a_field_that_stands_elsewhere_is_not_compared() -> None:
    """Every layer's output zero point is in another place: no layer differs, and none is proved."""
    source = chain(per_channel=False)

    def moved(words: list[int]) -> list[int]:
        return [word & ~(0xFF << 29) if at % STAGE == 4 else word for at, word in enumerate(words)]

    proof = prove(source, [with_words(source, moved)])
    assert verdicts(proof) == ["not_provable"] * 4
    assert {reason for layer in proof.layers for reason in layer.reasons} == {
        "the output zero point does not stand where known compilers put it"
    }
    assert proof.exit_code == 3


def test_a_field_that_one_layer_lacks_is_a_difference() -> None:
    source = chain(per_channel=False)

    def changed(words: list[int]) -> list[int]:
        return [word ^ 1 << 29 if at == STAGE + 4 else word for at, word in enumerate(words)]

    proof = prove(source, [with_words(source, changed)])
    assert verdicts(proof) == ["proved", "differs", "proved", "proved"]
    (finding,) = proof.layers[1].findings
    assert (finding.field, finding.where, finding.source) == ("output zero point", "instruction 9", 135)


def test_a_stage_in_unknown_surroundings_is_found_by_its_numbers() -> None:
    """Where the instruction before is not empty, multiplier and clamps still tell a layer."""
    source = chain(per_channel=False)

    def surrounded(words: list[int]) -> list[int]:
        return [1 if at % STAGE == 1 else word for at, word in enumerate(words)]

    model = with_words(source, surrounded)
    assert InstructionStream(model.ops[0].package.main.instructions).stages() == ()
    proof = prove(source, [model])
    assert verdicts(proof) == ["proved"] * 4
    assert all(layer.proved["output stage values"] == 3 for layer in proof.layers)


def test_without_any_stage_nothing_is_proved() -> None:
    source = chain()
    proof = prove(source, [with_words(source, lambda words: [1] * len(words))])
    assert verdicts(proof) == ["not_provable"] * 4
    assert all(layer.proved["weights"] for layer in proof.layers)
    assert proof.exit_code == 3


def test_a_stage_that_resembles_no_layer_is_mentioned() -> None:
    source = chain(per_channel=False)

    def added(words: list[int]) -> list[int]:
        return [*words, 0, 0x18 << 48, 0x3FA00000 << 29 | 0x42000000 << 61 | 0xC2000000 << 93, 0, 1]

    proof = prove(source, [with_words(source, added)])
    assert verdicts(proof) == ["proved"] * 4
    assert proof.stages == (4 * STAGE + 2,)
    assert proof.exit_code == 3
    assert "output stages that belong to no layer: 1, at instructions 26\n" in "\n".join(lines(proof))


def test_a_source_without_numbers_is_not_provable() -> None:
    """A tensor that lost its scale: the layers at both sides cannot be predicted."""
    source = chain()
    index = source.view(0).output().index
    tensors = tuple(replace(t, quantization=None) if t.index == index else t for t in source.tensors)
    proof = prove(replace(source, tensors=tensors), [read_compiled(compiled(source))])
    assert verdicts(proof) == ["not_provable", "not_provable", "proved", "proved"]
    assert "has no quantization parameters" in proof.layers[0].reasons[0]


def test_a_compiled_file_is_no_source() -> None:
    model = read_compiled(compiled(chain()))
    with pytest.raises(UsageError, match="the source is compiled itself"):
        prove(model.graph, [model])


def test_layers_with_equal_constants_share_their_stages() -> None:
    """Two layers of which nothing in a stage tells one from the other are each other's witnesses."""
    source = chain()
    tensors = list(source.tensors)
    a, b = source.view(0).output(), source.view(1).output()
    tensors[b.index] = replace(b, quantization=Quantization.per_tensor(a.scale, a.zero_point))
    source = replace(source, tensors=tuple(tensors))
    model = read_compiled(compiled(source))
    paired, _, _ = pair_stages(source.views(), InstructionStream(model.ops[0].package.main.instructions))
    assert all(len(layer.stages) >= 1 for layer in paired)
    assert prove(source, [model]).count("differs") == 0


def test_an_addition_scaled_by_other_integers_is_not_provable() -> None:
    """Twice the factors and constant and half the multiplier compute one thing; the best pair it is not."""
    source, model = pair(PAIRS[2])
    proved = prove(source, [model]).layers[42]
    assert (proved.op, proved.verdict) == ("ADD", "proved")
    (op,) = model.ops
    main, cache = op.package.executables
    stream = int.from_bytes(main.instructions[0], "little")

    def bits(at: int, count: int) -> int:
        return stream >> at & (1 << count) - 1

    for place, (offset, bit) in enumerate(place for places in FACTOR_PLACES for place in places):
        at = 128 * (proved.stages[0] + offset) + bit
        assert bits(at, 16) == (6263 if place < 4 else 7585)
        stream += bits(at, 16) << at
    for stage in proved.stages:
        exponent = 128 * stage + 29 + 23
        stream -= 1 << exponent
        constant = 128 * stage + 125
        value = bits(constant, 32)
        stream += ((2 * value & (1 << 32) - 1) - value) << constant
    content = stream.to_bytes(len(main.instructions[0]), "little")
    package = replace(op.package, executables=(replace(main, instructions=(content,)), cache))
    proof = prove(source, [replace(model, ops=(replace(op, package=package),))])
    assert proof.count("differs") == 0
    assert proof.layers[42].verdict == "not_provable"
    assert "other integers" in proof.layers[42].reasons[0]
