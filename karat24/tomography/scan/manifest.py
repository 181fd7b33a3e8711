"""What was agreed before the first slice: everything a restored pixel depends on, and its fingerprint."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from karat24.refimpl.errors import FeedError
from karat24.tomography.honesty.noise import NoiseModel
from karat24.tomography.scan.files import digest, write_json
from karat24.tomography.scan.greyscale import Greyscale
from karat24.tomography.scan.masks import Mask
from karat24.tomography.scan.outputs import SliceStore, format_of, state_folder, store_for
from karat24.tomography.scan.outputs.encoding import Encoding
from karat24.tomography.scan.recipe import Recipe
from karat24.tomography.scan.volumes import Source
from karat24.tomography.scan.volumes.volume import About

FORMAT = 2


@dataclass(frozen=True)
class Manifest:
    """All that a worker needs, on whatever machine. ``first`` and ``count`` are the chosen slices.

    ``input`` tells the volume; ``noise`` and ``strength`` say what is given back
    (:mod:`karat24.tomography.honesty.mixing`); ``told`` is kept for people and does not count.
    """

    version: str
    source: Source
    out: Path
    input: Mapping[str, str]
    recipe: Recipe
    scale: Greyscale
    mask: Mask | None
    encoding: Encoding
    noise: NoiseModel
    strength: float
    first: int
    count: int
    told: Mapping[str, Any]

    @property
    def state(self) -> Path:
        """The folder beside the output."""
        return state_folder(self.out)

    @property
    def _is_folder(self) -> bool:
        return format_of(self.out) == "tiff"

    def judged(self) -> dict[str, str]:
        """Everything the restored bytes depend on, flat, as text."""
        found = {
            "format of the manifest": str(FORMAT),
            "version of karat24": self.version,
            "kind of output": "tiff folder" if self._is_folder else self.out.suffix.lower(),
            **{f"input: {name}": value for name, value in self.input.items()},
            # Only a recipe with a selector names it: volumes begun before there was one are gone on with.
            **{f"recipe: {name}": str(value) for name, value in asdict(self.recipe).items() if value != ""},
            **{f"scale: {name}": repr(value) for name, value in asdict(self.scale).items()},
            **{f"output: {name}": str(value) for name, value in asdict(self.encoding).items()},
            "mask": self.mask.describe() if self.mask else "none",
            **{f"volume: noise {name}": repr(value) for name, value in asdict(self.noise).items()},
            "strength": repr(self.strength),
        }
        if not self._is_folder:
            # A folder of slices may grow: a trial's slices are part of the whole. A single array may not.
            found["slices"] = f"{self.first}:{self.first + self.count}"
        return found

    @property
    def fingerprint(self) -> str:
        """SHA-256 of :meth:`judged`."""
        return digest(json.dumps(self.judged(), sort_keys=True).encode())

    def require_equal(self, earlier: Mapping[str, str]) -> None:
        """Raises FeedError, naming what differs from what an earlier run had agreed on."""
        mine = self.judged()
        for name in sorted({*mine, *earlier}):
            if mine.get(name) != earlier.get(name):
                raise FeedError(
                    f"{self.out}: was begun under other terms: {name} was {earlier.get(name, 'absent')} and "
                    f"is {mine.get(name, 'absent')} now. Give the earlier options, or --overwrite to begin "
                    "again"
                )

    def store(self, about: About) -> SliceStore:
        """Where the chosen slices go."""
        names = about.names[self.first : self.first + self.count]
        shape = (about.shape[1], about.shape[2])
        return store_for(self.out, names, about.suffix, shape, np.dtype(self.encoding.dtype), about.voxel)

    def write(self) -> None:
        """Writes ``manifest.json``, whole."""
        value = {
            "fingerprint": self.fingerprint,
            "judged": self.judged(),
            "version": self.version,
            "source": {**asdict(self.source), "path": str(self.source.path)},
            "out": str(self.out),
            "input": dict(self.input),
            "recipe": asdict(self.recipe),
            "scale": asdict(self.scale),
            "mask": None if self.mask is None else {**asdict(self.mask), "value": repr(self.mask.value)},
            "encoding": asdict(self.encoding),
            "noise": asdict(self.noise),
            "strength": self.strength,
            "first": self.first,
            "count": self.count,
            "told": dict(self.told),
        }
        write_json(self.state / "manifest.json", value)


def read_manifest(path: Path) -> Manifest:
    """A manifest from its file. Raises FeedError for one that is damaged."""
    found = _load(path)
    try:
        mask = found["mask"]
        recipe = {**found["recipe"], "tile": tuple(found["recipe"]["tile"])}
        return Manifest(
            version=found["version"],
            source=Source(**{**found["source"], "path": Path(found["source"]["path"])}),
            out=Path(found["out"]),
            input=found["input"],
            recipe=Recipe(**recipe),
            scale=Greyscale(**found["scale"]),
            mask=None if mask is None else Mask(_number(mask["value"]), mask["where"]),
            encoding=Encoding(**found["encoding"]),
            noise=NoiseModel(**found["noise"]),
            strength=float(found["strength"]),
            first=int(found["first"]),
            count=int(found["count"]),
            told=found["told"],
        )
    except (KeyError, TypeError, ValueError) as error:
        raise FeedError(f"{path}: is not a manifest ({error}); begin again with --overwrite") from error


def earlier_terms(state: Path) -> Mapping[str, str] | None:
    """What an earlier run had agreed on, None where there was none. Raises FeedError for a damaged file."""
    path = state / "manifest.json"
    if not path.is_file():
        return None
    judged = _load(path).get("judged")
    if not isinstance(judged, dict):
        raise FeedError(f"{path}: is not a manifest; begin again with --overwrite")
    return judged


def _load(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise FeedError(f"{path}: cannot be read ({error}); begin again with --overwrite") from error
    if not isinstance(found, dict):
        raise FeedError(f"{path}: is not a manifest; begin again with --overwrite")
    return found


def _number(text: str) -> float:
    return math.nan if text == "nan" else float(text)
