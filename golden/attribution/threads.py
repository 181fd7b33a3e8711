"""Another number of threads than the profile's lane runs with.

An optimised MEAN gives each thread a slice of the channels, and the blocks of channels that are rounded
otherwise than what is left behind them begin anew in each. Source: TFLite ``optimized_integer_ops::Mean``,
which gives a thread at least 8 channels and makes slices as even as can be.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from karat24.golden.attribution.hypothesis import Cut, Hypothesis
from karat24.golden.attribution.suspect import Suspect
from karat24.refimpl.graph import Array
from karat24.refimpl.ops import OPS

LEAST_CHANNELS = 8
"""Channels that a thread gets at least."""

MOST_THREADS = 64


def thread_count(suspect: Suspect) -> Iterator[Hypothesis | Cut]:
    """Two threads or more computed a layer whose rule is that of one."""
    view, rule = suspect.view, suspect.rule
    if view.op != "MEAN" or rule.tail is None or rule.block_axis != "channel":
        return
    alone = replace(rule, tail=None, block=0, block_axis="none")
    in_blocks, behind = (
        OPS["MEAN"].spec(view, suspect.inputs, replace(alone, method=method)).outputs[0]
        for method in (rule.method, rule.tail)
    )
    channels = view.output().shape[-1]
    for threads in range(2, min(channels // LEAST_CHANNELS, MOST_THREADS) + 1):
        whole = whole_blocks(channels, threads, rule.block)
        yield Hypothesis(f"{threads} threads in place of one", outputs=(np.where(whole, in_blocks, behind),))


def whole_blocks(channels: int, threads: int, block: int) -> Array:
    """Which channels lie in whole blocks of their thread's slice, bool ``[channel]``."""
    found, first = np.zeros(channels, np.bool_), 0
    for thread in range(threads):
        size = (channels - first) // (threads - thread)
        found[first : first + size // block * block] = True
        first += size
    return found
