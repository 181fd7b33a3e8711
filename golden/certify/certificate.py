"""What is known after a layer was certified, and how much of it was reached."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

How = Literal["staircase", "table", "pairs", ""]


@dataclass(frozen=True)
class Certificate:
    """How far one layer's arithmetic was met on a runtime.

    ``wanted`` cases decide everything: both sides of every threshold of every channel (``staircase``),
    all values (``table``) or all pairs of values (``pairs``), once for each rounding method of the layer.
    ``met`` of them were fed, in ``models`` runs; ``wrong`` gave another output. ``missing`` lists what was
    not met, ``reason`` says why nothing was tried. For a staircase it is assumed that the runtime's output
    never decreases when its accumulator increases.
    """

    how: How
    wanted: int = 0
    met: int = 0
    models: int = 0
    wrong: int = 0
    missing: tuple[str, ...] = ()
    reason: str = ""

    @property
    def complete(self) -> bool:
        """Every case was met, and there was one."""
        return 0 < self.wanted == self.met

    @property
    def certified(self) -> bool:
        """Every case was met and gave the output it must."""
        return self.complete and self.wrong == 0

    def __str__(self) -> str:
        if self.reason:
            return f"not certified: {self.reason}"
        cases = {"staircase": "accumulators beside thresholds", "table": "values", "pairs": "pairs"}
        said = f"{self.met} of {self.wanted} {cases.get(self.how, 'cases')} met"
        if self.missing:
            said += f"; not met: {'; '.join(self.missing)}"
        return said + (f"; {self.wrong} outputs wrong" if self.wrong else "")
