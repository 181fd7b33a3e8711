"""``karat24 profiles``: the arithmetic profiles and what each one says."""

from __future__ import annotations

import argparse

from karat24.cli import options as shared

HELP = "list the arithmetic profiles, or show one profile's rounding rule per op"
EPILOG = """examples:
  karat24 profiles
  karat24 profiles litert-2.3-xnnpack

Each name works as --profile NAME of `karat24 run`, `karat24 verify` and `karat24 inspect`."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's options."""
    name = parser.add_argument("name", nargs="?", metavar="PROFILE", help="show this profile's rules")
    shared.complete_with(name, shared.profile_names)


def run(options: argparse.Namespace) -> int:
    """Prints the list or one profile."""
    from karat24.refimpl.profiles import METHODS, PROFILES, profile_named
    from karat24.refimpl.profiles.rules import Method

    if options.name is None:
        width = max(map(len, PROFILES))
        for profile in PROFILES.values():
            print(f"{profile.name.ljust(width)}  {profile.runtime}")
        return 0
    profile = profile_named(options.name)
    print(f"{profile.name}: {profile.runtime}")
    if profile.established is not None:
        print(f"established on {profile.established}\n")
    else:
        print(f"{profile.caveat or 'from sources and documents only: held against no runtime'}\n")
    used: set[Method] = set()
    for title, table in (("layers XNNPACK takes", profile.delegated), ("all other layers", profile.table)):
        if table is None:
            continue
        if profile.delegated is not None:
            print(f"{title}:")
        for op in sorted(table):
            for variant, rule in table[op].items():
                print(f"  {op:24} {'any' if variant == '*' else variant:20} {rule}")
                used.add(rule.method)
                if rule.tail is not None:
                    used.add(rule.tail)
        print()
    for refusal in dict.fromkeys((*profile.delegated_refuses, *profile.refuses)):
        print(f"refused by the runtime: {', '.join(sorted(refusal.ops)) or 'any op'}: {refusal.reason}\n")
    for silence in profile.silent:
        print(f"says nothing of some or all {', '.join(sorted(silence.ops))}: {silence.reason}\n")
    for method in sorted(used):
        print(f"{method}: {METHODS[method]}")
    return 0
