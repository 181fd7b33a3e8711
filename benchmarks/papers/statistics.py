"""Means of paired differences, their confidence intervals, and Holm's correction for several of them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from karat24.refimpl.errors import UsageError

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Estimate:
    """The mean of ``number`` differences, the ends of its interval of 95 %, and ``p`` of a mean of 0."""

    mean: float
    low: float
    high: float
    p: float
    number: int

    @property
    def text(self) -> str:
        """``+1.20 [+0.31, +2.09]``."""
        return f"{self.mean:+.2f} [{self.low:+.2f}, {self.high:+.2f}]"


def paired(first: Sequence[float], second: Sequence[float]) -> Estimate:
    """``first - second``, pair by pair, by Student's t.

    Raises UsageError for fewer than two pairs or lists of two lengths.
    """
    if len(first) != len(second) or len(first) < 2:
        raise UsageError(f"{len(first)} and {len(second)} values do not make two pairs or more")
    differences = np.asarray(first, np.float64) - np.asarray(second, np.float64)
    mean, number = float(differences.mean()), len(differences)
    error = float(differences.std(ddof=1)) / math.sqrt(number)
    if error == 0:
        return Estimate(mean, mean, mean, 1.0 if mean == 0 else 0.0, number)
    reach = float(stats.t.ppf((1 + CONFIDENCE) / 2, number - 1)) * error
    p = 2 * float(stats.t.sf(abs(mean) / error, number - 1))
    return Estimate(mean, mean - reach, mean + reach, p, number)


def holm(values: Mapping[str, float], level: float = 1 - CONFIDENCE) -> dict[str, bool]:
    """Which hypotheses, by their ``p``, are rejected; ``level`` bounds the probability of any wrong
    rejection.

    Source: Holm, "A simple sequentially rejective multiple test procedure" (1979).
    """
    rejected = dict.fromkeys(values, False)
    for rank, (name, p) in enumerate(sorted(values.items(), key=lambda item: item[1])):
        if p > level / (len(values) - rank):
            break
        rejected[name] = True
    return rejected
