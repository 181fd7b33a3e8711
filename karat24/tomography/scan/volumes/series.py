"""The order of numbered files, and what is wrong with it.

Volumes were lost to files sorted as text (10 before 9), to an unnoticed gap, and to the second set
of files that a repeated reconstruction leaves beside the first. All three are said before any work.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

from karat24.refimpl.errors import FeedError


def in_order(folder: str, names: Sequence[str], allow_gaps: bool) -> list[str]:
    """File names in the order of the one number in which they differ.

    Raises FeedError for names of more than one pattern, for two files with one number, and, unless
    ``allow_gaps``, for numbers that are missing.
    """
    patterns = Counter(_pattern(name) for name in names)
    if len(patterns) > 1:
        (first, many), (second, fewer) = patterns.most_common(2)
        raise FeedError(
            f"{folder}: holds files of {len(patterns)} series, {many} named {first} and {fewer} named "
            f"{second} (a repeated reconstruction may have left a second set); move all but one away"
        )
    numbers = {name: _numbers(name) for name in names}
    ordered = sorted(names, key=lambda name: (numbers[name], name))
    for before, after in pairwise(ordered):
        if numbers[before] == numbers[after]:
            raise FeedError(f"{folder}: {before} and {after} have the same number; move one of them away")
    _refuse_gaps(folder, [numbers[name] for name in ordered], allow_gaps)
    return ordered


def _refuse_gaps(folder: str, numbers: list[tuple[int, ...]], allow_gaps: bool) -> None:
    varying = [place for place, values in enumerate(zip(*numbers, strict=True)) if len(set(values)) > 1]
    if len(varying) > 1:
        raise FeedError(
            f"{folder}: the files' names differ in {len(varying)} numbers, so their order is not certain; "
            "leave files of one scan in the folder"
        )
    if not varying or allow_gaps:
        return
    found = [values[varying[0]] for values in numbers]
    gaps = [(a + 1, b - 1) for a, b in pairwise(found) if b > a + 1]
    if gaps:
        listed = ", ".join(f"{a}" if a == b else f"{a} to {b}" for a, b in gaps[:5])
        more = f" and {len(gaps) - 5} more gaps" if len(gaps) > 5 else ""
        missing = sum(b - a + 1 for a, b in gaps)
        raise FeedError(
            f"{folder}: {missing} of the slices {found[0]} to {found[-1]} are missing: {listed}{more}. A "
            "slice is restored together with its neighbours: find the files, or say --allow-gaps"
        )


def _pattern(name: str) -> str:
    return re.sub(r"\d+", "#", name)


def _numbers(name: str) -> tuple[int, ...]:
    # A name may hold any number of digits; int() refuses more than 4300 of them, a file system more than 255.
    return tuple(int(digits) for digits in re.findall(r"\d+", name))
