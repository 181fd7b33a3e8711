"""``karat24 establish``: find out which arithmetic a runtime has, op by op."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from karat24.cli import options as shared

if TYPE_CHECKING:
    from karat24.golden.establish.establish import Established

HELP = "ask a runtime which rounding each op has, and write a profile of it"
EPILOG = """examples:
  karat24 establish --delegate litert-ref
  karat24 establish --delegate litert-builtin --output litert-2.4-builtin.json
  karat24 verify model.tflite --delegate litert-builtin --profile litert-2.4-builtin.json
  karat24 establish --delegate ort --report ort.json
  karat24 establish --delegate-folder device    # twice: writes models and inputs, then reads outputs

Small layers of every op that rounds are fed where rules differ. The rule of each kind of layer is
sought among all combinations of roundings, multipliers, zero points, clamps, blocks and tails, not
among known profiles; which of these agree is said afterwards. A kind whose values no rule gives is
'not in the space', with a counterexample; in the profile it is unspecified. Where several rules fit,
the inputs tried do not tell them apart.

exit codes: 0 each kind of layer that runs has a rule, 1 one has none, 2 usage error, 3 nothing runs"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's options."""
    source = parser.add_mutually_exclusive_group(required=True)
    delegate = source.add_argument("--delegate", "-d", metavar="D", help="runtime, see `karat24 delegates`")
    shared.complete_with(delegate, shared.delegate_names)
    shared.add_delegate_command(source)
    shared.add_delegate_folder(source)
    parser.add_argument(
        "--format", choices=("tflite", "onnx"), default="tflite",
        help="of the files that a command or device reads (default: tflite)",
    )  # fmt: skip
    parser.add_argument("--output", type=Path, metavar="OUT.json", help="write a profile")
    parser.add_argument("--report", type=Path, metavar="OUT.json", help="write all that was found")
    parser.add_argument(
        "--time-limit", type=float, default=600.0, metavar="S", help="seconds the runtime may take per run"
    )


def run(options: argparse.Namespace) -> int:
    """Prints what was found for each kind of layer, and writes the profile."""
    from karat24.delegates import delegate_named
    from karat24.golden.establish.establish import establish

    for path in (options.output, options.report):
        if path is not None:
            shared.writable(path)
    with (
        shared.unlisted_runtime(options, options.format, "")
        if options.delegate is None
        else delegate_named(options.delegate, time_limit=options.time_limit)
    ) as delegate:
        found = establish(delegate)
        shared.tell_waiting(delegate)
    for finding in found.findings:
        print(finding)
    if all(finding.refused for finding in found.findings):
        print("the runtime ran none of these layers")
        return 3
    for line in _summary(found):
        print(line)
    if options.output is not None:
        _write(options.output, found.profile(options.output.stem))
    if options.report is not None:
        _write(options.report, found.report())
    return 0 if found.complete else 1


def _summary(found: Established) -> Iterator[str]:
    """The nearest profile, what departs from it, and what to do where nothing does."""
    from karat24.refimpl.profiles import profile_named

    base, agreeing = found.nearest()
    ran = sum(not finding.refused for finding in found.findings)
    yield f"nearest profile: {base}, in {agreeing} of {ran} kinds of layers that run"
    for finding in found.departures():
        yield f"  departs in {finding.kind}: {finding.rules[0] if finding.rules else 'no rule known'}"
    stands, known = found.established, profile_named(base).established
    if not found.departures() and known is not None and known.package == stands.package:
        (version,) = stands.versions
        yield (
            f"{stands.package} {version} is one of the versions {base} stands for"
            if known.covers(version)
            else f"the same arithmetic: add {version!r} to the versions of Established({stands.package!r}, "
            "…) in refimpl/profiles/__init__.py"
        )


def _write(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
