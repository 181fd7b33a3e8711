"""Reading compiled Edge TPU models: every static fact of public ones, faults one at a time, damaged files."""

from __future__ import annotations

import json
import random
import tracemalloc
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from flatbuffers import flexbuffers

from karat24.cli import main
from karat24.export.edgetpu import read_compiled, read_package
from karat24.export.edgetpu.describe import describe, describe_graph, lines
from karat24.export.edgetpu.instructions import InstructionStream
from karat24.export.tflite import read_tflite
from karat24.golden.edgetpu import prove
from karat24.refimpl.errors import KaratError, ModelError, UnsupportedOp
from karat24.refimpl.flexbuffer import MAX_VALUES, read_flexbuffer_map
from tests.shared_models import require
from tests.support import edgetpu_standin
from tests.support.byte_mutations import flip_bit, flip_bytes, remove, replace_word, truncate
from tests.support.edgetpu_pairs import PAIRS
from tests.support.small_network import small_graph

DAMAGED = 2000


def test_a_public_model_says_what_it_is() -> None:
    model = read_compiled(require(f"coral/{PAIRS[2]}_edgetpu.tflite"))
    (op,) = model.ops
    assert [view.op for view in model.cpu_layers][:2] == ["RESIZE_BILINEAR", "QUANTIZE"]
    assert (op.package.min_runtime_version, op.package.compiler_version) == (12, "cl/")
    main, cache = op.package.executables
    assert op.package.main is main
    assert (main.type, cache.type) == ("EXECUTION_ONLY", "PARAMETER_CACHING")
    assert {main.chip, cache.chip} == {"beagle"}
    assert len(cache.parameters) == 766_720 == cache.dma_bytes["parameter"]
    assert main.dma_bytes == {"input": 789_512, "output": 279_040}
    assert main.relocations == {"parameter": 2, "scratch": 2, "input": 2, "output": 4}
    assert model.caching_tokens == {0x36959A24102F7ACD}
    (image,) = main.inputs
    assert (image.name, image.shape, image.dtype) == ("MobilenetV2/MobilenetV2/input", (513, 513, 3), "uint8")
    assert (image.scale, image.zero_point, image.size_bytes) == (0.0078125, 128, 789_512)
    assert [(layer.shape, layer.tiles) for layer in main.outputs] == [((33, 33, 256), 16), ((1, 1, 256), 16)]
    description = describe(model)
    assert description["ops"][0]["executables"][0]["output_stages"] == 260
    text = "\n".join(lines(description))
    assert "needs runtime 12" in text
    assert "8 layers on the CPU: 1 RESIZE_BILINEAR, 2 QUANTIZE" in text


def test_inspect_shows_a_compiled_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "small_edgetpu.tflite"
    path.write_bytes(edgetpu_standin.compiled(small_graph()))
    assert main(["inspect", str(path)]) == 0
    out = capsys.readouterr().out
    assert "layer 0 runs on the Edge TPU: needs runtime 12, compiled by stand-in" in out
    assert "no layer on the CPU" in out
    assert main(["inspect", str(path), "--json"]) == 0
    (op,) = json.loads(capsys.readouterr().out)["edgetpu"]["ops"]
    assert op["options"] == {"version": 0, "preference": -1, "chips": [18, 300]}
    assert {"keypair_version", "virtual_chip_id", "signature_bytes"} <= set(op)
    assert op["executables"][0]["bitstream_bytes"] == [16 * op["executables"][0]["instructions"]]
    assert [executable["type"] for executable in op["executables"]] == ["EXECUTION_ONLY", "PARAMETER_CACHING"]


def test_a_graph_that_was_not_compiled_has_no_description() -> None:
    assert describe_graph(small_graph()) is None
    with pytest.raises(ModelError, match=r"no layer is an edgetpu-custom-op.*NAME_edgetpu\.tflite"):
        read_compiled(require(f"coral/{PAIRS[0]}.tflite"))


def test_an_output_stage_is_read_from_its_four_instructions() -> None:
    before = 0x38 << 48 | 7 << 62 | 9 << 78
    stage = 1 | 43 << 14 | 63 << 20 | 0x3F000000 << 29 | 0x437F0000 << 61 | 0xC3000000 << 93 | 5 << 125
    behind = 0x1FFFFFFF | 200 << 29
    words = [0, before, stage, behind]
    stream = b"".join((word & (1 << 128) - 1).to_bytes(16, "little") for word in words)
    (found,) = InstructionStream((stream, b"not an instruction")).stages()
    assert (found.instruction, found.unit, found.per_channel) == (2, "multiply", True)
    assert (found.block, found.last_block) == (64, 44)
    assert (found.multiplier, found.upper, found.lower) == (0x3F000000, 0x437F0000, 0xC3000000)
    assert (found.first_zero_point, found.second_zero_point, found.output_zero_point) == (9, 7, 200)
    assert found.constant == -3
    assert InstructionStream((stream[:48],)).stages() == ()


def flex(build) -> bytes:
    builder = flexbuffers.Builder()
    with builder.Map():
        build(builder)
    return bytes(builder.Finish())


def test_a_map_is_read_as_flatbuffers_writes_it() -> None:
    def build(b: flexbuffers.Builder) -> None:
        b.Int("1", -3)
        b.UInt("2", 70_000)
        b.Float("f", 0.5)
        b.Bool("t", True)
        b.String("s", "text")
        b.Key("4")
        b.Blob(b"\0" * 300)
        b.TypedVectorFromElements("chips", [18, 300])
        b.VectorFromElements("mixed", [1, True])

    content = flex(build)
    assert read_flexbuffer_map(content) == {
        "1": -3, "2": 70_000, "f": 0.5, "t": 1, "s": b"text", "4": bytes(300), "chips": [18, 300],
        "mixed": [1, 1],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "0 bytes are not a FlexBuffer"),
        (b"\1\4\1", "root must be a map"),
        (b"\0" * 40 + b"\x24\1", "refers to byte|keys are 0 bytes wide"),
        (flex(lambda b: b.VectorFromElements("v", [1, "two"])), "type 5, no whole number"),
        (flex(lambda b: b.TypedVectorFromElements("v", [7] * MAX_VALUES)), f"more than {MAX_VALUES} values"),
        (flex(lambda b: b.IndirectInt("i", 7)), "type 6, which is not read"),
    ],
)
def test_what_is_no_such_map_is_refused(content: bytes, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        read_flexbuffer_map(content)


def test_executables_the_driver_does_not_know_are_refused() -> None:
    one = edgetpu_standin.executable("EXECUTION_ONLY", 1, [], b"", [], [])
    with pytest.raises(UnsupportedOp, match="the driver knows one, or one and its cache"):
        read_package(edgetpu_standin.package([one, one]))
    with pytest.raises(ModelError, match="at most 16 are read"):
        read_package(edgetpu_standin.package([one] * 17))
    with pytest.raises(ModelError, match="identifier 'DWN1'"):
        read_package(b"\0" * 64)


def test_executables_beside_the_package_are_refused() -> None:
    """They would run, and nothing here has read them."""
    one = edgetpu_standin.executable("STAND_ALONE", 1, [], b"", [], [])
    ends = [small_graph().tensors[0]], [small_graph().tensors[-1]]
    sound = edgetpu_standin.file_of(edgetpu_standin.package([one]), *ends)
    assert read_compiled(sound).ops[0].options == {"version": 0, "preference": -1, "chips": [18, 300]}
    with pytest.raises(UnsupportedOp, match="further executables beside the package"):
        read_compiled(edgetpu_standin.file_of(edgetpu_standin.package([one]), *ends, further=(1,)))


def test_a_custom_op_without_a_package_is_refused() -> None:
    tensors = [small_graph().tensors[0]]
    content = edgetpu_standin.file_of(b"", tensors, [small_graph().tensors[-1]])
    with pytest.raises(ModelError, match=r"layer 0 \(edgetpu-custom-op\): not a flatbuffer"):
        read_compiled(content)


def damaged(rng: random.Random, sound: bytes) -> bytes:
    data = bytearray(sound)
    rng.choice((flip_bytes, flip_bit, truncate, remove, replace_word, replace_word))(data, rng)
    return bytes(data)


@pytest.fixture(scope="module")
def sound() -> bytes:
    """A small compiled model; most of it is structure, so that damage hits it."""
    return edgetpu_standin.compiled(small_graph())


def test_damaged_files_are_read_or_refused_in_one_line(sound: bytes) -> None:
    rng = random.Random(5)
    outcomes: Counter[str] = Counter()
    source = small_graph()
    for _ in range(DAMAGED):
        content = damaged(rng, sound)
        measured = rng.random() < 0.1
        if measured:
            tracemalloc.start()
        try:
            model = read_compiled(content)
            "\n".join(lines(describe(model)))
            outcomes[prove(source, [model]).verdict] += 1
        except KaratError as error:
            outcomes[type(error).__name__ if str(error) else "no message"] += 1
        if measured:
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
            assert peak < 40 * len(sound) + (4 << 20)
    assert outcomes["no message"] == 0
    assert outcomes["ModelError"] > DAMAGED // 4
    assert outcomes["differs"] > 0


@pytest.mark.slow
@pytest.mark.parametrize("name", PAIRS)
def test_damaged_public_files_are_read_or_refused_in_one_line(name: str) -> None:
    """Damage to the package's own structure: its first and last bytes, where tables lie."""
    rng = random.Random(6)
    whole = require(f"coral/{name}_edgetpu.tflite").read_bytes()
    source = read_tflite(require(f"coral/{name}.tflite"))
    outcomes: Counter[str] = Counter()
    for _ in range(DAMAGED // 3):
        data = bytearray(whole)
        start = rng.choice((0, len(data) - 8192, rng.randrange(len(data) - 4096)))
        part = data[start : start + 8192]
        rng.choice((flip_bytes, flip_bit, truncate, remove, replace_word, replace_word))(part, rng)
        data[start : start + 8192] = part
        try:
            model = read_compiled(bytes(data))
            describe(model)
            if rng.random() < 0.05:
                outcomes[prove(source, [model]).verdict] += 1
        except KaratError as error:
            outcomes[type(error).__name__ if str(error) else "no message"] += 1
    assert outcomes["no message"] == 0
    assert outcomes["ModelError"] > 0


def test_shared_bytes_are_not_read_over_and_over() -> None:
    """A package whose executables are one string named 15 times takes no 15 times its size."""
    blob = np.random.default_rng(0).integers(0, 256, 1 << 16).astype(np.uint8).tobytes()
    one = edgetpu_standin.executable("PARAMETER_CACHING", 1, [], blob, [], [])
    package = bytearray(edgetpu_standin.package([one] + [b"xxxx"] * 14))
    vector = package.find((15).to_bytes(4, "little"))
    first = int.from_bytes(package[vector + 4 : vector + 8], "little") + vector + 4
    for index in range(15):
        at = vector + 4 + 4 * index
        package[at : at + 4] = (first - at).to_bytes(4, "little")
    with pytest.raises(ModelError, match="over and over"):
        read_package(bytes(package))
