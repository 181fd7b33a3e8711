"""A report on a terminal: in colour where colours are wanted, and no wider than the window."""

from __future__ import annotations

import re
from collections.abc import Mapping

from karat24.golden.report import Report, Verdict

_RESET = "\x1b[0m"
COLOURS: Mapping[Verdict, str] = {
    "certified": "\x1b[32m",
    "bit_exact": "\x1b[32m",
    "within_bound": "\x1b[32m",
    "explained": "\x1b[33m",
    "mismatch": "\x1b[31m",
    "not_compared": "\x1b[36m",
}
_WORDS = re.compile(rf"\b({'|'.join(COLOURS)})\b", re.IGNORECASE)
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
LEAST_WIDTH = 40


def printable(text: str) -> str:
    """The text without control characters but line feeds and tabs: names of a model file may hold some."""
    return _CONTROL.sub("?", text)


def wants_colour(environment: Mapping[str, str], is_terminal: bool) -> bool:
    """Whether to colour: NO_COLOR forbids it, FORCE_COLOR asks for it, else a terminal decides.

    Source: https://no-color.org, where a variable counts when it is not empty.
    """
    if environment.get("NO_COLOR"):
        return False
    if environment.get("FORCE_COLOR"):
        return True
    return is_terminal and environment.get("TERM") != "dumb"


def terminal_text(report: Report, all_layers: bool, colour: bool, width: int | None) -> str:
    """``Report.table`` with its verdicts coloured and lines cut, or reasons wrapped, at ``width`` columns.

    ``width`` None, as where the text goes into a file, cuts nothing. Control characters, which a name in a
    model file may hold, are replaced.
    """
    text = printable(report.table(all_layers))
    lines = [piece for line in text.splitlines() for piece in _fitted(line, width)]
    if colour:
        lines = [
            _WORDS.sub(lambda word: f"{COLOURS[_verdict(word[0])]}{word[0]}{_RESET}", line) for line in lines
        ]
    return "\n".join(lines)


def _verdict(word: str) -> Verdict:
    return next(verdict for verdict in COLOURS if verdict == word.lower())


def _fitted(line: str, width: int | None) -> list[str]:
    """A line of the table cut, a sentence broken between words."""
    if width is None or len(line) <= width:
        return [line]
    width = max(width, LEAST_WIDTH)
    if re.match(r"\s*(layer \d+|output .*|note|[A-Z_]+): ", line):
        return _wrapped(line, width)
    return [line if len(line) <= width else line[: width - 1] + "…"]


def _wrapped(line: str, width: int) -> list[str]:
    """textwrap keeps no leading spaces of the lines that follow."""
    import textwrap

    return textwrap.wrap(line, width, subsequent_indent="    ", break_long_words=True)
