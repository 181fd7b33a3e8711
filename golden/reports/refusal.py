"""A golden that no report is of, because it could not be compared: every form of report names it, too."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from karat24.golden.report import SCHEMA


@dataclass(frozen=True)
class Refusal:
    """The golden (or the model without one) called ``name``, and the error it gave."""

    name: str
    reason: str
    exit_code: int

    def to_dict(self) -> dict[str, Any]:
        """What stands in a list of reports in JSON in place of one."""
        return {
            "schema": SCHEMA,
            "golden": self.name,
            "verdict": "not_compared",
            "exit_code": self.exit_code,
            "error": self.reason,
        }
