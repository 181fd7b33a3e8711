"""Single figures out of many contests: costs of a trace and of size, memory, starts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeAlias

from benchmarks.models import FLAGSHIPS
from karat24.contest.table import seconds_text
from karat24.refimpl.profiles import CANONICAL

Found: TypeAlias = Mapping[str, Any]

LARGE, HUGE = 1024, 2560


class Table:
    """Kept contests by model and group."""

    def __init__(self, content: Found) -> None:
        self.contests: Mapping[str, Found] = content["contests"]
        self.pairs = [tuple(key.rsplit(" ", 2)[:2]) for key in self.contests]
        self.models = list(dict.fromkeys(model for model, _ in self.pairs))

    def get(self, model: str, group: str) -> Found | None:
        """The contest of a model in a group, if it was held."""
        wanted = (model, group)
        found = [c for pair, c in zip(self.pairs, self.contests.values(), strict=True) if pair == wanted]
        return found[-1] if found else None

    def of(self, model: str) -> Iterator[Found]:
        """Every contest of a model."""
        return (c for pair, c in zip(self.pairs, self.contests.values(), strict=True) if pair[0] == model)


def entry(contest: Found, name: str) -> Found | None:
    """The contestant of that name, if it took part."""
    return next((found for found in contest["entries"] if found["name"] == name), None)


def canonical(contest: Found, isa: str | None = None) -> Found | None:
    """The oracle under the canonical profile, on its own choice of instruction set or a forced one."""
    for found in contest["entries"]:
        named = found["name"] in (f"oracle {CANONICAL}", f"oracle {CANONICAL} {isa}")
        if named and (isa is None or found["isa"] == isa):
            return dict(found)
    return None


def timed(found: Found) -> bool:
    """Whether the contestant was timed."""
    return found["quartiles"] is not None


def ratio(mine: Found, theirs: Found) -> float:
    """The runtime's median over the oracle's."""
    return float(theirs["quartiles"]["median"] / mine["quartiles"]["median"])


def trace_cost(table: Table) -> str:
    """The time of a run that keeps every tensor over that of one that keeps none, in one contest."""
    parts = []
    for family in FLAGSHIPS:
        contest = table.get(f"{family}-{LARGE}", "xnnpack")
        plain = contest and canonical(contest)
        traced = contest and entry(contest, f"oracle {CANONICAL} traced")
        if plain and traced and timed(plain) and timed(traced):
            parts.append(f"{family} {ratio(plain, traced):.2f}×")
    return ", ".join(parts)


def cost_of_size(table: Table) -> str:
    """The oracle's time at 2560×2560 over that at 1024×1024; 6.25 times as many pixels."""
    parts = []
    for family in FLAGSHIPS:
        contests = [table.get(f"{family}-{size}", "xnnpack") for size in (LARGE, HUGE)]
        found = [canonical(contest) for contest in contests if contest]
        if len(found) == len(contests) and all(one and timed(one) for one in found):
            small, large = (one["quartiles"]["median"] for one in found if one)
            parts.append(f"{family} {large / small:.2f}×")
    return ", ".join(parts)


def memory(table: Table) -> str:
    """The oracle's and XNNPACK's resident high-water marks at 2560×2560."""
    parts = []
    for family in FLAGSHIPS:
        contest = table.get(f"{family}-{HUGE}", "xnnpack")
        if contest is None:
            continue
        told = [
            f"{name} {found['peak_memory_bytes'] / 1e9:.2f} GB"
            for name, found in (("oracle", canonical(contest)), ("XNNPACK", entry(contest, "litert-xnnpack")))
            if found and found["peak_memory_bytes"]
        ]
        parts.append(f"{family}: {', '.join(told)}")
    return "; ".join(parts)


def starts(table: Table) -> str:
    """Seconds from a new process to the first result, with an empty cache of kernels and with a full one."""
    parts = []
    for model in table.models:
        contest = table.get(model, "cold")
        found = contest and canonical(contest)
        if found and found["cold_start"] and found["warm_start"]:
            cold, warm = (found[f"{kind}_start"]["to_first_result_s"] for kind in ("cold", "warm"))
            parts.append((cold, f"{model} {seconds_text(cold)} cold, {seconds_text(warm)} warm"))
    slowest = sorted(parts, reverse=True)[:4]
    return "; ".join(text for _, text in slowest)


def reference_kernels(table: Table) -> str:
    """The time of LiteRT's reference kernels over that of the oracle on the portable instruction set."""
    parts = []
    for model in table.models:
        contest = table.get(model, "ref")
        mine = contest and canonical(contest, "portable")
        theirs = contest and entry(contest, "litert-ref")
        if mine and theirs and timed(mine) and timed(theirs) and model.startswith(FLAGSHIPS):
            parts.append(f"{model} {ratio(mine, theirs):.1f}×")
    return ", ".join(parts)


LEDGER: tuple[tuple[str, Callable[[Table], str]], ...] = (
    ("every layer traced / none, 1024×1024", trace_cost),
    ("2560×2560 / 1024×1024 (6.25 times the pixels)", cost_of_size),
    ("peak memory, 2560×2560", memory),
    ("first result from nothing, the slowest models", starts),
    ("LiteRT's reference kernels / oracle, portable", reference_kernels),
)
"""Title and function of each figure; a function returns '' where its data were not measured."""
