"""Arrays beside a golden: recording them again changes nothing; damaged or lost ones are named and mended."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from karat24.golden.goldens.files import require_arrays
from karat24.golden_places import state_of
from karat24.goldens import accept_golden, check_golden, propose_again, record_golden
from karat24.refimpl.errors import DamagedGolden, UsageError
from tests.support.small_golden import SmallGolden, small_golden


@pytest.fixture
def small(tmp_path: Path) -> SmallGolden:
    return small_golden(tmp_path, keep="all")


def arrays(small: SmallGolden) -> Path:
    return small.path.with_name(small.golden.arrays)


def without_an_entry(path: Path) -> None:
    """A whole archive that lacks one of the golden's arrays."""
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    entries.popitem()
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in entries.items():
            archive.writestr(name, content)


def flipped(path: Path) -> None:
    """In the first entry's compressed values, behind its header of 30 bytes and its short name."""
    content = bytearray(path.read_bytes())
    content[60] ^= 1
    path.write_bytes(content)


SPOILS: dict[str, Callable[[Path], object]] = {
    "lost": Path.unlink,
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-30]),
    "empty": lambda path: path.write_bytes(b""),
    "a bit": flipped,
    "an entry less": without_an_entry,
}


def test_recording_again_changes_nothing(small: SmallGolden) -> None:
    assert propose_again(small.path).changes == []
    assert record_golden(small.model, keep="all") == small.golden
    assert check_golden(small.path).passed
    require_arrays(small.path, small.golden)


@pytest.mark.parametrize("keep", ["none", "outputs", "all"])
def test_accepting_keeps_as_much_as_before(tmp_path: Path, keep: str) -> None:
    small = small_golden(tmp_path, keep=keep)
    assert bool(small.golden.arrays) == (keep != "none")
    assert propose_again(small.path).changes == []
    small.model.write_bytes(small.model.read_bytes() + b"\0" * 4)
    assert [line.split(":")[0] for line in accept_golden(small.path)] == ["model"]


def test_other_values_have_another_name(small: SmallGolden, tmp_path: Path) -> None:
    """Keeping less changes the arrays, and says so."""
    with pytest.raises(UsageError, match="would change 1 thing in it"):
        record_golden(small.model, keep="outputs")
    assert len(list(tmp_path.glob("*.npz"))) == 1


@pytest.mark.parametrize("spoil", SPOILS.values(), ids=SPOILS)
def test_damage_is_named_and_accepting_mends_it(small: SmallGolden, spoil: Callable[[Path], object]) -> None:
    """Although every hash in the golden is still that of the model."""
    before = arrays(small).read_bytes()
    spoil(arrays(small))
    with pytest.raises(DamagedGolden, match=small.golden.arrays):
        check_golden(small.path)
    assert state_of(small.path)[0] == "damaged"
    with pytest.raises(UsageError, match="accept"):
        record_golden(small.model, keep="all")
    (change,) = accept_golden(small.path)
    assert small.golden.arrays in change
    assert arrays(small).read_bytes() == before
    assert check_golden(small.path).passed
