"""Marked places of a document: filled as often as one likes, and nothing else touched."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.markdown import fill, marked
from karat24.refimpl.errors import UsageError


@pytest.fixture
def document(tmp_path: Path) -> Path:
    return tmp_path / "document.md"


@pytest.mark.parametrize("old", ["", "old\n\nolder\n"], ids=["empty", "filled"])
def test_a_place_is_filled_and_what_surrounds_it_stays(old: str, document: Path) -> None:
    """A backslash in the new text is no reference to a group; filling twice is filling once."""
    document.write_text(f"before\n<!-- speed -->\n{old}<!-- end of speed -->\nafter \\1\n")
    texts = {"speed": "| new \\1 |\n", "absent": "nothing"}
    for _ in range(2):
        assert fill(document, texts) == ["speed"]
        assert document.read_text() == (
            "before\n<!-- speed -->\n| new \\1 |\n<!-- end of speed -->\nafter \\1\n"
        )


def test_two_places_are_filled_each_with_its_own_text(document: Path) -> None:
    document.write_text(f"{marked('b', 'old')}\nbetween\n{marked('a', 'old')}\n")
    assert fill(document, {"a": "first", "b": "second"}) == ["a", "b"]
    assert document.read_text() == f"{marked('b', 'second')}\nbetween\n{marked('a', 'first')}\n"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("nothing here\n", "marks no place for speed"),
        ("<!-- speed -->\nnever ended\n", "is not followed by"),
        ("<!-- end of speed -->\n<!-- speed -->\n", "is not followed by"),
        ("<!-- a -->\n<!-- end of a -->\n<!-- speed -->\n", "is not followed by"),
    ],
    ids=["no place", "no end", "end before begin", "another place is sound"],
)
def test_a_document_that_cannot_be_filled_is_left_alone(content: str, message: str, document: Path) -> None:
    document.write_text(content)
    with pytest.raises(UsageError, match=message):
        fill(document, {"a": "x", "speed": "x"} if "a -->" in content else {"speed": "x"})
    assert document.read_text() == content


def test_a_document_that_is_not_there(document: Path) -> None:
    with pytest.raises(UsageError, match=r"document\.md: No such file"):
        fill(document, {"speed": "x"})
