"""A golden as text: JSON with one line per tensor, closed by a checksum of all lines before it.

``golden/README.md`` describes the format, ``golden.schema.json`` beside this module is its JSON Schema.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any, NoReturn

from karat24.golden.goldens.manifest import (
    VERSION,
    Golden,
    GoldenTensor,
    InputReference,
    ModelReference,
    Producer,
)
from karat24.refimpl.errors import CannotCompare, DamagedGolden

KIND = "karat24 golden"
MOST_BYTES = 32 << 20
"""Larger files are refused as goldens: one line takes about 300 bytes."""

_CLOSING = re.compile(r'"checksum": "([0-9a-f]{64})"\n\}\n')


def to_text(golden: Golden) -> str:
    """The golden as it lies in git; :func:`from_text` reads it back."""
    head = {
        "kind": KIND,
        "version": VERSION,
        "recorded_by": golden.recorded_by,
        "model": asdict(golden.model),
        "input": _without_empty(asdict(golden.input)),
        "profile": golden.profile,
        "producer": _without_empty(asdict(golden.producer) | {"machine": dict(golden.producer.machine)}),
        "arrays": golden.arrays,
    }
    lines = ["{", *(f'"{key}": {_line(value)},' for key, value in head.items())]
    lines += _listed("outputs", [{"tensor": t, "sha256": sha} for t, sha in golden.outputs.items()])
    lines += _listed("tensors", [_without_empty(asdict(tensor)) for tensor in golden.tensors])
    body = "\n".join(lines) + "\n"
    return f'{body}"checksum": "{_checksum(body)}"\n}}\n'


def from_text(text: str, where: str) -> Golden:
    """The golden in ``text``; ``where`` names it in messages. Lines may end as in git on Windows.

    Raises DamagedGolden, which says what is wrong with it, and CannotCompare for a version not known here.
    """
    text = text.replace("\r\n", "\n")
    closing = _CLOSING.search(text, max(0, len(text) - 100))
    if closing is None or closing.end() != len(text):
        raise _damaged(where, "its last line is not a checksum, so a part of it is missing")
    if closing[1] != _checksum(text[: closing.start()]):
        raise _damaged(where, "its checksum is not that of its lines, so it was edited or merged by hand")
    try:
        content = json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise _damaged(where, f"it is not JSON: {error}") from None
    if not isinstance(content, dict) or content.get("kind") != KIND:
        raise _damaged(where, f"it is not of kind {KIND!r}")
    version = content.get("version")
    reader = READERS.get(version) if isinstance(version, int) else None
    if reader is None:
        raise CannotCompare(
            f"{where}: a golden of format version {version!r}; this karat24 reads "
            f"{', '.join(map(str, READERS))}: install a newer one"
        )
    try:
        return reader(content)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise _damaged(where, f"it lacks a field or has one of a wrong type: {error}") from None


def _damaged(where: str, what: str) -> DamagedGolden:
    return DamagedGolden(
        f"{where}: a damaged golden: {what}; take the last good one from git, or record it anew"
    )


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a number")


def _checksum(body: str) -> str:
    return hashlib.sha256(body.encode()).hexdigest()


def _line(value: object) -> str:
    return json.dumps(value, allow_nan=False)


def _listed(key: str, entries: list[dict[str, Any]]) -> list[str]:
    """A list with one entry a line."""
    lines = [_line(entry) + "," for entry in entries]
    if lines:
        lines[-1] = lines[-1][:-1]
    return [f'"{key}": [', *lines, "],"]


def _without_empty(entry: Mapping[str, Any]) -> dict[str, Any]:
    """What says something: a field that is left out has its default. A shape and ``fixed: false`` stay."""
    return {
        key: value
        for key, value in entry.items()
        if key in ("shape", "sha256")
        or (value is False if key == "fixed" else value not in (None, "", (), {}))
    }


def _version_1(content: Mapping[str, Any]) -> Golden:
    return Golden(
        model=ModelReference(_str(content["model"], "path"), _sha256(content["model"], "sha256")),
        input=_input(content["input"]),
        profile=_str(content, "profile"),
        producer=_producer(content["producer"]),
        tensors=tuple(_tensor(entry) for entry in content["tensors"]),
        outputs={_int(entry, "tensor"): _sha256(entry, "sha256") for entry in content["outputs"]},
        arrays=_str(content, "arrays", ""),
        recorded_by=_str(content, "recorded_by", ""),
        version=1,
    )


READERS: Mapping[int, Callable[[Mapping[str, Any]], Golden]] = {1: _version_1}
"""What makes a golden of the JSON of each format version; a version stays readable once it was released."""


def _input(entry: Mapping[str, Any]) -> InputReference:
    return InputReference(
        sha256=_sha256(entry, "sha256"),
        seed=_int(entry, "seed") if "seed" in entry else None,
        files=tuple(_strings(entry.get("files", ()))),
        low=float(entry["low"]) if "low" in entry else None,
        high=float(entry["high"]) if "high" in entry else None,
    )


def _producer(entry: Mapping[str, Any]) -> Producer:
    machine = entry.get("machine", {})
    values = _strings(machine.values())
    return Producer(_str(entry, "name"), _str(entry, "runtime", ""), dict(zip(machine, values, strict=True)))


def _tensor(entry: Mapping[str, Any]) -> GoldenTensor:
    saturated = entry.get("saturated")
    return GoldenTensor(
        layer=_int(entry, "layer"),
        op=_str(entry, "op"),
        tensor=_int(entry, "tensor"),
        name=_str(entry, "name", ""),
        dtype=_str(entry, "dtype"),
        shape=tuple(_ints(entry["shape"])),
        scale=tuple(float(value) for value in entry.get("scale", ())),
        zero_point=tuple(_ints(entry.get("zero_point", ()))),
        sha256=_sha256(entry, "sha256", empty=True),
        saturated=None if saturated is None else _pair(saturated),
        ties=_int(entry, "ties") if "ties" in entry else None,
        fixed=entry.get("fixed", True) is not False,
        note=_str(entry, "note", ""),
    )


def _str(entry: Mapping[str, Any], key: str, default: str | None = None) -> str:
    value = entry[key] if default is None else entry.get(key, default)
    if not isinstance(value, str):
        raise TypeError(f"{key} is {value!r}, not text")
    return value


def _strings(values: Any) -> list[str]:
    return [_str({"entry": value}, "entry") for value in values]


def _int(entry: Mapping[str, Any], key: str) -> int:
    value = entry[key]
    if type(value) is not int:
        raise TypeError(f"{key} is {value!r} and no integer")
    return value


def _ints(values: Any) -> list[int]:
    return [_int({"entry": value}, "entry") for value in values]


def _pair(values: Any) -> tuple[int, int]:
    low, high = _ints(values)
    return low, high


def _sha256(entry: Mapping[str, Any], key: str, empty: bool = False) -> str:
    value = _str(entry, key)
    if not re.fullmatch(r"[0-9a-f]{64}", value) and not (empty and not value):
        raise ValueError(f"{key} is {value!r} and no SHA-256")
    return value
