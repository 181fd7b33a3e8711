"""``karat24 establish``: find out which arithmetic a runtime has, op by op."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from karat24.cli import options as shared

HELP = "ask a runtime which rounding each op has, and write a profile of it"
EPILOG = """examples:
  karat24 establish --delegate litert-ref
  karat24 establish --delegate litert-builtin --output litert-2.4-builtin.json
  karat24 verify model.tflite --delegate litert-builtin --profile litert-2.4-builtin.json

Small layers are fed where the rules known, and combinations of their parts, differ. A kind of layer whose
values no rule gives is 'not in the space', with a counterexample; in the profile it is unspecified.

exit codes: 0 each kind of layer that runs has a rule, 1 one has none, 2 usage error, 3 nothing runs"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's options."""
    delegate = parser.add_argument(
        "--delegate",
        "-d",
        required=True,
        metavar="D",
        help="runtime of .tflite files: `karat24 delegates`",
    )
    shared.complete_with(delegate, shared.delegate_names)
    parser.add_argument("--output", type=Path, metavar="OUT.json", help="write the profile")


def run(options: argparse.Namespace) -> int:
    """Prints what was found for each kind of layer, and writes the profile."""
    from karat24.delegates import delegate_named
    from karat24.golden.establish import establish
    from karat24.refimpl.errors import UsageError

    if options.output is not None:
        shared.writable(options.output)
    with delegate_named(options.delegate) as delegate:
        if delegate.format != "tflite":
            raise UsageError(
                f"{delegate.name} reads .{delegate.format} files; establish asks in .tflite files"
            )
        found = establish(delegate)
    for finding in found.findings:
        print(finding)
    if all(finding.refused for finding in found.findings):
        print("the runtime ran none of these layers")
        return 3
    base, agreeing = found.nearest()
    ran = sum(not finding.refused for finding in found.findings)
    print(f"nearest profile: {base}, in {agreeing} of {ran} kinds of layers that run")
    for finding in found.departures():
        print(f"  departs in {finding.kind}: {finding.rules[0] if finding.rules else 'no rule known'}")
    if options.output is not None:
        profile = found.profile(options.output.stem)
        options.output.write_text(json.dumps(profile, indent=1) + "\n", encoding="utf-8")
    return 0 if found.complete else 1
