"""What a search for the cause of a difference found."""

from __future__ import annotations

from dataclasses import dataclass, replace

PLACES_SHOWN = 3
"""Places of one cause that a sentence lists."""


@dataclass(frozen=True)
class Cause:
    """A kind of mistake, and each place where it alone gives every value found."""

    kind: str
    places: tuple[str, ...]

    def __str__(self) -> str:
        listed = "; or ".join(self.places[:PLACES_SHOWN])
        more = len(self.places) - PLACES_SHOWN
        return f"{self.kind}: {listed}" + (f"; or {more} more" if more > 0 else "")


@dataclass(frozen=True)
class WorstValue:
    """One of the values that differ most.

    ``before`` and ``after`` are what was expected and found beside it in its row, None at the row's ends;
    ``accumulator`` is None for ops without.
    """

    index: tuple[int, ...]
    expected: float
    found: float
    accumulator: int | None
    before: tuple[float, float] | None
    after: tuple[float, float] | None

    def __str__(self) -> str:
        acc = "" if self.accumulator is None else f", accumulator {self.accumulator}"
        beside = " and ".join(
            f"{side} it {pair[0]:g} expected, {pair[1]:g} found"
            for side, pair in (("before", self.before), ("after", self.after))
            if pair is not None
        )
        place = ",".join(map(str, self.index))
        return f"at {place}: {self.expected:g} expected, {self.found:g} found{acc}" + (
            f" ({beside})" if beside else ""
        )


@dataclass(frozen=True)
class Attribution:
    """Every single cause that gives all values found, in the order they are tried; none: unexplained.

    ``tried`` names the kinds that apply to the layer, ``cut`` says where the search was ended early. The
    ``worst`` values are kept where no cause was found.
    """

    causes: tuple[Cause, ...]
    tried: tuple[str, ...]
    cut: tuple[str, ...] = ()
    worst: tuple[WorstValue, ...] = ()

    def merged(self, other: Attribution) -> Attribution:
        """The attribution over two samples: only causes that give the values of both."""
        places = {cause.kind: cause.places for cause in other.causes}
        both = []
        for cause in self.causes:
            common = tuple(place for place in cause.places if place in places.get(cause.kind, ()))
            if common:
                both.append(replace(cause, places=common))
        return Attribution(
            tuple(both),
            tuple(dict.fromkeys((*self.tried, *other.tried))),
            tuple(dict.fromkeys((*self.cut, *other.cut))),
            self.worst or other.worst,
        )

    def __str__(self) -> str:
        cut = f"; the search was cut: {', '.join(self.cut)}" if self.cut else ""
        if self.causes:
            first, *others = map(str, self.causes)
            besides = f" (as well: {'; '.join(others)})" if others else ""
            return f"every value is what one mistake gives: {first}{besides}{cut}"
        tried = f"; tried: {', '.join(self.tried)}" if self.tried else ""
        worst = f"; worst {'; '.join(map(str, self.worst))}" if self.worst else ""
        return f"unexplained{tried}{cut}{worst}"
