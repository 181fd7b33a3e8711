"""The child process of a contestant: it opens the model, runs it in turn, and answers questions."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

import karat24
from karat24.contest.contestants import Contestant, Subject
from karat24.delegates.child import Child, take_arrays
from karat24.delegates.workers import STOPWATCH
from karat24.refimpl.graph import Array


@dataclass(frozen=True)
class Start:
    """Seconds from nothing to the first result, and their parts.

    ``to_first_result_s`` is the wall clock from before the process existed; the others are its own:
    ``import_s`` libraries, ``open_s`` reading and preparing the model, ``first_run_s`` the first run.
    """

    to_first_result_s: float
    import_s: float
    open_s: float
    first_run_s: float


class SubjectFiles:
    """Model files and feeds of the subjects, in a folder that lasts as long as the contest."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._placed: list[tuple[Subject, Path, list[str]]] = []

    def place(self, subject: Subject) -> tuple[Path, list[str]]:
        """The model's file and those of its feeds."""
        for known, model, feeds in self._placed:
            if known is subject:
                return model, feeds
        number = len(self._placed)
        model = self.folder / f"{number}.{subject.format}"
        model.write_bytes(subject.content)
        feeds = []
        for position, values in enumerate(subject.feeds):
            feeds.append(str(self.folder / f"{number}.{position}.npy"))
            np.save(feeds[-1], values)
        self._placed.append((subject, model, feeds))
        return model, feeds


class ContestantProcess:
    """One contestant's process. Raises DelegateCrashed, DelegateTimeout and DelegateError throughout."""

    def __init__(self, contestant: Contestant, files: SubjectFiles, time_limit: float) -> None:
        self.contestant = contestant
        self._files = files
        self._child = Child(
            contestant.name, contestant.python, time_limit, STOPWATCH, _with_the_oracle(contestant.kind)
        )
        self.isa, self.versions = "", dict[str, str]()

    def open(self, environment: Mapping[str, str]) -> Start:
        """Starts the process, opens the model and runs it once."""
        who = self.contestant
        model, feeds = self._files.place(who.subject)
        start = time.perf_counter()
        answer = self._ask(
            "open", kind=who.kind, lane=dict(who.lane), model=str(model), feeds=feeds, threads=who.threads,
            environment={**who.environment, **environment},
        )  # fmt: skip
        took = time.perf_counter() - start
        self.isa, self.versions = answer["isa"], {**answer["versions"], "python": answer["python"]}
        return Start(took, *(answer[name] for name in ("import_s", "open_s", "first_run_s")))

    def time(self, untimed: int, count: int) -> list[float]:
        """Seconds of each of ``count`` runs, after ``untimed`` ones that are not counted."""
        return list(self._ask("time", untimed=untimed, count=count)["seconds"])

    def outputs(self) -> tuple[Array, ...]:
        """The last run's outputs, in graph order."""
        found = take_arrays(self._ask("outputs")["tensors"])
        return tuple(found[position] for position in sorted(found))

    def layers(self, count: int) -> tuple[Sequence[Mapping[str, Any]], str]:
        """Median seconds of each layer or node, or nothing and the reason."""
        answer = self._ask("layers", count=count)
        return answer["layers"], answer.get("why_not", "")

    def peak(self) -> float:
        """Multiplication-additions per second of the oracle's micro-kernel (``microkernel.peak``)."""
        return float(self._ask("peak", threads=self.contestant.threads)["macs_per_s"])

    def memory(self) -> int:
        """The most bytes resident so far; 0 where the system does not tell."""
        return int(self._ask("memory")["bytes"])

    def _ask(self, what: str, **request: Any) -> dict[str, Any]:
        return self._child.ask(what, "the model", **request)

    def close(self) -> None:
        """Ends the process."""
        self._child.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def _with_the_oracle(kind: str) -> Mapping[str, str]:
    """The variables with which the oracle's process imports this very copy of the project."""
    if kind != "oracle":
        return {}
    here = str(Path(karat24.__file__).resolve().parents[1])
    before = os.environ.get("PYTHONPATH", "")
    return {"PYTHONPATH": os.pathsep.join(filter(None, (here, before)))}
