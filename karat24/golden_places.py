"""Where goldens lie: beside models, in folders; what each is of, and whether it can be used."""

from __future__ import annotations

import glob
from pathlib import Path
from typing import Literal

from karat24.golden.goldens.files import SUFFIX, arrays_beside, find_goldens, read_golden, require_arrays
from karat24.golden.goldens.manifest import Golden
from karat24.golden.provenance import model_digest
from karat24.refimpl.errors import CannotCompare, DamagedGolden, KaratError, UsageError


def golden_path(model: Path, folder: Path | None = None, name: str = "") -> Path:
    """Where the golden of a model lies: beside it or in ``folder``; ``name`` tells cases of one model apart.

    Raises UsageError for a name that is no part of a file's name.
    """
    if name and not all(character.isalnum() or character in "-_" for character in name):
        raise UsageError(f"{name!r}: a case is named with letters, digits, - and _")
    case = f".{name}" if name else ""
    return (folder or model.parent) / f"{model.name}{case}{SUFFIX}"


def model_of(path: Path, golden: Golden) -> Path:
    """The model a golden is of. Raises CannotCompare where it is gone."""
    model = path.parent / golden.model.path
    if not model.is_file():
        raise CannotCompare(
            f"{path}: stale: its model {model} does not exist; bring it back, or `karat24 golden prune`"
        )
    return model


def goldens_of(target: Path) -> list[Path]:
    """The goldens that a path names: itself, those in a folder, or those beside a model.

    Raises CannotCompare where there are none.
    """
    if target.is_dir():
        found = find_goldens(target)
    elif target.name.endswith(SUFFIX):
        found = [target]
    elif target.is_file():
        beside = target.parent.glob(f"{glob.escape(target.name)}.*")
        found = sorted(path for path in beside if path.name.endswith(SUFFIX) and path.is_file())
    else:
        raise CannotCompare(f"{target}: no such golden, model or folder")
    if not found:
        raise CannotCompare(f"{target}: no golden; record one with `karat24 golden record MODEL`")
    return found


State = Literal["current", "stale", "orphan", "damaged", "unread"]


def state_of(path: Path) -> tuple[State, str]:
    """Whether a golden can be used, and a line about it: its model may have changed, be gone, or it be
    damaged itself, or of a version that is not known here."""
    try:
        golden = read_golden(path)
        require_arrays(path, golden)
    except DamagedGolden as error:
        return "damaged", str(error)
    except KaratError as error:
        return "unread", str(error)
    about = f"{golden.producer.name}, {golden.profile or 'no profile'}, {len(golden.tensors)} tensors"
    model = path.parent / golden.model.path
    if not model.is_file():
        return "orphan", f"its model {model} does not exist"
    if model_digest(model) != golden.model.sha256:
        return "stale", f"its model {model} has changed"
    return "current", about


def files_of(path: Path) -> list[Path]:
    """The files of a golden: itself and the arrays beside it."""
    return [path, *arrays_beside(path)]


def existing_golden(path: Path) -> Golden:
    """The golden; one that is missing cannot be compared."""
    if not path.is_file():
        raise CannotCompare(f"{path}: no golden; record one with `karat24 golden record MODEL`")
    return read_golden(path)
