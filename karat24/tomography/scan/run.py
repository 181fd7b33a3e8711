"""A whole volume: the plan carried out, resumed where it was left, and told."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from karat24.refimpl.errors import FeedError, UsageError
from karat24.tomography.scan.files import file_digest, remove_partials, write_json
from karat24.tomography.scan.lock import locked
from karat24.tomography.scan.manifest import Manifest, earlier_terms
from karat24.tomography.scan.outputs import EXPORTS, SliceStore, export, format_of
from karat24.tomography.scan.plan import Plan, require_space
from karat24.tomography.scan.records import Record, finished, read_record
from karat24.tomography.scan.volumes.tiff import SUFFIXES
from karat24.tomography.scan.volumes.volume import About

Finish = Callable[[Manifest, Sequence[int]], Iterator[Record]]
"""Finishes slices somewhere and gives their records."""
Progress = Callable[[Iterable[Record], int], Iterable[Record]]


@dataclass(frozen=True)
class Outcome:
    """Records by slice, the chosen ones all there; ``done_before`` slices were found finished. ``redone`` are
    names of slices that were recorded under equal terms, but are not there as they were written."""

    records: dict[int, Record]
    done_before: int
    removed: int
    redone: tuple[str, ...] = ()


def carry_out(
    plan: Plan,
    finish: Finish,
    progress: Progress = lambda records, _total: records,
    overwrite: bool = False,
    verify: bool = False,
) -> Outcome:
    """Restores what is not finished yet.

    Raises FeedError when the output was begun under other terms, UsageError when another run is at work, when
    the output holds files without records, or when the disk is full; ``overwrite`` begins again instead.
    """
    manifest, about = plan.manifest, plan.volume.about
    if not overwrite and earlier_terms(manifest.state) is None:
        _require_unused(manifest)
    manifest.state.mkdir(exist_ok=True)
    (manifest.state / "done").mkdir(exist_ok=True)
    with locked(manifest.state / "lock"):
        earlier = earlier_terms(manifest.state)
        if overwrite:
            _forget(manifest)
        elif earlier is not None:
            manifest.require_equal(earlier)
        else:
            _require_unused(manifest)
        store = manifest.store(about)
        removed = remove_partials(manifest.state) + remove_partials(store.root)
        if store.root != manifest.out:
            removed += _remove_beside(manifest)
        records, redone = _finished_before(manifest, store, verify)
        chosen = range(manifest.first, manifest.first + manifest.count)
        todo = [index for index in chosen if index not in records]
        done_before = len(records)
        if todo:
            require_space(plan, len(todo))
            store.prepare()
            manifest.write()
            for record in progress(finish(manifest, todo), len(todo)):
                records[record.index] = record
        elif earlier is None or overwrite:
            manifest.write()
        if format_of(manifest.out) in EXPORTS and (todo or not _exported(manifest)):
            _export(manifest, about, store)
        if format_of(manifest.out) in EXPORTS:
            shutil.rmtree(manifest.state / "slices", ignore_errors=True)
        return Outcome(records, done_before, removed, redone)


def _finished_before(
    manifest: Manifest, store: SliceStore, verify: bool
) -> tuple[dict[int, Record], tuple[str, ...]]:
    """The slices that need not be restored again, and names of those that must although they are recorded."""
    found, redone = {}, []
    whole = format_of(manifest.out) in EXPORTS and _exported(manifest, verify)
    for index in range(manifest.first, manifest.first + manifest.count):
        record = read_record(manifest.state, index)
        if record is None:
            continue
        if (whole and record.fingerprint == manifest.fingerprint) or finished(
            record, manifest.fingerprint, store.path(index - manifest.first), verify
        ):
            found[index] = record
        elif record.fingerprint == manifest.fingerprint:
            redone.append(record.name)
    return found, tuple(redone)


def _forget(manifest: Manifest) -> None:
    """Removes what an earlier run recorded, and the slices that it wrote: those which this run does not write
    again would stand among others of its own, on another scale."""
    if format_of(manifest.out) == "tiff":
        for path in _recorded(manifest):
            path.unlink(missing_ok=True)
    shutil.rmtree(manifest.state / "done")
    (manifest.state / "done").mkdir()
    shutil.rmtree(manifest.state / "slices", ignore_errors=True)
    for path in (manifest.state / "manifest.json", manifest.state / "exported.json"):
        path.unlink(missing_ok=True)
    if format_of(manifest.out) == "ome-zarr" and (manifest.out / "0" / "c").is_dir():
        shutil.rmtree(manifest.out / "0")


def _recorded(manifest: Manifest) -> Iterator[Path]:
    """The files in a folder of slices that have a record, and no others: a user's own files stay."""
    for place in (manifest.state / "done").glob("*.json"):
        record = read_record(manifest.state, int(place.stem)) if place.stem.isdecimal() else None
        if record is None or Path(record.name).name != record.name:
            continue
        yield from (manifest.out / f"{record.name}{suffix}" for suffix in SUFFIXES)


def _require_unused(manifest: Manifest) -> None:
    """Raises UsageError for an output that karat24 has no records of."""
    out = manifest.out
    if out.is_file() or (out.is_dir() and any(out.iterdir())):
        raise UsageError(
            f"{out}: is there already, and not from this command; name another place, or --overwrite"
        )


def _remove_beside(manifest: Manifest) -> int:
    """Removes single files that were being made."""
    left = list(manifest.out.parent.glob(f".{manifest.out.name}.*.partial"))
    for path in left:
        path.unlink(missing_ok=True)
    return len(left)


def _exported(manifest: Manifest, verify: bool = False) -> bool:
    """Whether the single file is there as it was made."""
    try:
        found = json.loads((manifest.state / "exported.json").read_bytes())
        if found["fingerprint"] != manifest.fingerprint or manifest.out.stat().st_size != found["bytes"]:
            return False
        return not verify or file_digest(manifest.out) == found["file"]
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _export(manifest: Manifest, about: About, store: SliceStore) -> None:
    """Makes the single file and records it."""
    if manifest.out.is_dir():
        raise FeedError(f"{manifest.out}: is a folder; name another file")
    attributes = {
        "description": "restored by karat24",
        "fingerprint": manifest.fingerprint,
        "slope": repr(manifest.encoding.slope),
        "offset": repr(manifest.encoding.offset),
    }
    export(
        manifest.out,
        (manifest.count, about.shape[1], about.shape[2]),
        np.dtype(manifest.encoding.dtype),
        (store.read(index) for index in range(manifest.count)),
        attributes,
        about.voxel,
    )
    write_json(
        manifest.state / "exported.json",
        {
            "fingerprint": manifest.fingerprint,
            "bytes": manifest.out.stat().st_size,
            "file": file_digest(manifest.out),
        },
    )
