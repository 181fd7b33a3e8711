"""The file: what it holds, that its schema describes it, and that damage is recognised."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from karat24.feeds import random_feeds
from karat24.golden.goldens import read_golden, text
from karat24.golden.goldens.files import MOST_BYTES, values_digest
from karat24.golden.goldens.text import READERS, from_text, to_text
from karat24.refimpl.engine import compile_graph
from karat24.refimpl.errors import CannotCompare, DamagedGolden
from tests.support.small_golden import SmallGolden, small_golden
from tests.support.small_network import small_graph

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> SmallGolden:
    return small_golden(tmp_path_factory.mktemp("small"), keep="outputs")


def test_it_holds_what_the_specs_compute(small: SmallGolden) -> None:
    """Hashes, saturation and ties are counted again from the slow definitions, one value at a time."""
    graph = small_graph()
    trace = (
        compile_graph(graph, "litert-2.3-ref", implementation="spec")
        .run(random_feeds(graph, 0), accumulators=True)
        .trace
    )
    assert trace is not None
    assert [tensor.tensor for tensor in small.golden.tensors] == [layer.outputs[0] for layer in graph.layers]
    for tensor in small.golden.tensors:
        values = trace.tensors[tensor.tensor]
        assert tensor.sha256 == hashlib.sha256(values.tobytes()).hexdigest()
        flat = values.reshape(-1).tolist()
        assert tensor.saturated == (flat.count(-128), flat.count(127))
        assert (tensor.ties is not None) == (tensor.op == "CONV_2D")
    assert any(sum(tensor.saturated or ()) for tensor in small.golden.tensors), "the case must saturate"
    convolution = small.golden.tensors[1]
    real = trace.accumulators[1].reshape(-1) * 0.0078125  # both scales of activations are equal
    assert convolution.ties == sum(value % 1 == 0.5 for value in real.tolist()) > 0


def test_the_schema_describes_it(small: SmallGolden) -> None:
    jsonschema = pytest.importorskip("jsonschema", reason="jsonschema is not installed")
    schema = json.loads(Path(text.__file__).with_name("golden.schema.json").read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    content = json.loads(small.path.read_text(encoding="utf-8"))
    assert list(validator.iter_errors(content)) == []
    for key in content:  # the schema can fail
        assert list(validator.iter_errors({k: v for k, v in content.items() if k != key})), key


def test_reading_gives_what_was_written(small: SmallGolden) -> None:
    golden = read_golden(small.path)
    assert golden == small.golden
    assert to_text(golden) == small.path.read_text(encoding="utf-8")
    lines = to_text(golden).splitlines()
    assert sum('"op":' in line for line in lines) == len(golden.tensors), "one line per tensor"


def test_git_on_windows_may_end_lines_its_way(small: SmallGolden) -> None:
    assert from_text(to_text(small.golden).replace("\n", "\r\n"), "here") == small.golden


def test_every_version_stays_readable() -> None:
    """A file of each version that was ever released; version-1.golden.json was written by version 0.1.0."""
    for version in READERS:
        golden = read_golden(HERE / f"version-{version}.golden.json")
        assert golden.version == version
        assert golden.profile == "litert-2.3-ref"
        assert [tensor.op for tensor in golden.tensors] == ["CONV_2D", "CONV_2D", "ADD", "MAX_POOL_2D"]


def test_a_newer_version_is_no_damage(small: SmallGolden) -> None:
    body = to_text(small.golden).replace('"version": 1,', '"version": 2,').rpartition('"checksum"')[0]
    newer = f'{body}"checksum": "{hashlib.sha256(body.encode()).hexdigest()}"\n}}\n'
    with pytest.raises(CannotCompare, match="format version 2") as raised:
        from_text(newer, "here")
    assert not isinstance(raised.value, DamagedGolden)


def test_every_cut_and_every_lost_line_is_damage(small: SmallGolden) -> None:
    whole = to_text(small.golden)
    lines = whole.splitlines(keepends=True)
    damaged = [whole[:length] for length in range(0, len(whole), 7)]
    damaged += ["".join(lines[:i] + lines[i + 1 :]) for i in range(len(lines))]
    damaged += [whole + "}", "<<<<<<< ours\n" + whole]
    for content in damaged:
        with pytest.raises(DamagedGolden, match="here"):
            from_text(content, "here")


def test_every_flipped_character_is_damage(small: SmallGolden) -> None:
    whole = to_text(small.golden)
    for place in range(0, len(whole), 5):
        other = "1" if whole[place] != "1" else "2"
        with pytest.raises(DamagedGolden):
            from_text(whole[:place] + other + whole[place + 1 :], "here")


HOSTILE = {
    "not JSON": "{]",
    "deep": "[" * 100_000,
    "a list": "[]",
    "NaN": '{"kind": "karat24 golden", "version": NaN}',
    "a huge integer": '{"version": ' + "9" * 5000 + "}",
    "no fields": '{"kind": "karat24 golden", "version": 1}',
    "version as text": '{"kind": "karat24 golden", "version": "1"}',
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_file_with_a_good_checksum_is_refused(case: str) -> None:
    body = HOSTILE[case].removesuffix("}").rstrip() + ",\n"
    content = f'{body}"checksum": "{hashlib.sha256(body.encode()).hexdigest()}"\n}}\n'
    with pytest.raises(CannotCompare, match="here"):
        from_text(content, "here")


def test_wrong_types_with_a_good_checksum_are_refused(small: SmallGolden) -> None:
    whole = to_text(small.golden)
    for old, new in (
        ('"layer": 0', '"layer": "0"'),
        ('"layer": 0', '"layer": true'),
        ('"sha256": "', '"sha256": "x'),
        ('"shape": [', '"shape": [[], '),
        ('"profile": "litert-2.3-ref"', '"profile": null'),
        ('"producer": {', '"producer": {"machine": [1], '),
    ):
        assert old in whole
        body = whole.replace(old, new, 1).rpartition('"checksum"')[0]
        content = f'{body}"checksum": "{hashlib.sha256(body.encode()).hexdigest()}"\n}}\n'
        with pytest.raises(DamagedGolden):
            from_text(content, "here")


def test_a_huge_file_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "huge.golden.json"
    with path.open("wb") as file:
        file.truncate(MOST_BYTES + 1)
    with pytest.raises(DamagedGolden, match="MiB"):
        read_golden(path)


def test_the_digest_is_of_little_endian_bytes_in_c_order() -> None:
    values = np.arange(6, dtype="<i4").reshape(2, 3)
    expected = hashlib.sha256(values.tobytes()).hexdigest()
    assert values_digest(values) == values_digest(values.astype(">i4")) == expected
    assert values_digest(np.asfortranarray(values)) == expected
    assert values_digest(np.zeros((0, 3), np.int8)) == hashlib.sha256(b"").hexdigest()
    assert values_digest(np.array(7, np.int8)) == hashlib.sha256(b"\x07").hexdigest()
