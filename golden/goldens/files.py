"""Goldens on disk. A file is written whole or not at all, whenever the process is killed."""

from __future__ import annotations

import glob
import hashlib
import io
import os
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from karat24.golden.goldens.manifest import Golden
from karat24.golden.goldens.text import MOST_BYTES, from_text, to_text
from karat24.refimpl.errors import CannotCompare, DamagedGolden, UsageError
from karat24.refimpl.graph import Array

SUFFIX = ".golden.json"
UNREADABLE = (OSError, ValueError, KeyError, EOFError, NotImplementedError, zipfile.BadZipFile, zlib.error)
"""What reading a damaged .npz file raises."""

TEMPORARY = ".karat24-tmp"
"""The suffix of a file that is being written. A killed process leaves it behind; ``prune`` removes it."""


def read_golden(path: Path) -> Golden:
    """The golden in a file. Raises UsageError where there is none, and what ``from_text`` raises."""
    try:
        if path.stat().st_size > MOST_BYTES:
            raise DamagedGolden(f"{path}: more than {MOST_BYTES >> 20} MiB, which no golden has")
        return from_text(path.read_bytes().decode(), str(path))
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise DamagedGolden(f"{path}: a damaged golden: not text in UTF-8 ({error.reason})") from None


def write_golden(path: Path, golden: Golden, arrays: Mapping[int, Array] | None = None) -> Golden:
    """Writes a golden and, in a .npz file beside it, ``arrays`` by tensor index; returns it as written.

    The arrays come first, under a name made of their content: until the golden itself is replaced, the old
    one and its arrays stay valid. Arrays of the old one are removed last.
    """
    before = _arrays_of(path)
    golden = replace(golden, arrays=arrays_name(path, arrays or {}))
    if arrays:
        target, content = path.with_name(golden.arrays), _packed(arrays)
        if not target.is_file() or target.read_bytes() != content:  # one that is there may be damaged
            write_whole(target, content)
    write_whole(path, to_text(golden).encode())
    if before not in ("", golden.arrays):
        path.with_name(before).unlink(missing_ok=True)
    return golden


def arrays_name(path: Path, arrays: Mapping[int, Array]) -> str:
    """The name of the file beside a golden that holds ``arrays``, made of their content; '' for none."""
    return f"{_stem(path)}.{_content_name(arrays)}.npz" if arrays else ""


def write_whole(path: Path, content: bytes) -> None:
    """Writes a file under a temporary name, waits until it is on the disk, and gives it its own name.

    Other processes may write the file at the same time: one of them wins whole.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=TEMPORARY, dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o666 & ~_mask())
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    if os.name == "posix":  # elsewhere a folder cannot be opened, and its entry is written with the file
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _mask() -> int:
    """The process's mask of permissions: mkstemp ignores it, and a golden is a file like others."""
    mask = os.umask(0)
    os.umask(mask)
    return mask


def find_goldens(folder: Path) -> list[Path]:
    """Every golden in a folder and below it, in order."""
    return sorted(
        path for path in folder.rglob(f"*{SUFFIX}") if not path.name.startswith(".") and not path.is_dir()
    )


def leftovers(folder: Path) -> Iterator[Path]:
    """What killed processes left behind: temporary files, and arrays that no golden names.

    Arrays of a golden that cannot be read, a damaged one or one of a newer version, are its own.
    """
    yield from sorted(folder.rglob(f".*{TEMPORARY}"))
    named: set[Path] = set()
    for golden in find_goldens(folder):
        try:
            named.add(golden.parent / read_golden(golden).arrays)
        except (UsageError, CannotCompare):
            named.update(arrays_beside(golden))
    for path in sorted(folder.rglob("*.golden.*.npz")):
        if path not in named and _is_content_name(path):
            yield path


def arrays_beside(path: Path) -> list[Path]:
    """Every file beside a golden that has its name and holds arrays, of this golden or of an older one."""
    return list(path.parent.glob(f"{glob.escape(_stem(path))}.*.npz"))


def _arrays_of(path: Path) -> str:
    """The arrays of the golden that lies there, if a whole one does."""
    try:
        return _plain_name(read_golden(path).arrays, path)
    except (UsageError, CannotCompare):
        return ""


def _stem(path: Path) -> str:
    return path.name.removesuffix(".json")


def _content_name(arrays: Mapping[int, Array]) -> str:
    digest = hashlib.sha256()
    for index, values in sorted(arrays.items()):
        digest.update(f"{index} {values.dtype} {values.shape} {values_digest(values)}\n".encode())
    return digest.hexdigest()[:12]


def _is_content_name(path: Path) -> bool:
    content = path.name.split(".")[-2]
    return len(content) == 12 and set(content) <= set("0123456789abcdef")


def values_digest(values: Array) -> str:
    """SHA-256 of an array's bytes in C order, little endian."""
    ordered = np.ascontiguousarray(values)
    if ordered.dtype.byteorder == ">" or (ordered.dtype.byteorder == "=" and sys.byteorder == "big"):
        ordered = ordered.byteswap()
    return hashlib.sha256(ordered.reshape(-1).view(np.uint8).data).hexdigest()


def _packed(arrays: Mapping[int, Array]) -> bytes:
    """The arrays as .npz: the content decides the bytes, no clock does."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for index, values in sorted(arrays.items()):
            content = io.BytesIO()
            np.lib.format.write_array(content, np.asarray(values), allow_pickle=False)
            entry = zipfile.ZipInfo(f"{index}.npy", (1980, 1, 1, 0, 0, 0))
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, content.getvalue())
    return buffer.getvalue()


def _plain_name(name: str, path: Path) -> str:
    """The name of the arrays' file. Raises DamagedGolden for one that leads out of the golden's folder."""
    if name and (Path(name).name != name or "\\" in name or not name.startswith(f"{_stem(path)}.")):
        raise DamagedGolden(f"{path}: its arrays are said to lie in {name!r}, which is not beside it")
    return name


def stored_arrays(path: Path, golden: Golden, wanted: Collection[int]) -> dict[int, Array]:
    """Arrays beside a golden, by tensor index, those of ``wanted`` that are there; {} without any.

    What is unpacked has the size and the SHA-256 that the golden says. Raises DamagedGolden for a file that
    is missing or holds other values.
    """
    name = _plain_name(golden.arrays, path)
    if not name:
        return {}
    source, found = path.with_name(name), {}
    try:
        with zipfile.ZipFile(source) as archive:
            sizes = {entry.filename: entry.file_size for entry in archive.infolist()}
            for tensor in golden.tensors:
                entry = f"{tensor.tensor}.npy"
                if tensor.tensor in wanted and entry in sizes and tensor.sha256:
                    found[tensor.tensor] = _stored(archive, entry, sizes[entry], tensor.dtype, tensor.shape)
                    if values_digest(found[tensor.tensor]) != tensor.sha256:
                        raise ValueError(f"tensor {tensor.tensor} has other values than the golden says")
    except UNREADABLE as error:
        raise DamagedGolden(
            f"{source}: the arrays of a golden cannot be read: {error}; take the file from git, or see "
            "`karat24 golden accept`"
        ) from None
    return found


def require_arrays(path: Path, golden: Golden) -> None:
    """Raises DamagedGolden unless the arrays beside a golden are all there, as they were written."""
    found = stored_arrays(path, golden, {tensor.tensor for tensor in golden.tensors})
    if golden.arrays != arrays_name(path, found):
        raise DamagedGolden(
            f"{path.with_name(golden.arrays)}: arrays of the golden are missing in it; take the file from "
            "git, or see `karat24 golden accept`"
        )


def _stored(archive: zipfile.ZipFile, entry: str, size: int, dtype: str, shape: tuple[int, ...]) -> Array:
    with archive.open(entry) as file:
        reader: Any = np.lib.format
        header = {(1, 0): reader.read_array_header_1_0, (2, 0): reader.read_array_header_2_0}
        stored_shape, fortran, stored_dtype = header[reader.read_magic(file)](file)
        expected = np.dtype(dtype)
        too_large = size > 4096 + _bytes(shape, expected)
        if stored_shape != shape or stored_dtype != expected or fortran or too_large:
            raise ValueError(f"{entry} holds {stored_dtype} {stored_shape}, the golden says {dtype} {shape}")
        content = file.read(_bytes(shape, expected))
    return np.frombuffer(content, expected).reshape(shape)


def _bytes(shape: tuple[int, ...], dtype: np.dtype[Any]) -> int:
    return int(np.prod(shape, dtype=object)) * dtype.itemsize
