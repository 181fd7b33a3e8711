"""``karat24 golden``: what models compute, kept in git, and whether they still do."""

from __future__ import annotations

import argparse
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from karat24.cli import options as shared
from karat24.cli import reports

if TYPE_CHECKING:
    from collections.abc import Iterator

    from karat24.delegates import Delegate
    from karat24.golden.goldens import GoldenCheck
    from karat24.golden.reports.refusal import Refusal
    from karat24.goldens import Proposal

HELP = "record what a model computes in a small text file, and check later that it still does"
EPILOG = """examples:
  karat24 golden record model.tflite                    writes model.tflite.golden.json; keep it in git
  karat24 golden check                                  every golden in this folder and below
  karat24 golden check model.tflite --delegate litert-ref
  karat24 golden check model.tflite --delegate-command 'runner {model} {inputs} {outputs}'
  karat24 golden check model.tflite --recorded dump.npz
  karat24 golden record model.tflite --recorded dump.npz --input x.npy      what a device gave
  karat24 golden accept model.tflite                    shows what would change, and asks

A golden holds a hash per layer, so it says which layer differs. A golden of another model, input, profile or
runtime is never compared, nor is one that is missing, damaged or stale: exit code 3."""

ACTIONS = {
    "record": "run a model and write its golden",
    "check": "run models and compare them with their goldens",
    "accept": "replace goldens by what is computed now, once that was shown",
    "list": "list goldens, and whether their models are as they were",
    "prune": "remove goldens whose model is gone, and files that killed processes left",
    "show": "print a golden as a table",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the actions, each with its options."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    made = {name: actions.add_parser(name, help=text, description=text) for name, text in ACTIONS.items()}
    record = made["record"]
    shared.add_model(record)
    record.add_argument(
        "--folder", type=Path, metavar="DIR", help="where goldens lie (default: beside MODEL)"
    )
    record.add_argument("--name", default="", metavar="N", help="name of the case, where a model has several")
    shared.add_profile(record, "litert-2.3-ref for .tflite, ort-1.31 for .onnx")
    _add_sources(record, "record this runtime instead of the oracle", "record what another runtime gave")
    record.add_argument(
        "--keep", choices=("none", "outputs", "all"),
        help="values to keep beside the hashes (default: all of a runtime's, none of the oracle's)",
    )  # fmt: skip
    shared.add_feeds(record)
    check = made["check"]
    _add_goldens(check)
    _add_sources(check, "run this one (default: what recorded the golden)", "compare what another one gave")
    check.add_argument(
        "--only-recorded", action="store_true",
        help="leave out layers without a recording, so that an output that is equal can pass",
    )  # fmt: skip
    check.add_argument(
        "--input", "-i", type=Path, nargs="+", default=[], metavar="F", help="the recorded input"
    )
    check.add_argument("--models", type=Path, metavar="DIR", help="every model in DIR must have a golden")
    check.add_argument("--all", action="store_true", help="list the layers that match, too")
    reports.add_reports(check)
    accept = made["accept"]
    _add_goldens(accept)
    _add_sources(accept, "record by this one (default: what recorded the golden)", "record what another gave")
    for name in ("record", "check", "accept"):
        shared.add_threads(made[name])
    for name in ("list", "prune"):
        made[name].add_argument("folder", type=Path, nargs="?", default=Path(), metavar="DIR")
    for name in ("accept", "prune"):
        made[name].add_argument("--yes", "-y", action="store_true", help="do it without asking")
    made["show"].add_argument("golden", type=Path, metavar="GOLDEN")


def _add_goldens(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "goldens", type=Path, nargs="*", default=[Path()], metavar="GOLDEN",
        help="golden files, models, or folders of goldens (default: this folder)",
    )  # fmt: skip


def _add_sources(parser: argparse.ArgumentParser, running: str, recorded: str) -> None:
    """Where values come from, if not from the oracle: a runtime, or what one gave."""
    source = parser.add_mutually_exclusive_group()
    option = source.add_argument("--delegate", "-d", metavar="D", help=f"{running}; see `karat24 delegates`")
    shared.complete_with(option, shared.delegate_names)
    shared.add_delegate_command(source)
    shared.add_delegate_folder(source)
    source.add_argument(
        "--recorded", type=Path, metavar="DUMP",
        help=f"{recorded}: .npz, folder of .npy, or one tensor (.npy, bytes, C text)",
    )  # fmt: skip
    parser.add_argument(
        "--recorded-tensor", metavar="T", help="name or index of the tensor in a DUMP that holds one"
    )
    parser.add_argument(
        "--time-limit", type=float, default=600.0, metavar="S",
        help="seconds that a --delegate-command may take per run",
    )  # fmt: skip


@contextmanager
def _runtime(options: argparse.Namespace, model: Path, profile: str) -> Iterator[str | Delegate | None]:
    """The runtime asked for: by its name, or one behind a command or a folder that is held to ``profile``."""
    from karat24.export.files import file_format

    if options.delegate_command is None and options.delegate_folder is None:
        yield options.delegate
        return
    with shared.unlisted_runtime(options, file_format(model), profile) as runtime:
        try:
            yield runtime
        finally:
            shared.tell_waiting(runtime)


def run(options: argparse.Namespace) -> int:
    """Does what the action says and returns its exit code."""
    from karat24.refimpl.errors import UsageError

    if getattr(options, "recorded_tensor", None) is not None and options.recorded is None:
        raise UsageError("--recorded-tensor goes with --recorded")
    return {
        "record": _record, "check": _check, "accept": _accept, "list": _list, "prune": _prune, "show": _show,
    }[options.action](options)  # fmt: skip


def _record(options: argparse.Namespace) -> int:
    from karat24.golden_places import golden_path
    from karat24.goldens import propose_golden, write_new

    shared.require_model_file(options.model)
    if options.folder is not None:
        options.folder.mkdir(parents=True, exist_ok=True)
    with _runtime(options, options.model, options.profile or "") as delegate:
        proposal = propose_golden(
            options.model,
            golden_path(options.model, options.folder, options.name),
            seed=options.seed,
            files=options.input,
            input_range=tuple(options.input_range) if options.input_range else None,
            delegate=delegate,
            recorded=options.recorded,
            recorded_tensor=options.recorded_tensor,
            profile=options.profile if delegate is None or isinstance(delegate, str) else None,
            keep=options.keep,
            threads=options.threads,
            progress=shared.progress_bar,
        )
    golden = write_new(proposal)
    size = proposal.path.stat().st_size
    print(
        f"{proposal.path}: {size:,} bytes, {len(golden.tensors)} tensors, profile {golden.profile or 'none'}"
    )
    return 0


def _check(options: argparse.Namespace) -> int:
    """Checks every golden that is named; one that cannot be compared does not keep others from it."""
    from karat24.golden.goldens.files import find_goldens
    from karat24.golden.reports.refusal import Refusal
    from karat24.refimpl.errors import KaratError, UsageError

    if options.only_recorded and options.recorded is None:
        raise UsageError("--only-recorded goes with --recorded")
    reports.require_writable(options)
    checks: list[GoldenCheck] = []
    refusals: list[Refusal] = []
    codes: list[int] = []

    def refuse(name: Path, reason: str, code: int) -> None:
        print(f"karat24 golden: {' '.join(reason.split())}", file=sys.stderr)
        refusals.append(Refusal(str(name), reason, code))
        codes.append(code)

    named: dict[Path, Path | None] = {}
    for target in options.goldens:
        try:
            named.update((path, model or named.get(path)) for path, model in _named(target).items())
        except KaratError as error:
            refuse(target, str(error), error.exit_code)
    for path, model in named.items():
        try:
            found = _checked(options, path, model)
        except KaratError as error:
            refuse(path, str(error), error.exit_code)
            continue
        checks.append(found)
        codes.append(found.exit_code())
        print(f"{path}\n{reports.table(found.report, options.all)}")
    if options.models:
        for model in _without_golden(options.models, find_goldens(options.models), [*named]):
            refuse(model, f"{model}: no golden; record one with `karat24 golden record`", 3)
    if len(codes) > 1:
        print(f"{len(codes)} goldens: {codes.count(0)} match, {codes.count(1)} mismatch, "
              f"{codes.count(3)} cannot be compared, {codes.count(2)} cannot be used")  # fmt: skip
    reports.write(
        options, [found.report for found in checks], [str(found.path) for found in checks], refusals
    )
    # A difference that was found says more than one that could not be looked for.
    return next((code for code in (1, 2, 3) if code in codes), 0)


def _named(target: Path) -> dict[Path, Path | None]:
    """The goldens that a path names, with the model where it is one. Raises CannotCompare for none."""
    from karat24.golden.goldens.files import SUFFIX
    from karat24.golden_places import goldens_of

    is_model = target.is_file() and not target.name.endswith(SUFFIX)
    return dict.fromkeys(goldens_of(target), target if is_model else None)


def _checked(options: argparse.Namespace, path: Path, model: Path | None) -> GoldenCheck:
    from karat24.golden_places import existing_golden
    from karat24.goldens import check_golden

    golden = existing_golden(path)
    with _runtime(options, model or path.parent / golden.model.path, golden.profile) as delegate:
        return check_golden(
            path, model=model, delegate=delegate, recorded=options.recorded,
            recorded_tensor=options.recorded_tensor, only_recorded=options.only_recorded,
            files=options.input, threads=options.threads, progress=shared.progress_bar,
        )  # fmt: skip


def _without_golden(folder: Path, beside: list[Path], others: list[Path]) -> list[Path]:
    """Models in a folder and below it that none of the goldens is of."""
    from karat24.export.files import FORMATS
    from karat24.golden.goldens.files import read_golden
    from karat24.refimpl.errors import KaratError

    known = set()
    for path in {*beside, *others}:
        try:
            known.add((path.parent / read_golden(path).model.path).resolve())
        except KaratError:
            continue
    models = sorted(path for format in FORMATS for path in folder.rglob(f"*.{format}"))
    return [model for model in models if model.resolve() not in known]


def _accept(options: argparse.Namespace) -> int:
    from karat24.golden.reports.terminal import printable
    from karat24.golden_places import existing_golden
    from karat24.goldens import propose_again

    proposals: list[Proposal] = []
    named = {path: model for target in options.goldens for path, model in _named(target).items()}
    for path, model in named.items():
        old = existing_golden(path)
        with _runtime(options, model or path.parent / old.model.path, old.profile) as delegate:
            proposal = propose_again(
                path, model=model, delegate=delegate, recorded=options.recorded,
                recorded_tensor=options.recorded_tensor, threads=options.threads,
                progress=shared.progress_bar,
            )  # fmt: skip
        changes = proposal.changes
        print(f"{path}:" if changes else f"{path}: unchanged")
        for line in changes:
            print(f"  {printable(line)}")
        if changes:
            proposals.append(proposal)
    if not proposals:
        return 0
    if not _agreed(options, f"replace {len(proposals)} golden{'s' if len(proposals) > 1 else ''}?"):
        print("nothing was written")
        return 1
    for proposal in proposals:
        proposal.write()
        print(f"{proposal.path}: written")
    return 0


def _agreed(options: argparse.Namespace, question: str) -> bool:
    """Whether the user says yes: by --yes, or on a terminal."""
    if options.yes:
        return True
    if not sys.stdin.isatty():
        print(f"karat24 golden: {question} add --yes to do it", file=sys.stderr)
        return False
    return input(f"{question} [y/N] ").strip().lower() in ("y", "yes")


def _list(options: argparse.Namespace) -> int:
    """A line per golden; exit code 3 where one is damaged or stale."""
    from karat24.golden_places import goldens_of, state_of

    states = [(path, *state_of(path)) for path in goldens_of(options.folder)]
    for path, state, text in states:
        print(f"{state:8}  {path}  {text}")
    return 0 if all(state == "current" for _, state, _ in states) else 3


def _prune(options: argparse.Namespace) -> int:
    from karat24.golden.goldens.files import find_goldens, leftovers
    from karat24.golden_places import files_of, state_of

    if not options.folder.is_dir():
        from karat24.refimpl.errors import UsageError

        raise UsageError(f"{options.folder}: no such folder")
    gone = [path for path in find_goldens(options.folder) if state_of(path)[0] == "orphan"]
    found = [*(file for path in gone for file in files_of(path)), *leftovers(options.folder)]
    for path in found:
        print(path)
    if not found:
        print("nothing to remove")
        return 0
    if not _agreed(options, f"remove {len(found)} file{'s' if len(found) > 1 else ''}?"):
        return 1
    for path in found:
        path.unlink(missing_ok=True)
    return 0


def _show(options: argparse.Namespace) -> int:
    from karat24.golden.reports.terminal import printable
    from karat24.golden_places import existing_golden, goldens_of

    for path in goldens_of(options.golden):
        print(path)
        print(printable(existing_golden(path).table()))
    return 0
