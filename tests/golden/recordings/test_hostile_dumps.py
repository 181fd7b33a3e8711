"""A dump that somebody damaged or made up is one error that names it, and takes no memory."""

from __future__ import annotations

import io
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest

from karat24.delegates.dumps import read_npy_file
from karat24.golden.recordings.read import read_dump
from karat24.refimpl.errors import FeedError, UsageError
from tests.support.int8_networks import plain

GRAPH = plain()
VALUES = 864


def npy(values: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.lib.format.write_array(stream, values)
    return stream.getvalue()


def header(text: str, version: int = 1) -> bytes:
    content = text.encode()
    length = len(content).to_bytes(2 if version == 1 else 4, "little")
    return b"\x93NUMPY" + bytes([version, 0]) + length + content


SHAPED = "{'descr': '|i1', 'fortran_order': False, 'shape': (1, 12, 12, 6), }"

BROKEN = {
    "empty": (b"", "not an .npy array"),
    "no array": (b"hello, world", "not an .npy array"),
    "objects": (npy(np.array([{}] * VALUES, object)), "holds element type .O"),
    "text": (npy(np.array(["a"] * VALUES)), "holds element type <U1"),
    "fields": (npy(np.zeros(VALUES, [("a", "i1")])), "holds records"),
    "complex numbers": (npy(np.zeros(VALUES, complex)), "holds element type <c16"),
    "too few values": (npy(np.zeros(3, np.int8)), r"holds 3 values \(3,\), the tensor 864 values"),
    "huge shape": (header(SHAPED.replace("12, 12", "1 << 40, 12")), "not a readable .npy header"),
    "huge count": (header(SHAPED.replace("12, 12", "99999999999, 12")), "the tensor 864 values"),
    "negative shape": (header(SHAPED.replace("12, 12, 6", "-12, -12, 6")), "not a readable .npy header"),
    "cut off": (npy(np.zeros((1, 12, 12, 6), np.int8))[:-1], "the file ends after 863 of 864 bytes"),
    "header cut off": (header(SHAPED)[:40], "not a readable .npy header"),
    "code for a header": (header("__import__('os').abort()"), "not a readable .npy header"),
    "nested header": (header("(" * 4000), "not a readable .npy header"),
    "header of 4 GiB": (b"\x93NUMPY\x02\x00\xff\xff\xff\xff", "a header of 4294967295 bytes"),
    "long double": (header(SHAPED.replace("|i1", "<f16")), "holds element type <f16"),
    "a row of commas": (header(SHAPED.replace("12, 12", ", " * 99)), "not a readable .npy header"),
}


@pytest.mark.parametrize(("content", "message"), BROKEN.values(), ids=BROKEN)
def test_a_broken_array(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "image.npy"
    path.write_bytes(content)
    with pytest.raises(FeedError, match=rf"image\.npy: .*{message}"):
        read_dump(GRAPH, path)
    with zipfile.ZipFile(tmp_path / "dump.npz", "w") as archive:
        archive.writestr("image.npy", content)
    with pytest.raises(FeedError, match=message):
        read_dump(GRAPH, tmp_path / "dump.npz")


def test_orders_and_versions_that_numpy_writes(tmp_path: Path) -> None:
    values = np.arange(VALUES, dtype=np.int16).reshape(1, 12, 12, 6)
    path = tmp_path / "x.npy"
    for written in (np.asfortranarray(values), values.astype(">i2")):
        np.save(path, written)
        assert np.array_equal(read_npy_file(path, VALUES), values)
        assert read_npy_file(path, VALUES).dtype == np.int16
    for version in ((2, 0), (3, 0)):
        with path.open("wb") as stream:
            np.lib.format.write_array(stream, values, version=version)
        assert np.array_equal(read_npy_file(path, VALUES), values)


def test_a_zip_bomb_is_not_unpacked(tmp_path: Path) -> None:
    """64 MiB of zeros in 64 KiB: no more is read of them than the tensor takes."""
    path = tmp_path / "dump.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("image.npy", header(SHAPED) + bytes(1 << 26))
    tracemalloc.start()
    try:
        assert read_dump(GRAPH, path)[0].values.size == VALUES
        assert tracemalloc.get_traced_memory()[1] < 1 << 22
    finally:
        tracemalloc.stop()


def test_damaged_archives(tmp_path: Path) -> None:
    path = tmp_path / "dump.npz"
    buffer = io.BytesIO()
    np.savez_compressed(buffer, image=np.random.default_rng(0).integers(0, 99, (1, 12, 12, 6), np.int8))
    whole = buffer.getvalue()
    refused = 0
    for place in range(0, len(whole), 37):
        damaged = bytearray(whole)
        damaged[place] ^= 0x55
        path.write_bytes(damaged)
        try:
            read_dump(GRAPH, path)
        except FeedError:
            refused += 1
    assert refused > 10
    for content in (b"", b"PK\x03\x04", whole[: len(whole) // 2]):
        path.write_bytes(content)
        with pytest.raises(FeedError, match=r"dump\.npz: cannot be read"):
            read_dump(GRAPH, path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("out5.bin", bytes(863), r"holds 863 bytes; 'out5', int8 .* has 864"),
        ("out5.bin", bytes(1 << 20), "holds 1048576 bytes"),
        ("out5.c", b"int8_t out[] = {1, 2, 3};", "holds 3 values; 'out5'"),
        ("out5.c", b"int8_t a[] = {1}; int8_t b[] = {2};", "defines 2 arrays"),
        ("out5.c", b"int8_t out[] = {system(1)};", "'system' is not a number"),
        ("out5.c", b"\xff\xfe\x00", "is not a number"),
        ("out5.txt", b"9" * 864, "is not a number"),
        ("out5.txt", b"1 " * (1 << 17), "longer than"),
        ("out5.txt", b"99999999999999999999 " * 864, "more than 63 bits"),
    ],
)
def test_files_of_one_tensor(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(FeedError, match=message):
        read_dump(GRAPH, tmp_path / name)


def test_what_is_no_dump(tmp_path: Path) -> None:
    (tmp_path / "dump.pkl").write_bytes(b"\x80\x04K\x01.")
    with pytest.raises(UsageError, match="not a recording; give a folder of"):
        read_dump(GRAPH, tmp_path / "dump.pkl")
    with pytest.raises(FeedError, match="no such file or folder"):
        read_dump(GRAPH, tmp_path / "absent.npz")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FeedError, match="holds no array of a tensor"):
        read_dump(GRAPH, tmp_path / "empty")
