"""The pages that each experiment writes from its records."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path

from benchmarks.papers import bits_report, powers_report, selective_report, slices_report
from benchmarks.papers.tasks import Record

Writer = Callable[[Mapping[str, Record], argparse.Namespace, Path], list[Path]]

WRITERS: Mapping[str, Writer] = {
    "bits": bits_report.write, "powers": powers_report.write, "selective": selective_report.write,
    "slices": slices_report.write,
}  # fmt: skip
"""By experiment: a function of records, options and an output folder that returns the written files."""
