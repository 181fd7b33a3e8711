"""Constant values of an ONNX file: inside it, or in a file beside it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from karat24.export.onnx.schema import MAX_RANK, TYPE_NAMES, TYPED_FIELDS
from karat24.refimpl.errors import ModelError, UnsupportedOp
from karat24.refimpl.graph import DTYPES, MAX_ELEMENTS, OPAQUE_TYPES, Array
from karat24.refimpl.spec.shared.packed import PACKED

EXTERNAL = 1
"""``TensorProto.DataLocation`` of values kept in another file."""


def array_of(proto: Any, where: str, folder: Path | None) -> Array:
    """The values of a TensorProto. Sizes are checked before anything is allocated.

    ``folder`` is where the model file lies; values in other files are read only from inside it.
    For an opaque element type the result is the bytes of the message, flat, or no bytes where they are in
    another file. Raises ModelError when sizes and values do not agree, UnsupportedOp for element types
    without a name.
    """
    dtype = element_type(proto.data_type, where)
    shape = tuple(int(size) for size in proto.dims)
    if len(shape) > MAX_RANK or any(size < 0 for size in shape) or math.prod(shape) > MAX_ELEMENTS:
        raise ModelError(f"{where}: shape {shape[: MAX_RANK + 1]} is not possible")
    if proto.HasField("segment"):
        raise UnsupportedOp(f"{where} is stored in segments, which are not supported")
    if dtype in PACKED:
        return _packed(proto, math.prod(shape), where, folder)
    if dtype in OPAQUE_TYPES:
        return _bytes_of(proto)
    stored = DTYPES[dtype].newbyteorder("<")
    needed = math.prod(shape) * stored.itemsize
    if proto.data_location == EXTERNAL:
        flat = np.frombuffer(_external(proto, needed, where, folder), stored)
    elif proto.HasField("raw_data"):
        if len(proto.raw_data) != needed:
            raise ModelError(
                f"{where} holds {len(proto.raw_data)} bytes; shape {shape} of {dtype} needs {needed}"
            )
        flat = np.frombuffer(proto.raw_data, stored)
    else:
        flat = _typed(proto, dtype, math.prod(shape), where)
    if dtype == "bool" and flat.view(np.uint8).max(initial=0) > 1:
        raise ModelError(f"{where} holds bytes other than 0 and 1 for a bool tensor")
    values = flat.astype(DTYPES[dtype], copy=not flat.flags.aligned).reshape(shape)
    values.flags.writeable = False
    return values


def element_type(code: int, where: str) -> str:
    """The name of an ONNX element type. Raises UnsupportedOp for one without a name here."""
    if code not in TYPE_NAMES:
        raise UnsupportedOp(
            f"{where}: element type number {code} is unknown to karat24: the file is of a newer version of "
            "ONNX, or damaged"
        )
    return TYPE_NAMES[code]


def _bytes_of(proto: Any) -> Array:
    """The bytes of values of an opaque type: ``raw_data``, or the stored texts or numbers."""
    content = proto.raw_data or b"".join(proto.string_data) or np.array(proto.int32_data, "<i4").tobytes()
    return np.frombuffer(content, np.uint8)


def _packed(proto: Any, count: int, where: str, folder: Path | None) -> Array:
    """The stored bytes, two values in each; an odd last value has a byte of its own."""
    needed = (count + 1) // 2
    if proto.data_location == EXTERNAL:
        return np.frombuffer(_external(proto, needed, where, folder), np.uint8)
    listed = np.array(proto.int32_data, np.int64)
    if listed.size and not (int(listed.min()) >= 0 and int(listed.max()) <= 255):
        raise ModelError(f"{where} holds numbers outside 0 to 255, the range of a byte")
    stored = np.frombuffer(proto.raw_data, np.uint8) if proto.raw_data else listed.astype(np.uint8)
    if stored.size != needed:
        raise ModelError(f"{where} holds {stored.size} bytes; {count} values of 4 bits need {needed}")
    return stored


def _typed(proto: Any, dtype: str, count: int, where: str) -> Array:
    """Values stored as a list of protobuf numbers; float16 as its bits."""
    numbers = getattr(proto, TYPED_FIELDS[dtype])
    if len(numbers) != count:
        raise ModelError(f"{where} holds {len(numbers)} values of {dtype}; its shape needs {count}")
    if dtype in ("float32", "float64"):
        return np.array(numbers, DTYPES[dtype])
    exact = np.array(
        numbers, np.uint64 if dtype.startswith("uint") and dtype[4:] in ("32", "64") else np.int64
    )
    target = np.dtype(np.uint16) if dtype == "float16" else DTYPES[dtype]
    limits = (0, 1) if dtype == "bool" else (np.iinfo(target).min, np.iinfo(target).max)
    if count and not (limits[0] <= int(exact.min()) and int(exact.max()) <= limits[1]):
        raise ModelError(f"{where} holds values outside {dtype}")
    return exact.astype(target).view(DTYPES[dtype]) if dtype == "float16" else exact.astype(target)


def _external(proto: Any, needed: int, where: str, folder: Path | None) -> bytes:
    """Exactly the bytes a tensor keeps in a file of the model's folder."""
    entries = {entry.key: entry.value for entry in proto.external_data}
    location = entries.get("location", "")
    if folder is None:
        raise ModelError(f"{where} keeps its values in {location!r}: give the model as a path, not as bytes")
    path = _inside(folder, location, where)
    try:
        offset = int(entries.get("offset", "0"))
        length = int(entries.get("length", str(needed)))
    except ValueError:
        raise ModelError(f"{where}: offset and length in {location!r} are not numbers") from None
    if length != needed:
        raise ModelError(f"{where} has {length} bytes in {location!r}; its shape needs {needed}")
    try:
        size = path.stat().st_size
        if offset < 0 or offset + length > size:
            raise ModelError(
                f"{where}: bytes {offset} to {offset + length} of {location!r}, which has {size}"
            )
        with path.open("rb") as file:
            file.seek(offset)
            return file.read(length)
    except OSError as error:
        raise ModelError(f"{where}: {location!r} cannot be read ({error.strerror})") from error


def _inside(folder: Path, location: str, where: str) -> Path:
    """The file ``location`` names, links followed, which must lie inside ``folder``."""
    try:
        root = folder.resolve(strict=True)
        path = (root / location).resolve()
        # A null byte or an endless chain of links ends in an exception here.
        if location and path.is_relative_to(root) and path.is_file():
            return path
    except (OSError, RuntimeError, ValueError):
        pass
    raise ModelError(
        f"{where} keeps its values in {location!r}, which is not a file inside the folder of the model"
    )
