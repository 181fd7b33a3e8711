"""A device without the device: a compiler that knows some models, a libedgetpu that knows their answers."""

from __future__ import annotations

import hashlib
import os
import struct
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from karat24.delegates.edgetpu import EDGETPU_DEVICE, EDGETPU_LIBRARY
from karat24.delegates.edgetpu_compiler import EDGETPU_COMPILER
from karat24.export.tflite import read_tflite, write_tflite
from karat24.golden.bisect import Part, first_layers, one_layer
from karat24.refimpl.engine import compile_graph
from karat24.refimpl.graph import Array
from tests.support.edgetpu_chain import chain
from tests.support.edgetpu_fake import BEHAVIOUR, build
from tests.support.edgetpu_standin import compiled

ANSWERS = "FAKE_EDGETPU_ANSWERS"

PROGRAM = """#!{python}
import hashlib, os, sys
content = open(sys.argv[-1], "rb").read()
digest = hashlib.sha256(content).hexdigest()
with open(os.path.join({folder!r}, "asked"), "a") as asked:
    asked.write(digest + "\\n")
path = os.path.join({folder!r}, digest)
if not os.path.exists(path):
    print("Internal compiler error. Aborting!")
    sys.exit(1)
with open(path, "rb") as known:
    content = known.read()
with open(os.path.join(sys.argv[sys.argv.index("--out_dir") + 1], "model_edgetpu.tflite"), "wb") as made:
    made.write(content)
print("Model compiled successfully in 1 ms.")
"""


class Device:
    """The chain of ``edgetpu_chain``, compiled whole, in first layers and layer by layer, and a device that
    gives what profile ``edgetpu`` says, but for what a test tells it to do."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        if os.name != "posix":
            pytest.skip("the stand-in compiler is a script with a first line that names its interpreter")
        self.folder, self._patch = folder, monkeypatch
        self.path, self.image = folder / "chain.tflite", folder / "image.npy"
        self.path.write_bytes(write_tflite(chain(channels=(6, 5, 10))))
        graph = read_tflite(self.path)
        self.layers = len(graph.layers)
        np.save(self.image, np.arange(48, dtype=np.int8).reshape(1, 4, 4, 3))
        program = compile_graph(graph, "edgetpu", implementation="spec")
        trace = program.run([np.load(self.image)], True).trace
        assert trace is not None
        self.parts = [one_layer(graph, trace, layer) for layer in range(self.layers)]
        self.parts += [first_layers(graph, trace, count) for count in range(1, self.layers + 1)]
        for part in self.parts:
            self._known(part.model).write_bytes(compiled(read_tflite(part.model)))
        self._known(self.path.read_bytes()).write_bytes(compiled(graph))
        compiler = folder / "edgetpu_compiler"
        compiler.write_text(PROGRAM.format(python=sys.executable, folder=str(folder)))
        compiler.chmod(0o755)
        monkeypatch.setenv(EDGETPU_COMPILER, str(compiler))
        monkeypatch.setenv(EDGETPU_LIBRARY, str(build(folder)))
        monkeypatch.setenv(ANSWERS, str(folder / "answers"))
        monkeypatch.delenv(EDGETPU_DEVICE, raising=False)
        self.does({})

    def _known(self, model: bytes) -> Path:
        return self.folder / hashlib.sha256(model).hexdigest()

    def does(self, wrong: Mapping[str, str]) -> None:
        """``wrong`` maps names of parts ("layer 1", "first 2 layers") to what happens with them: "lost",
        "crashes", "hangs", or "off by one" in one value."""
        content = b""
        for part in sorted(self.parts, key=lambda part: part.name not in wrong):
            (given,), ((name, values),) = part.inputs.values(), part.expected.items()
            how = wrong.get(part.name, "")
            made = _off_by_one(values) if how == "off by one" else values
            fields = [how.encode(), name.encode(), given.tobytes(), made.tobytes()]
            content += struct.pack("<4I", *map(len, fields)) + b"".join(fields)
        (self.folder / "answers").write_bytes(content)

    def cannot_compile(self, part: str) -> None:
        """The compiler fails on a part of this name."""
        self._known(self.part(part).model).unlink()

    def is_old(self) -> None:
        """The library is of a version before the one the models need."""
        self._patch.setenv(BEHAVIOUR, "old")

    def part(self, name: str) -> Part:
        return next(part for part in self.parts if part.name == name)

    @property
    def compiled(self) -> list[str]:
        """A digest for each time the compiler was run."""
        return (self.folder / "asked").read_text().split()


def _off_by_one(values: Array) -> Array:
    changed = values.copy()
    changed.reshape(-1)[3] ^= 1
    return changed
