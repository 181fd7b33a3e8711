"""A device that nothing here can start: models and inputs wait in a folder for the outputs it gives."""

from __future__ import annotations

import hashlib
import platform
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from karat24.delegates.by_files import ByFiles, write_inputs
from karat24.delegates.fitting import Fit
from karat24.delegates.protocol import Model, Probe, Tensors
from karat24.refimpl.errors import DelegateError, UsageError
from karat24.refimpl.graph import Array, Format, Graph


class FolderDelegate(ByFiles):
    """Runs, each in a folder of its own below ``folder``: ``model.tflite`` (or ``.onnx``), ``inputs`` and
    ``outputs``.

    A run that was not asked for before is written, and waits: it ends with DelegateError until ``outputs``
    holds ``output_0.npy`` and so on. Its folder is named by a digest of model and inputs, so that outputs of
    other inputs, or of another model, are never taken for its own. ``profile`` is the arithmetic the device
    is held to; nothing says which one it is.
    """

    def __init__(self, folder: Path, format: Format, profile: str = "") -> None:
        if folder.exists() and not folder.is_dir():
            raise UsageError(f"{folder} is not a folder")
        self.folder = folder
        self.name, self.format, self.profile = f"folder {folder.name}", format, profile
        self.fit = Fit(profile)
        self.waiting: set[str] = set()

    def probe(self) -> Probe:
        """A folder is always there; whoever runs the models knows the version."""
        return Probe(True, self.name)

    def versions(self) -> Mapping[str, str]:
        """The versions of this machine only."""
        return {self.name: "unknown", "machine": platform.machine()}

    def _computed(
        self, model: Model, graph: Graph, fed: Mapping[int, Array], tensors: Tensors
    ) -> dict[int, Array]:
        content = model if isinstance(model, bytes) else model.read_bytes()
        digest = hashlib.sha256(content)
        for index in graph.inputs:
            digest.update(repr((fed[index].dtype.str, fed[index].shape)).encode() + fed[index].tobytes())
        place = self.folder / digest.hexdigest()[:16]
        if not place.exists():
            self._write(place, content, graph, fed)
        written = self.read_outputs(graph, place / "outputs", tensors)
        if not written:
            self.waiting.add(place.name)
            raise DelegateError(f"{self.name}: {place.name} waits for the device's outputs")
        return written

    def _write(self, place: Path, content: bytes, graph: Graph, fed: Mapping[int, Array]) -> None:
        """All or nothing, so that no half of a run is ever taken for one."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            scratch = Path(tempfile.mkdtemp(prefix=".writing-", dir=self.folder))
            try:
                (scratch / f"model.{self.format}").write_bytes(content)
                write_inputs(scratch / "inputs", graph, fed)
                (scratch / "outputs").mkdir()
                scratch.chmod(0o755)
                scratch.rename(place)
            finally:
                shutil.rmtree(scratch, ignore_errors=True)
        except OSError as error:
            raise UsageError(f"{self.folder}: {error.strerror}") from None
