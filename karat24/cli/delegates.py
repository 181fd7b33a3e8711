"""``karat24 delegates``: which runtimes are here, and how to get the others."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from karat24.delegates.fitting import Fit
    from karat24.delegates.protocol import Probe

HELP = "list the runtimes that can be judged: what is here, what is missing and how to get it"
EPILOG = """example:
  karat24 delegates

Each name works as `karat24 verify MODEL --delegate NAME`, once what it needs is here."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's options."""
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")


def run(options: argparse.Namespace) -> int:
    """Probes every delegate in its own process and prints what was found."""
    from dataclasses import asdict

    found = probe_all()
    if options.json:
        content = {
            name: {"profile": fit.profile, "profile_reason": fit.reason, **asdict(probe)}
            for name, (fit, probe) in found.items()
        }
        print(json.dumps(content, indent=1))
        return 0
    for line in table(found):
        print(line)
    return 0


def probe_all() -> Mapping[str, tuple[Fit, Probe]]:
    """For every runtime the profile that fits it and whether it is here, each asked in its own process."""
    from karat24.delegates import DELEGATES, delegate_named

    found = {}
    for name in DELEGATES:
        with delegate_named(name) as delegate:
            found[name] = (delegate.fit, delegate.probe())
    return found


def table(found: Mapping[str, tuple[Fit, Probe]]) -> Iterator[str]:
    """The table for people: a line for each runtime, and what to know about it or how to get it."""
    width = max(map(len, found))
    for name, (fit, probe) in found.items():
        if probe.available:
            held = f"held to {fit.profile}" if fit.profile else "no profile describes it"
            reason = f" ({fit.reason})" if fit.reason else ""
            yield f"{name:{width}}  here     {probe.library} {probe.version}, {held}{reason}"
            if probe.reason:
                yield f"{'':{width}}           {probe.reason}"
        else:
            yield f"{name:{width}}  missing  {probe.reason}"
            yield f"{'':{width}}           {probe.remedy}"
