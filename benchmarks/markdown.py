"""Markdown tables, and marked places of a document that programs fill.

A document marks a place by two lines; everything between them is replaced::

    <!-- speed: models -->
    <!-- end of speed: models -->
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from karat24.refimpl.errors import UsageError


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; the first column is text, the others figures."""
    rule = ["---", *["---:"] * (len(heads) - 1)]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in (heads, rule, *rows))


def marked(name: str, text: str) -> str:
    """The text between the two lines that mark the place called ``name``."""
    return f"{_begin(name)}\n{text.strip()}\n{_end(name)}"


def fill(document: Path, texts: Mapping[str, str]) -> list[str]:
    """Puts texts, by name, into the places that a document marks for them; returns the names of these places.

    Raises UsageError and leaves the document as it is if it cannot be read, marks no place for any of the
    texts, or begins a place without ending it.
    """
    try:
        content = document.read_text(encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{document}: {error.strerror}") from None
    filled = [name for name in texts if _begin(name) in content]
    for name in filled:
        place = re.compile(re.escape(_begin(name)) + r"\n(.*?\n)??" + re.escape(_end(name)), re.DOTALL)
        new = marked(name, texts[name])
        content, count = place.subn(lambda _, new=new: new, content)  # type: ignore[misc]
        if not count:
            raise UsageError(f"{document}: the line {_begin(name)} is not followed by {_end(name)}")
    if not filled:
        raise UsageError(
            f"{document}: marks no place for {', '.join(texts)}; put the lines {_begin('NAME')} and "
            f"{_end('NAME')} where a text belongs"
        )
    document.write_text(content, encoding="utf-8")
    return filled


def _begin(name: str) -> str:
    return f"<!-- {name} -->"


def _end(name: str) -> str:
    return f"<!-- end of {name} -->"
