"""A contest: every contestant opens the model, outputs are compared, then all run in turns.

Each contestant has a process of its own, so that its memory is its own, its threads do not
disturb the others, and its crash is a line in the table. One turn is one run of a large model and a
small batch of a small one; the order rotates, so that no contestant always follows the one neighbour.
"""

from __future__ import annotations

import hashlib
import os
import platform
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from karat24.contest.contestants import Contestant, Subject
from karat24.contest.figures import (
    Contest,
    Entry,
    Parity,
    Quartiles,
    layer_times,
    ratios,
)
from karat24.contest.process import ContestantProcess, Start, SubjectFiles
from karat24.export import graph_under
from karat24.golden.provenance import machine
from karat24.refimpl.cost import count
from karat24.refimpl.errors import DelegateError
from karat24.refimpl.graph import Array
from karat24.refimpl.kernels.jit.compile_cache import VARIABLE as CACHE
from karat24.refimpl.profiles import profile_named

TURN = 0.1
"""Approximate seconds of a turn: a faster model runs several times in a row."""

MOST_PER_TURN = 50

SETTLE = 0.02
"""Seconds between turns: a runtime's idle threads spin for a moment and would slow the next contestant."""

FEWEST_ROUNDS = 3

Say = Callable[[str], None]


@dataclass(frozen=True)
class Rules:
    """How a contest is held.

    Each contestant takes ``rounds`` turns, fewer (at least three) once ``seconds`` are over. ``time_limit``:
    seconds one request may take; a slower contestant is stopped. ``cold``: measure the start with an empty
    cache. ``time_anyway``: time even where outputs differ. ``layers``: runs to time layers in, 0 for none.
    """

    rounds: int = 15
    seconds: float = 120.0
    time_limit: float = 600.0
    cold: bool = True
    time_anyway: bool = False
    layers: int = 0


@dataclass
class _State:
    """What the contest has found about a contestant so far."""

    contestant: Contestant
    process: ContestantProcess | None = None
    cold: Start | None = None
    warm: Start | None = None
    cache: Mapping[str, str] = field(default_factory=dict)
    outputs: tuple[Array, ...] = ()
    seconds: list[float] = field(default_factory=list)
    memory: int = 0
    layers: Sequence[Mapping[str, Any]] | None = None
    why_not: str = ""
    isa: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)
    stopped: str = ""

    @property
    def runs(self) -> bool:
        return self.process is not None and not self.stopped

    def attempt(self, what: Callable[[ContestantProcess], None]) -> None:
        """Calls ``what`` with the process; a contestant that fails is stopped, with its reason."""
        assert self.process is not None
        try:
            what(self.process)
        except DelegateError as error:
            self.stopped = str(error)
            self.process.close()


def run_contest(
    model: str,
    subject: Subject,
    contestants: Sequence[Contestant],
    rules: Rules = Rules(),
    say: Say = lambda _: None,
) -> Contest:
    """Holds the contest over ``subject``, called ``model``; ``say`` is told what happens now.

    A contestant that fails or takes too long is stopped and the others go on.
    """
    states = [_State(contestant) for contestant in contestants]
    peaks: dict[str, float] = {}
    with tempfile.TemporaryDirectory(prefix="karat24-bench-") as folder, ExitStack() as processes:
        files = SubjectFiles(Path(folder))
        for number, state in enumerate(states):
            _open(state, files, Path(folder) / f"cache{number}", rules, say)
            if state.process is not None:
                processes.callback(state.process.close)
        say("comparing outputs")
        parity = _compare(states)
        if rules.time_anyway or all(found.verdict != "differs" for found in parity):
            for state in states:
                if state.runs and state.contestant.kind == "oracle" and state.isa not in peaks:
                    say(f"peak of {state.isa}")
                    state.attempt(lambda process, isa=state.isa: peaks.update({isa: process.peak()}))  # type: ignore[misc]
            _take_turns(states, rules, say)
        for state in states:
            if state.runs:
                state.attempt(lambda process, state=state: _note_memory(state, process))  # type: ignore[misc]
            if state.runs and rules.layers:
                say(f"layers of {state.contestant.name}")
                state.attempt(lambda process, state=state: _note_layers(state, process, rules))  # type: ignore[misc]
    cost = count(subject.graph)
    entries = [_entry(state, cost.macs, peaks) for state in states]
    return Contest(
        model,
        hashlib.sha256(subject.content).hexdigest(),
        cost.macs,
        cost.parameters,
        max(contestant.threads for contestant in contestants),
        parity,
        entries,
        ratios(entries),
        {isa: peak / 1e9 for isa, peak in peaks.items()},
        {**machine(), "cores": str(os.cpu_count()), "kernel": platform.release()},
        {"python": platform.python_version()},
        datetime.now(UTC).isoformat(timespec="seconds"),
    )


def _open(state: _State, files: SubjectFiles, cache: Path, rules: Rules, say: Say) -> None:
    """Fills the oracle's cache of compiled kernels in one process, then starts the one to be timed."""
    who = state.contestant
    if who.kind == "oracle":
        say(f"{who.name}: {'cold start' if rules.cold else 'compiling'}")
        if rules.cold:
            state.cache = {CACHE: str(cache)}
        with ContestantProcess(who, files, rules.time_limit) as process:
            try:
                start = process.open(state.cache)
            except DelegateError as error:
                state.stopped = str(error)
                return
        state.cold = start if rules.cold else None
    say(f"{who.name}: warm start")
    state.process = ContestantProcess(who, files, rules.time_limit)

    def start_up(process: ContestantProcess) -> None:
        state.warm = process.open(state.cache)
        state.isa, state.versions = process.isa, process.versions
        state.outputs = process.outputs()
        state.memory = process.memory()

    state.attempt(start_up)


def _compare(states: Sequence[_State]) -> tuple[Parity, ...]:
    """Compares every runtime with the oracles of its subject and profile, and these with each other."""
    found: list[Parity] = []
    running = [state for state in states if state.runs]
    for other in running:
        who = other.contestant
        if not who.profile:
            found.append(
                Parity("", who.name, "", 0, 0, "not_compared", "no profile describes its arithmetic")
            )
            continue
        judges = [
            state
            for state in running
            if state.contestant.kind == "oracle"
            and state.contestant.subject is who.subject
            and state.contestant.profile == who.profile
        ]
        if who.kind == "oracle":
            judges = [] if judges[0] is other else judges[:1]
        elif not judges:
            found.append(Parity("", who.name, who.profile, 0, 0, "not_compared", "no oracle ran beside it"))
        found += [_parity(judge, other) for judge in judges]
    return tuple(found)


def _parity(judge: _State, other: _State) -> Parity:
    """Compares outputs bit by bit: two NaNs of equal bits are equal, 0.0 and -0.0 are not."""
    names = judge.contestant.name, other.contestant.name, other.contestant.profile
    shapes = [[(a.shape, a.dtype) for a in state.outputs] for state in (judge, other)]
    values = sum(array.size for array in judge.outputs)
    if shapes[0] != shapes[1]:
        return Parity(*names, values, values, "differs", f"outputs {shapes[0]} against {shapes[1]}")
    differing = sum(
        int((_bits(a) != _bits(b)).any(axis=-1).sum())
        for a, b in zip(judge.outputs, other.outputs, strict=True)
    )
    return Parity(*names, values, differing, "differs" if differing else "equal")


def _bits(array: Array) -> Array:
    """The array's bytes, uint8 ``[elements, bytes of one]``."""
    return np.ascontiguousarray(array).view(np.uint8).reshape(array.size, array.itemsize)


def _take_turns(states: Sequence[_State], rules: Rules, say: Say) -> None:
    """Lets the contestants run in turn; each round starts with another one."""
    begun = time.perf_counter()
    counts: dict[int, int] = {}
    for number in range(rules.rounds):
        if number >= FEWEST_ROUNDS and time.perf_counter() - begun > rules.seconds:
            break
        say(f"round {number + 1} of {rules.rounds}")
        for position in range(len(states)):
            index = (number + position) % len(states)
            state = states[index]
            if not state.runs:
                continue
            time.sleep(SETTLE)

            def turn(process: ContestantProcess, index: int = index, state: _State = state) -> None:
                if index not in counts:
                    counts[index] = runs_per_turn(*process.time(0, 1))
                    if counts[index] > 1:  # not judged by the first run, which may have woken the machine
                        counts[index] = runs_per_turn(min(process.time(0, 3)))
                state.seconds += process.time(_untimed(counts[index]), counts[index])

            state.attempt(turn)


def _untimed(runs: int) -> int:
    """The number of untimed runs that wake threads and caches before a turn's timed ones."""
    return min(runs - 1, max(runs // 5, 1))


def runs_per_turn(seconds: float) -> int:
    """The number of runs in a turn of a model that takes ``seconds``."""
    return max(1, min(MOST_PER_TURN, int(TURN / max(seconds, 1e-9))))


def _note_memory(state: _State, process: ContestantProcess) -> None:
    state.memory = process.memory()


def _note_layers(state: _State, process: ContestantProcess, rules: Rules) -> None:
    state.layers, state.why_not = process.layers(rules.layers)


def _entry(state: _State, macs: int, peaks: Mapping[str, float]) -> Entry:
    who = state.contestant
    quartiles = Quartiles.of(state.seconds) if state.seconds and not state.stopped else None
    rate = macs / quartiles.median if quartiles else 0.0
    peak = peaks.get(state.isa) if who.kind == "oracle" else max(peaks.values(), default=None)
    layers = None if state.layers is None else layer_times(state.layers, _macs_by_layer(who))
    return Entry(
        name=who.name,
        kind=who.kind,
        profile=who.profile,
        format=who.subject.format,
        isa=state.isa,
        threads=who.threads,
        traced=who.traced,
        versions=dict(state.versions),
        seconds=tuple(state.seconds),
        quartiles=quartiles,
        gmac_per_s=rate / 1e9,
        peak_fraction=rate / peak if peak and rate else None,
        peak_memory_bytes=state.memory,
        cold_start=None if state.cold is None else asdict(state.cold),
        warm_start=None if state.warm is None else asdict(state.warm),
        layers=layers,
        layers_why_not=state.why_not,
        stopped=state.stopped,
    )


def _macs_by_layer(who: Contestant) -> dict[int, int]:
    if who.kind != "oracle":
        return {}
    graph = graph_under(who.subject.graph, profile_named(who.profile))
    return {layer.layer: layer.macs for layer in count(graph).layers}
