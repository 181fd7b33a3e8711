"""What Google's Edge TPU compiler prints, as data."""

from __future__ import annotations

import re
from dataclasses import dataclass

MAPPED = "Mapped to Edge TPU"

_ROW = re.compile(r"^(\S+)[ \t]+(\d+)[ \t]+(\S.*?)[ \t]*$", re.MULTILINE)
_FACT = re.compile(r"^([A-Z][^:\n]{3,80}): *(\d+(?:\.\d+)?) ?(B|KiB|MiB|GiB)?[ \t]*$", re.MULTILINE)
_VERSION = re.compile(r"^Edge TPU Compiler version (\S+)", re.MULTILINE)
_UNITS = {"": 1, "B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}

SUCCESS = ("Model compiled successfully", "Model successfully compiled", "Compilation succeeded")

CAUSES = (
    ("Model not quantized", "quantize the model to 8 bits first (karat24 quantize, or --target edgetpu)"),
    (
        "large activation tensors",
        "an intermediate image is too large for the device: compile the model at a smaller size, and run "
        "images tile by tile",
    ),
    ("dynamic-sized tensors", "export the model with a fixed shape for every input"),
    ("did not complete within timeout", "give the compiler more time, or the model in fewer layers"),
    (
        "Model failed in Tflite interpreter",
        "the compiler's own TFLite cannot load the file; write it with older op versions",
    ),
    (
        "Internal compiler error",
        "the compiler gives no reason; karat24 check-edgetpu may, and cutting the model "
        "(karat24 export --layer) shows at which layer it fails",
    ),
    ("Invalid model", "the compiler cannot read this file; is it a .tflite?"),
)
"""Words of a failure, and what a user can do about it."""


@dataclass(frozen=True)
class OpStatus:
    """One row of the compiler's table: how many layers of an op have one status."""

    op: str
    count: int
    status: str

    @property
    def mapped(self) -> bool:
        """Whether these run on the device."""
        return self.status == MAPPED


@dataclass(frozen=True)
class CompilerLog:
    """``facts`` holds numbers by the compiler's own words; sizes are in bytes."""

    version: str
    operations: tuple[OpStatus, ...]
    facts: dict[str, int]
    failure: str

    @property
    def mapped(self) -> int:
        """Layers on the device."""
        return sum(row.count for row in self.operations if row.mapped)

    @property
    def left(self) -> int:
        """Layers on the CPU."""
        return sum(row.count for row in self.operations if not row.mapped)


def parse_log(text: str) -> CompilerLog:
    """The compiler's version, table, figures, and why it failed ("" where it did not).

    Text without any of these gives an empty log.
    """
    version = _VERSION.search(text)
    rows = tuple(OpStatus(op, int(count), status) for op, count, status in _ROW.findall(text) if op.isupper())
    facts = {name: round(float(value) * _UNITS[unit]) for name, value, unit in _FACT.findall(text)}
    return CompilerLog(version[1] if version else "", rows, facts, _failure(text))


def _failure(text: str) -> str:
    """The compiler's words, and what to do; its exit status does not always tell.

    A failure before the last success is one of --search_delegate's attempts.
    """
    text = text[max(text.rfind(words) for words in SUCCESS) + 1 :]
    for words, remedy in CAUSES:
        line = next((line.strip() for line in text.splitlines() if words in line), None)
        if line is not None:
            return f"{line.rstrip('!. ')}: {remedy}"
    line = next((line.strip() for line in text.splitlines() if "failed" in line.lower()), "")
    return line.rstrip("!. ")
