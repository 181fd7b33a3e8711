"""What a golden holds: where it comes from, and one record per tensor that a layer writes."""

from __future__ import annotations

import html
from collections.abc import Mapping
from dataclasses import dataclass, field

VERSION = 1
"""The format that is written. ``text.READERS`` lists the versions that can be read."""

ORACLE = "oracle"
"""The name of the producer whose values can be computed again anywhere."""


@dataclass(frozen=True)
class ModelReference:
    """The model file: its path seen from the golden's folder, with slashes, and the SHA-256 of its bytes."""

    path: str
    sha256: str


@dataclass(frozen=True)
class InputReference:
    """What was fed: the recipe, and the SHA-256 of the values (``golden.provenance.feeds_digest``).

    ``seed`` is that of random values; with ``files``, whose paths are seen from the golden's folder, it is
    None. ``low`` and ``high`` are the values in the files that the input's whole range stands for, if given.
    """

    sha256: str
    seed: int | None = None
    files: tuple[str, ...] = ()
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Producer:
    """The program that computed the values.

    ``name`` is ``oracle`` or a delegate's name. ``runtime`` is the delegate's library and version, '' for the
    oracle, whose bits depend on the profile alone. ``machine`` is filled only where bits may depend on the
    processor: for a runtime that no profile describes, and for layers of the oracle that no document fixes.
    """

    name: str
    runtime: str = ""
    machine: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class GoldenTensor:
    """One tensor that a layer writes.

    ``scale`` and ``zero_point`` have one entry, or one per channel, or none. ``sha256`` is that of the
    values' bytes (C order, little endian), '' where nothing could be read; ``note`` then says why.
    ``saturated`` counts values at the lowest and the highest integer of an 8- or 16-bit type. ``ties`` counts
    accumulators whose real result lies exactly between two integers, None where the layer has none.
    ``fixed`` is False where the bits depend on the machine.
    """

    layer: int
    op: str
    tensor: int
    name: str
    dtype: str
    shape: tuple[int, ...]
    scale: tuple[float, ...] = ()
    zero_point: tuple[int, ...] = ()
    sha256: str = ""
    saturated: tuple[int, int] | None = None
    ties: int | None = None
    fixed: bool = True
    note: str = ""


@dataclass(frozen=True)
class Golden:
    """One case: a model, an input, an arithmetic, and what they give.

    ``outputs`` are the model's own, by tensor index with their SHA-256: of a run that no inner tensor was
    read from. ``arrays`` names the .npz file beside the golden that holds values, '' where there is none.
    ``recorded_by`` is the version of karat24 that wrote the golden; nothing is compared with it.
    """

    model: ModelReference
    input: InputReference
    profile: str
    producer: Producer
    tensors: tuple[GoldenTensor, ...]
    outputs: Mapping[int, str]
    arrays: str = ""
    recorded_by: str = ""
    version: int = VERSION

    @property
    def from_oracle(self) -> bool:
        """Whether the values can be computed again wherever karat24 runs."""
        return self.producer.name == ORACLE

    def table(self) -> str:
        """The golden as a table for people: where it comes from, then a line per tensor."""
        source = f"seed {self.input.seed}" if self.input.seed is not None else ", ".join(self.input.files)
        lines = [
            f"model     {self.model.path}  sha256 {self.model.sha256[:16]}",
            f"input     {source or 'given values'}  sha256 {self.input.sha256[:16]}",
            f"profile   {self.profile or 'none'}",
            f"producer  {' '.join(filter(None, (self.producer.name, self.producer.runtime)))}",
            "",
        ]
        rows: list[tuple[str, ...]] = [
            ("layer", "op", "output", "type", "shape", "saturated", "ties", "sha256")
        ]
        rows += [_row(tensor) for tensor in self.tensors]
        widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
        lines += ["  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in rows]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        """The table, in a notebook."""
        return f"<pre>{html.escape(self.table())}</pre>"


def _row(tensor: GoldenTensor) -> tuple[str, ...]:
    name = tensor.name if len(tensor.name) <= 32 else "…" + tensor.name[-31:]
    return (
        str(tensor.layer), tensor.op, name, tensor.dtype, "×".join(map(str, tensor.shape)) or "scalar",
        "-" if tensor.saturated is None else f"{tensor.saturated[0]}/{tensor.saturated[1]}",
        "-" if tensor.ties is None else str(tensor.ties),
        tensor.sha256[:16] or f"none: {tensor.note}",
    )  # fmt: skip
