"""TIMIT: read speech at 16 kHz with the times of its phonemes and words.

``TRAIN/DR1/FCJF0/SA1.WAV`` lies beside ``SA1.PHN`` and ``SA1.WRD``, in capitals or not. The sound files have
NIST's SPHERE header, despite their name; copies converted to RIFF (``SA1.WAV.wav``) are read, too.

Source of the layout: the corpus' own readme (LDC93S1); NIST SPHERE's file_formats document.
"""

from __future__ import annotations

import wave
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from karat24.refimpl.errors import UsageError
from training.data_sets.files import missing, read_bytes, read_text

SOURCE = "https://catalog.ldc.upenn.edu/LDC93S1 (a licence is required)"
RATE = 16_000

Mark = tuple[int, int, str]
"""First sample, the sample after the last, and the text between them."""


@dataclass(frozen=True)
class Utterance:
    """One sentence: int16 ``samples`` at 16 kHz, and its phonemes and words in samples."""

    dialect: str
    speaker: str
    sentence: str
    samples: NDArray[np.int16]
    phonemes: tuple[Mark, ...]
    words: tuple[Mark, ...]


def read_timit(folder: Path, part: Literal["TRAIN", "TEST"]) -> list[Utterance]:
    """Every sentence of a part, in order of dialect, speaker and sentence. ``folder`` holds ``TRAIN`` and
    ``TEST``, or the corpus' ``TIMIT``. Raises UsageError for a missing corpus and for damaged files."""
    roots = sorted(path for path in folder.rglob("*") if path.is_dir() and path.name.upper() == part)
    if not roots:
        raise missing("TIMIT", folder, f"folder {part}", SOURCE)
    marked = sorted(path for path in roots[0].rglob("*") if path.suffix.upper() == ".PHN")
    if not marked:
        raise missing("TIMIT", roots[0], "*.PHN", SOURCE)
    return [_utterance(path) for path in marked]


def _utterance(path: Path) -> Utterance:
    beside = {other.name.upper(): other for other in path.parent.iterdir()}
    stem = path.stem.upper()
    sound = beside.get(f"{stem}.WAV") or beside.get(f"{stem}.WAV.WAV")
    if sound is None:
        raise UsageError(f"{path}: no {stem}.WAV beside it")
    words = beside.get(f"{stem}.WRD")
    samples = read_sound(sound)
    phonemes = read_marks(path, len(samples))
    said = read_marks(words, len(samples)) if words else ()
    dialect, speaker = path.parent.parent.name.upper(), path.parent.name.upper()
    return Utterance(dialect, speaker, stem, samples, phonemes, said)


def read_marks(path: Path, samples: int) -> tuple[Mark, ...]:
    """Marks from lines of ``first last text``. Raises UsageError for a line of another form or beyond the
    sound. The last mark of a few sentences of the corpus ends after the sound, and is shortened."""
    marks = []
    for line in read_text(path).splitlines():
        parts = line.split(maxsplit=2)
        if len(parts) != 3 or not (parts[0].isdecimal() and parts[1].isdecimal()):
            raise UsageError(f"{path}: not a line of first sample, last sample and text: {line!r}")
        first, last = int(parts[0]), min(int(parts[1]), samples)
        if not first < last:
            raise UsageError(f"{path}: {line!r} lies beyond the {samples} samples")
        marks.append((first, last, parts[2]))
    return tuple(marks)


def read_sound(path: Path) -> NDArray[np.int16]:
    """Samples of a file with a SPHERE or a RIFF header, one channel of 16 bits at 16 kHz.

    Raises UsageError for other files, such as compressed SPHERE files.
    """
    content = read_bytes(path)
    if content[:4] == b"RIFF":
        return _riff(path)
    if content[:8] != b"NIST_1A\n":
        raise UsageError(f"{path}: neither a NIST nor a RIFF header")
    size = content[8:16].strip()
    if not size.isdigit():
        raise UsageError(f"{path}: the NIST header does not say how long it is")
    fields = {}
    for line in content[16 : int(size)].decode("latin-1").splitlines():
        if line.strip() == "end_head":
            break
        name, _, value = line.strip().partition(" ")
        fields[name] = value.partition(" ")[2]
    found = {name: fields.get(name, usual) for name, usual in _SPHERE.items()}
    if found["sample_byte_format"] not in ("01", "10") or any(
        found[name] != usual for name, usual in _SPHERE.items() if name != "sample_byte_format"
    ):
        raise UsageError(f"{path}: {found}, where {_SPHERE} is supported (decompress with NIST's w_decode)")
    sound = content[int(size) :]
    count = fields.get("sample_count", "")
    if not count.isdecimal() or 2 * int(count) != len(sound):
        raise UsageError(f"{path}: {len(sound)} bytes of sound, and the header says {count or 'no'} samples")
    order = "<i2" if found["sample_byte_format"] == "01" else ">i2"
    return np.frombuffer(sound, order).astype(np.int16)


_SPHERE = {
    "channel_count": "1", "sample_n_bytes": "2", "sample_rate": str(RATE), "sample_coding": "pcm",
    "sample_byte_format": "01",
}  # fmt: skip
"""The supported value of each field; a file may leave some out."""


def _riff(path: Path) -> NDArray[np.int16]:
    try:
        with wave.open(str(path), "rb") as sound:
            form = sound.getnchannels(), sound.getsampwidth(), sound.getframerate()
            if form != (1, 2, RATE):
                raise UsageError(f"{path}: {form} channels, bytes and samples a second, not (1, 2, {RATE})")
            content = sound.readframes(sound.getnframes())
            if len(content) != 2 * sound.getnframes():
                raise UsageError(
                    f"{path}: {len(content)} bytes of sound, and the header says {sound.getnframes()} samples"
                )
            return np.frombuffer(content, "<i2").astype(np.int16)
    except (wave.Error, EOFError) as error:
        raise UsageError(f"{path}: {error}") from None
