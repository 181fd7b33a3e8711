"""Compiled Edge TPU models against their sources: public pairs, and small graphs a stand-in compiles."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from karat24.cli import main
from karat24.export.edgetpu import read_compiled
from karat24.export.tflite import write_tflite
from karat24.golden.edgetpu import conclusion, lines, prove
from tests.support.edgetpu_chain import chain
from tests.support.edgetpu_pairs import PAIRS, pair
from tests.support.edgetpu_standin import compiled

NOT_PROVABLE = {"posenet_mobilenet_v1_075_353_481_16_quant_decoder": ["PAD"]}
ON_CPU = {
    "posenet_mobilenet_v1_075_353_481_16_quant_decoder": ["CUSTOM:PosenetDecoderOp"],
    "deeplabv3_mnv2_dm05_pascal_quant": [
        "RESIZE_BILINEAR", "QUANTIZE", "CONCATENATION", "CONV_2D", "CONV_2D", "RESIZE_BILINEAR",
        "RESIZE_BILINEAR", "ARG_MAX",
    ],
}  # fmt: skip


@pytest.mark.parametrize("name", PAIRS)
def test_a_public_pair_is_proved_to_the_last_byte(name: str) -> None:
    source, model = pair(name)
    proof = prove(source, [model])
    found = {
        verdict: [p.op for p in proof.layers if p.verdict == verdict]
        for verdict in ("on_cpu", "not_provable")
    }
    assert found == {"on_cpu": ON_CPU.get(name, []), "not_provable": NOT_PROVABLE.get(name, [])}
    assert proof.count("differs") == 0
    assert proof.io == ()
    for part in proof.parameters:
        assert part.explained + part.zeros == part.size
        assert part.explained > 0.99 * part.size
    assert proof.verdict == ("not_provable" if name in NOT_PROVABLE else "proved")


@pytest.mark.parametrize("name", PAIRS)
def test_every_weighted_layer_of_a_public_pair_is_proved_in_every_field(name: str) -> None:
    source, model = pair(name)
    for layer in prove(source, [model]).layers:
        view = source.view(layer.layer)
        if layer.op not in ("CONV_2D", "DEPTHWISE_CONV_2D") or layer.verdict == "on_cpu":
            continue
        assert layer.proved["weights"] == view.input(1).data.size
        assert layer.proved["biases"] == view.input(2).data.size
        if view.input(1).quantization.per_channel:
            assert layer.proved["multipliers"] == len(view.input(1).quantization.scale)
        assert layer.proved["output stage values"] >= 8
        assert len(layer.parameters) == 1
        assert layer.stages


def test_another_source_is_no_pair() -> None:
    """The same network trained on something else: names and shapes agree, no number does."""
    source, model = pair(PAIRS[0])
    rng = np.random.default_rng(3)
    tensors = tuple(
        replace(t, data=rng.integers(0, 256, t.shape).astype(t.dtype))
        if t.dtype == "uint8" and t.is_constant
        else t
        for t in source.tensors
    )
    proof = prove(replace(source, tensors=tensors), [model])
    assert proof.exit_code == 1
    assert proof.is_foreign
    assert conclusion(proof).startswith("The two files do not belong together")


def test_other_scales_alone_are_told_from_another_source() -> None:
    """As in a published pair with another output scale: weights prove, multipliers do not."""
    source, model = pair(PAIRS[0])
    tensor = source.view(28).output()
    other = replace(tensor, quantization=replace(tensor.quantization, scale=(0.125,)))
    tensors = tuple(other if t is tensor else t for t in source.tensors)
    proof = prove(replace(source, tensors=tensors), [model])
    assert proof.verdict == "differs"
    assert not proof.is_foreign
    assert {f.field for f in proof.layers[28].findings} >= {"multiplier"}
    assert proof.layers[28].proved["weights"] == 256 * 1001


@pytest.mark.parametrize(("dtype", "per_channel"), [("int8", True), ("int8", False), ("uint8", False)])
def test_a_compiled_chain_is_proved(dtype: str, per_channel: bool) -> None:
    """Channels that fill no group of 4, more than one block, int8 and uint8, one scale and many."""
    source = chain(dtype=dtype, per_channel=per_channel)
    proof = prove(source, [read_compiled(compiled(source))])
    assert [str(f) for layer in proof.layers for f in layer.findings] == []
    assert proof.verdict == "proved"
    assert proof.exit_code == 0


def test_the_segments_of_a_pipeline_are_proved_together() -> None:
    source = chain()
    segments = [read_compiled(compiled(source, 0, 2)), read_compiled(compiled(source, 2))]
    assert prove(source, segments).verdict == "proved"


def test_a_missing_segment_is_missed() -> None:
    source = chain()
    proof = prove(source, [read_compiled(compiled(source, 0, 2))])
    assert [layer.verdict for layer in proof.layers] == ["proved", "proved", "differs", "differs"]
    assert proof.io[-1].field == "name"
    assert proof.io[-1].source == "d"


def test_operations_in_another_order_are_noticed() -> None:
    """The stages of the first two layers change places: each is still there."""
    source = chain(per_channel=False)
    model = read_compiled(compiled(source))
    op = model.ops[0]
    main, cache = op.package.executables
    stream = main.instructions[0]
    one = 6 * 16
    swapped = stream[one : 2 * one] + stream[:one] + stream[2 * one :]
    package = replace(op.package, executables=(replace(main, instructions=(swapped,)), cache))
    proof = prove(source, [replace(model, ops=(replace(op, package=package),))])
    assert [layer.verdict for layer in proof.layers] == ["proved", "differs", "proved", "proved"]
    assert proof.layers[1].findings[0].field == "order of operations"


def test_bytes_nobody_explains_are_a_difference() -> None:
    source = chain()
    model = read_compiled(compiled(source))
    op = model.ops[0]
    main, cache = op.package.executables
    cache = replace(cache, parameters=cache.parameters + bytes(64) + b"\1" * 64)
    package = replace(op.package, executables=(main, cache))
    proof = prove(source, [replace(model, ops=(replace(op, package=package),))])
    assert proof.count("differs") == 0
    start = len(cache.parameters) - 128
    assert [s for part in proof.parameters for s in part.unexplained] == [(start, start + 128)]
    assert proof.exit_code == 1
    assert "belong to no layer" in "\n".join(lines(proof))


@pytest.fixture
def files(tmp_path):
    """Writes a source and its compiled segments; returns the paths as text."""

    def write(name: str, content: bytes) -> str:
        path = tmp_path / name
        path.write_bytes(content)
        return str(path)

    return write


def test_the_command_gives_exit_code_and_json(files, capsys: pytest.CaptureFixture[str]) -> None:
    source = chain()
    path = files("chain.tflite", write_tflite(source))
    good = files("chain_edgetpu.tflite", compiled(source))
    assert main(["prove", good, "--source", path]) == 0
    assert "The compiled file carries this source" in capsys.readouterr().out
    other = files("other.tflite", write_tflite(chain(channels=(6, 9, 70))))
    assert main(["prove", good, "--source", other, "--json"]) == 1
    (content,) = json.loads(capsys.readouterr().out)["proofs"]
    assert content["verdict"] == "differs"
    assert [layer["verdict"] for layer in content["layers"]][-1] == "differs"


def test_the_command_needs_a_source_and_a_compiled_file(files, capsys: pytest.CaptureFixture[str]) -> None:
    source = chain()
    path = files("chain.tflite", write_tflite(source))
    assert main(["prove", path]) == 2
    assert "--source" in capsys.readouterr().err
    assert main(["prove", path, "--source", path]) == 2
    assert "was not compiled for the Edge TPU" in capsys.readouterr().err


def test_files_compiled_together_share_a_token(files, capsys: pytest.CaptureFixture[str]) -> None:
    """Two models of one set prove; with another token, or none, they prove each, but not as a set."""
    one, two = chain(), chain(channels=(6, 9, 70))
    paths = [files("one.tflite", write_tflite(one)), files("two.tflite", write_tflite(two))]
    first = files("one_edgetpu.tflite", compiled(one, token=5))
    for token, code, word in ((5, 0, "share one"), (6, 1, "do not share one"), (0, 1, "do not share one")):
        second = files("two_edgetpu.tflite", compiled(two, token=token))
        arguments = ["prove", first, second, "--source", paths[0], "--source", paths[1]]
        assert main(arguments) == code
        assert f"The 2 compiled files {word} caching token." in capsys.readouterr().out
