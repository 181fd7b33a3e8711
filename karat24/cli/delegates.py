"""``karat24 delegates``: which runtimes are here, and how to get the others."""

from __future__ import annotations

import argparse
import json

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

    from karat24.delegates import delegate_named, delegate_names

    found = {}
    for name in delegate_names():
        with delegate_named(name) as delegate:
            found[name] = (delegate.fit, delegate.probe())
    if options.json:
        content = {
            name: {"profile": fit.profile, "profile_reason": fit.reason, **asdict(probe)}
            for name, (fit, probe) in found.items()
        }
        print(json.dumps(content, indent=1))
        return 0
    width = max(map(len, found))
    for name, (fit, probe) in found.items():
        if probe.available:
            held = f"held to {fit.profile}" if fit.profile else "no profile describes it"
            reason = f" ({fit.reason})" if fit.reason else ""
            print(f"{name:{width}}  here     {probe.library} {probe.version}, {held}{reason}")
            if probe.reason:
                print(f"{'':{width}}           {probe.reason}")
        else:
            print(f"{name:{width}}  missing  {probe.reason}")
            print(f"{'':{width}}           {probe.remedy}")
    return 0
