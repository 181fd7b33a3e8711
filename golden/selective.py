"""Judging a selective network: its three parts layer by layer, and the branch taken for each image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from karat24.delegates.oracle import OracleDelegate
from karat24.delegates.protocol import Delegate
from karat24.delegates.selective import BRANCHES, Branch, SelectiveNetwork, SelectiveRun, run_selective
from karat24.golden.report import EXIT_CANNOT_COMPARE, EXIT_MATCH, EXIT_MISMATCH, Report
from karat24.golden.verify import verify
from karat24.refimpl.errors import FeedError
from karat24.refimpl.graph import Array


@dataclass(frozen=True)
class SelectiveReport:
    """The judgement of a selective network.

    ``parts``: the report of the selector over all images, and of each dedicated network over the images the
    oracle sends to it; None where there were none. ``expected`` and ``taken``: the branch of each image, the
    oracle's and the runtime's. ``differing``: numbers of images whose final output differs.
    """

    parts: Mapping[str, Report | None]
    expected: tuple[Branch, ...]
    taken: tuple[Branch, ...]
    differing: tuple[int, ...]

    @property
    def exit_code(self) -> int:
        """0 match, 1 mismatch, 3 cannot compare. A branch that no image took counts as not compared."""
        codes = {EXIT_CANNOT_COMPARE if part is None else part.exit_code() for part in self.parts.values()}
        if self.expected != self.taken or self.differing or EXIT_MISMATCH in codes:
            return EXIT_MISMATCH
        return EXIT_CANNOT_COMPARE if EXIT_CANNOT_COMPARE in codes or not codes else EXIT_MATCH

    def summary(self) -> str:
        """A line for each part, and one for the branches."""
        lines = [
            f"{name}: {'NOT COMPARED: no image took this branch' if part is None else part.summary()}"
            for name, part in self.parts.items()
        ]
        counts = ", ".join(f"{self.taken.count(branch)} {branch}" for branch in BRANCHES)
        wrong = sum(a != b for a, b in zip(self.expected, self.taken, strict=True))
        lines.append(f"branches taken: {counts}; {wrong} other than the oracle's")
        lines.append(f"final outputs that differ: {len(self.differing)} of {len(self.taken)}")
        return "\n".join(lines)


def verify_selective(
    network: SelectiveNetwork, delegate: Delegate, images: Sequence[Array], *, threads: int | None = None
) -> SelectiveReport:
    """Runs every image on the oracle, under the runtime's profile, and on the runtime, and judges all parts.

    ``images`` are arrays of the networks' input. Raises FeedError without images, and what
    :func:`karat24.golden.verify.verify` and :func:`run_selective` raise.
    """
    if not images:
        raise FeedError("a selective network is judged on images; give at least one")
    with OracleDelegate(delegate.profile) as oracle:
        ours = [run_selective(network, oracle, image, threads) for image in images]
    theirs = [run_selective(network, delegate, image, threads) for image in images]
    expected = tuple(run.branch for run in ours)
    groups = {"selector": list(images)} | {
        branch: [image for image, taken in zip(images, expected, strict=True) if taken == branch]
        for branch in BRANCHES
    }
    parts: dict[str, Report | None] = {
        name: verify(
            network.model(name), network.graphs[name], delegate, [[image] for image in group], threads=threads
        )
        if group
        else None
        for name, group in groups.items()
    }
    differing = tuple(n for n, pair in enumerate(zip(ours, theirs, strict=True)) if _differ(*pair))
    return SelectiveReport(parts, expected, tuple(run.branch for run in theirs), differing)


def _differ(ours: SelectiveRun, theirs: SelectiveRun) -> bool:
    return not np.array_equal(ours.output, theirs.output, equal_nan=True)
