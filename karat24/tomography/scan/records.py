"""What is known of each finished slice, one small file each, written after the slice itself."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from karat24.tomography.scan.files import file_digest, write_json


@dataclass(frozen=True)
class Record:
    """A finished slice.

    ``index`` is its number in the input. ``file`` is its SHA-256 on disk and ``bytes`` its length; ``pixels``
    is the SHA-256 of its values, little-endian, which is equal in every format. ``clipped`` counts pixels
    beyond the network's range. ``difference`` and ``deviation`` are mean and standard deviation of restored
    minus measured, in the volume's unit. ``judged`` says that enough views were there to
    tell noise from structure, ``structured`` that what was taken away is more than noise, and
    ``removed`` what it is (see :mod:`karat24.tomography.honesty.residual`). ``score`` is how much noisier
    than clean the slice looked to the selector, None where none was asked; ``skipped`` says that the slice
    was found clean and is stored as it was measured; ``constant`` that it holds one value only.
    """

    index: int
    name: str
    fingerprint: str
    file: str
    bytes: int
    pixels: str
    clipped: int
    difference: float
    deviation: float
    judged: bool
    structured: bool
    removed: str
    seconds: float
    host: str
    score: float | None = None
    skipped: bool = False
    constant: bool = False

    def write(self, state: Path) -> None:
        """Writes the record, whole. The slice must be on the disk before."""
        write_json(record_path(state, self.index), asdict(self))


def record_path(state: Path, index: int) -> Path:
    """The file of a slice's record."""
    return state / "done" / f"{index:06}.json"


def read_record(state: Path, index: int) -> Record | None:
    """The record of a slice; None where there is none, or none that can be read."""
    try:
        found = json.loads(record_path(state, index).read_bytes())
        return Record(**found)
    except (OSError, ValueError, TypeError, RecursionError):
        return None


def finished(record: Record | None, fingerprint: str, path: Path, verify: bool = False) -> bool:
    """Whether a slice need not be restored again: recorded under these terms, and there in its length.

    ``verify`` also reads the file and compares its SHA-256.
    """
    if record is None or record.fingerprint != fingerprint or not path.is_file():
        return False
    return path.stat().st_size == record.bytes and (not verify or file_digest(path) == record.file)


def digest_of_all(records: Mapping[int, Record]) -> str:
    """One SHA-256 for the values of all slices, in their order."""
    hashed = hashlib.sha256()
    for index in sorted(records):
        hashed.update(bytes.fromhex(records[index].pixels))
    return hashed.hexdigest()
