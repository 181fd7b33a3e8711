"""Profiles in files: a known profile, and the rules in which another runtime departs from it.

``{"name": "litert-2.4-ref", "base": "litert-2.3-ref", "rules": {"CONV_2D": {"uint8": {"method": "gemmlowp",
"multiplier": "float64"}}}}``: op, then variant, then the fields of a :class:`Rule`; what is left out has its
default. ``"established": {"package": …, "versions": […], "processors": […]}`` may say what the rules were
read off. ``karat24 establish`` writes such files.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from types import MappingProxyType
from typing import Any, get_args

from karat24.refimpl.errors import UsageError
from karat24.refimpl.profiles import rules
from karat24.refimpl.profiles.established import Established
from karat24.refimpl.profiles.rules import Rule
from karat24.refimpl.profiles.space import FROM_FLOAT, SPACES

MOST_BYTES = 1 << 20

_WORDS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "method": get_args(rules.Method),
        "multiplier": get_args(rules.Multiplier),
        "tail": get_args(rules.Method),
        "block_axis": get_args(rules.BlockAxis),
        "clamp": get_args(rules.Clamp),
        "overflow": get_args(rules.Overflow),
        "accumulation": get_args(rules.Accumulation),
        "libm": get_args(rules.Libm),
        "rows": get_args(rules.Rows),
    }
)
"""What each field of a rule may say."""


@dataclass(frozen=True)
class ProfileFile:
    """What a file says: a name, the base's name, and by op and variant the rules that depart from it."""

    name: str
    base: str
    rules: Mapping[str, Mapping[str, Rule]]
    established: Established | None


def read_profile(path: Path) -> ProfileFile:
    """The profile in a file. Raises UsageError saying what is wrong with the file."""
    try:
        if path.stat().st_size > MOST_BYTES:
            raise UsageError(f"{path}: a profile has no more than {MOST_BYTES} bytes")
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path}: not a profile in JSON: {error}") from None
    if not isinstance(content, dict) or not all(
        isinstance(content.get(key), str) for key in ("name", "base")
    ):
        raise UsageError(f'{path}: a profile needs a "name" and a "base", the profile it departs from')
    table = content.get("rules", {})
    if not isinstance(table, dict) or not all(isinstance(variants, dict) for variants in table.values()):
        raise UsageError(f'{path}: "rules" must map ops to variants, and variants to rules')
    return ProfileFile(
        content["name"],
        content["base"],
        {
            op: {
                variant: _rule_of(op, f"{path}: {op} {variant}", value) for variant, value in variants.items()
            }
            for op, variants in table.items()
        },
        _established(path, content.get("established")),
    )


def _established(path: Path, said: Any) -> Established | None:
    if said is None:
        return None
    words = said if isinstance(said, dict) else {}
    package, versions, processors = (words.get(field.name) for field in fields(Established))
    named = isinstance(package, str) and all(
        isinstance(names, list) and names and all(isinstance(name, str) for name in names)
        for names in (versions, processors)
    )
    if not named:
        raise UsageError(f'{path}: "established" needs a "package", "versions" and "processors"')
    return Established(str(package), tuple(versions or ()), tuple(processors or ()))


def _rule_of(op: str, where: str, value: Any) -> Rule:
    """The rule, whose methods must be some that the op's spec defines."""
    rule = _rule(where, value)
    spaces = [spaces[op] for spaces in (SPACES, FROM_FLOAT) if op in spaces]
    if not spaces:
        raise UsageError(f"{where}: there is no choice of rules for {op}; for: {', '.join(sorted(SPACES))}")
    defined = {known.method for space in spaces for known in space.plain}
    undefined = {rule.method, rule.tail or rule.method} - defined - {"unspecified"}
    if undefined:
        raise UsageError(
            f"{where}: {undefined.pop()} is not defined for {op}; known: {', '.join(sorted(defined))}"
        )
    return rule


def _rule(where: str, value: Any) -> Rule:
    known = {field.name for field in fields(Rule)}
    if not isinstance(value, dict) or "method" not in value or not set(value) <= known:
        raise UsageError(f'{where}: a rule has a "method" and may have {", ".join(sorted(known))}')
    for name, word in value.items():
        if name == "block":
            if isinstance(word, bool) or not isinstance(word, int) or not 0 <= word <= 1024:
                raise UsageError(f"{where}: block is {word!r}; 0 to 1024 elements are possible")
        elif word not in _WORDS[name] and not (name == "tail" and word is None):
            raise UsageError(f"{where}: {name} is {word!r}; known: {', '.join(_WORDS[name])}")
    rule = Rule(**value)
    if (rule.tail is None) != (rule.block == 0) or (rule.tail is None) != (rule.block_axis == "none"):
        raise UsageError(f"{where}: tail, block and block_axis belong together")
    return rule
