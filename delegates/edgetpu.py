"""The Edge TPU through libedgetpu, in whichever TFLite runtime is there."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from karat24.delegates.child import TIME_LIMIT
from karat24.delegates.edgetpu_compiler import compile_model
from karat24.delegates.protocol import DelegateRun, Model, Probe, Tensors
from karat24.delegates.tflite import TfliteDelegate, TfliteLane
from karat24.export.edgetpu import compiled_from, is_compiled
from karat24.export.tflite import read_tflite
from karat24.refimpl.errors import DelegateError, DelegateUnavailable, UsageError
from karat24.refimpl.graph import Array

if TYPE_CHECKING:
    from karat24.refimpl.engine import Feeds

EDGETPU_LIBRARY = "KARAT24_EDGETPU_LIBRARY"
"""Environment variable naming the library where the loader does not find it by itself."""

EDGETPU_DEVICE = "KARAT24_EDGETPU_DEVICE"
"""Environment variable choosing one of several accelerators."""

DEVICES = re.compile(r"(usb|pci)?(:\d+)?")
"""``usb:0``, ``pci``, ``:1`` or nothing, as libedgetpu's option ``device`` takes it."""

RUNTIME = re.compile(r"RuntimeVersion\((\d+)\)")

NO_DEVICE = (
    "plug the accelerator in (lsusb shows 1a6e:089a or 18d1:9302, lspci 1ac1:089a) and check that your user "
    "may open it (group plugdev or apex, or the udev rules of libedgetpu)"
)

FOREIGN_PYCORAL = (
    "the package pycoral installed here is another project's, about coral reefs: Google's is not on PyPI and "
    "is not needed"
)


class EdgeTpuDelegate(TfliteDelegate):
    """Compiled models on an Edge TPU, in a child process.

    ``device`` chooses one: ``usb``, ``pci``, ``usb:1``, ``:0``; "" takes the first. Without it
    :data:`EDGETPU_DEVICE` decides. Raises UsageError for any other: libedgetpu itself gives the same
    message for a wrong name as for no device.
    """

    def __init__(self, lane: TfliteLane, time_limit: float = TIME_LIMIT, device: str | None = None) -> None:
        super().__init__(lane, time_limit)
        chosen = os.environ.get(EDGETPU_DEVICE, "") if device is None else device
        if not DEVICES.fullmatch(chosen):
            raise UsageError(f"no Edge TPU is called {chosen!r}; name usb, pci, usb:N, pci:N, :N or nothing")
        self._made: dict[bytes, bytes] = {}
        self._request |= {"device": chosen, "library": os.environ.get(EDGETPU_LIBRARY)}

    def probe(self) -> Probe:
        """Library version and devices, asked of the child: a library that kills it is a reason too."""
        try:
            answer = self._child.ask("probe", "loading its library", lane=self._request)
        except DelegateError as error:
            reason = str(error).removeprefix(f"{self.name}: ")
            return Probe(False, "libedgetpu", reason=reason, remedy=self._remedy)
        found = answer["edgetpu"]
        devices = tuple(found["devices"])
        notes = [FOREIGN_PYCORAL] if found["foreign_pycoral"] else []
        if not devices:
            notes.insert(0, "the library is there but lists no Edge TPU")
        elif not _is_listed(self._request["device"], devices):
            notes.insert(
                0, f"no Edge TPU answers to {self._request['device']!r}; here are {', '.join(devices)}"
            )
        else:
            return Probe(True, "libedgetpu", found["version"], devices, "; ".join(notes))
        return Probe(False, "libedgetpu", found["version"], devices, "; ".join(notes), NO_DEVICE)

    def versions(self) -> Mapping[str, str]:
        """Runtime, Python, NumPy, CPU and libedgetpu. Raises DelegateUnavailable."""
        if self._versions is None:
            answer = self._ask("probe", "loading its library")
            self._versions = {**answer["versions"], "libedgetpu": answer["edgetpu"]["version"]}
        return self._versions

    def run(
        self,
        model: Model,
        feeds: Feeds,
        *,
        tensors: Tensors = "all",
        threads: int | None = None,
        check_capture: bool = False,
        first: bool = True,
    ) -> DelegateRun:
        """Runs a model once; of a compiled model only its outputs can be read.

        A model that is not compiled is compiled first, where the compiler is installed. Raises
        DelegateUnavailable where it is not, or the library is older than the model needs, and DelegateError
        where nothing of the model would run on the device, beside what every delegate raises.
        """
        compiled = self._fitting(model)
        return super().run(
            compiled, feeds, tensors=tensors, threads=threads, check_capture=check_capture, first=first
        )

    def run_in_sequence(self, *_: Any, **__: Any) -> DelegateRun:
        """Raises UsageError: what becomes of variables of a compiled model between runs, nobody has seen."""
        raise UsageError(
            f"{self.name} is not known to keep variables from run to run; leave out --keep-state"
        )

    def run_tiles(self, model: Model, tiles: Array, threads: int | None = None) -> tuple[Array, float]:
        """Tiles one after the other; compiles and refuses as :meth:`run` does."""
        return super().run_tiles(self._fitting(model), tiles, threads)

    def _fitting(self, model: Model) -> Model:
        """The model, compiled, for a library new enough for it."""
        version = self.versions()["libedgetpu"]
        compiled = self._compiled(model)
        needed = max(op.package.min_runtime_version for op in compiled_from(read_tflite(compiled)).ops)
        known = RUNTIME.search(version)
        if known is not None and int(known[1]) < needed:
            raise DelegateUnavailable(
                f"{self.name}: the model needs Edge TPU runtime {needed}, and {version} is {known[1]}: "
                f"install a newer libedgetpu, or compile with karat24 compile --min-runtime {known[1]}"
            )
        return compiled

    def _compiled(self, model: Model) -> Model:
        """The model itself, or what the compiler makes of it, once: the layers of a model are run again
        for every sample."""
        if is_compiled(read_tflite(model)):
            return model
        content = model if isinstance(model, bytes) else Path(model).read_bytes()
        digest = hashlib.sha256(content).digest()
        if digest not in self._made:
            made = compile_model(content, time_limit=self._child.time_limit).files[0]
            if not is_compiled(read_tflite(made)):
                raise DelegateError(f"{self.name}: the compiler leaves all of the model on the CPU")
            self._made[digest] = made
        return self._made[digest]


def _is_listed(chosen: str, devices: tuple[str, ...]) -> bool:
    """Whether ``usb:1`` and the like is one of ``usb PATH``, ``pci PATH``."""
    bus, _, number = chosen.partition(":")
    return int(number or 0) < sum(device.startswith(bus) for device in devices)
