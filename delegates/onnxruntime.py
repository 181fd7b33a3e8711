"""ONNX Runtime and the onnx package's reference implementation, run in a child process."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from delegates.base import ChildDelegate
from delegates.child import TIME_LIMIT, Child, remove, take_arrays
from delegates.protocol import DelegateRun, Model, Probe, Tensors
from refimpl.errors import DelegateError, DelegateUnavailable, UsageError
from refimpl.graph import Format, Graph
from refimpl.trace import Trace

if TYPE_CHECKING:
    from refimpl.engine import Feeds

WORKER = Path(__file__).with_name("onnx_worker.py")

INTEGER_LANE: Mapping[str, str] = {"session.qdqisint8allowed": "1"}
"""Without it int8 activations stay in float, and exposing an edge undoes the fusion around it."""

PRECISE: Mapping[str, str] = {"session.x64quantprecision": "1"}
"""Avoids saturating sums of uint8 by int8 products on CPUs without VNNI; changes nothing elsewhere."""

NO_FALLBACK: Mapping[str, str] = {"session.disable_cpu_ep_fallback": "1"}


@dataclass(frozen=True)
class OnnxLane:
    """One way of running an ONNX model.

    ``provider`` is an execution provider's name, or empty for the onnx package's reference. ``level``
    names a graph optimization level; ``fuses_qdq`` says that ops between DequantizeLinear and
    QuantizeLinear become integer ops, so that only integer edges may be exposed.
    """

    name: str
    profile: str
    provider: str
    level: str = "ORT_ENABLE_ALL"
    fuses_qdq: bool = False
    entries: Mapping[str, str] = field(default_factory=dict)
    remedy: str = "pip install 'onnxruntime==1.31.*'"


ONNX_LANES = (
    OnnxLane("ort", "ort-1.31", "CPUExecutionProvider", fuses_qdq=True, entries=INTEGER_LANE),
    OnnxLane("ort-exact", "ort-1.31", "CPUExecutionProvider", level="ORT_DISABLE_ALL"),
    OnnxLane(
        "ort-cuda",
        "",
        "CUDAExecutionProvider",
        entries=NO_FALLBACK,
        remedy="pip install onnxruntime-gpu, with an NVIDIA driver, CUDA and cuDNN it was built for",
    ),
    OnnxLane(
        "ort-tensorrt",
        "tensorrt",
        "TensorrtExecutionProvider",
        fuses_qdq=True,
        entries=NO_FALLBACK,
        remedy="pip install onnxruntime-gpu, with an NVIDIA driver, CUDA and TensorRT 10 (libnvinfer.so.10)",
    ),
    OnnxLane("onnx-reference", "onnx-spec", "", remedy="pip install 'onnx>=1.17'"),
)
"""The integer lane, the one that runs the file as it stands, both GPU providers, and the reference."""


@dataclass(frozen=True)
class _Placed:
    """A model where the child finds it: as it is, and with every readable edge an output."""

    about: str
    graph: Graph
    plain: str
    exposed: str
    shown: tuple[int, ...]
    unreadable: Mapping[int, str]
    stamp: tuple[int, ...]


class OnnxDelegate(ChildDelegate):
    """A lane of ONNX Runtime, or onnx.reference.

    ``time_limit`` is in seconds, per request. ``precise`` asks for sums that never saturate
    (``session.x64quantprecision``) on CPUs without VNNI.
    """

    format: Format = "onnx"

    def __init__(self, lane: OnnxLane, time_limit: float = TIME_LIMIT, precise: bool = False) -> None:
        self.lane, self.name, self.profile = lane, lane.name, lane.profile
        self.fuses_qdq = lane.fuses_qdq
        self._child = Child(lane.name, sys.executable, time_limit, WORKER)
        entries = {**lane.entries, **(PRECISE if precise else {})}
        self._request = {"provider": lane.provider, "level": lane.level, "entries": entries}
        self._versions: dict[str, str] | None = None

    def probe(self) -> Probe:
        """What is installed, asked of the child: a library that kills its process is a reason too."""
        library = "onnxruntime" if self.lane.provider else "onnx"
        try:
            answer = self._child.ask("probe", "loading its library", lane=self._request)
        except DelegateError as error:
            reason = str(error).removeprefix(f"{self.name}: ")
            return Probe(False, library, reason=reason, remedy=self.lane.remedy)
        library, version = next(iter(answer["versions"].items()))
        device = self.lane.provider.removesuffix("ExecutionProvider").lower()
        devices = (device,) if device not in ("", "cpu") else ()
        if library.startswith("onnxruntime") and not version.startswith("1.31"):
            note = f"{library} {version} is installed; profile {self.profile} was established on 1.31"
            return Probe(True, library, version, devices, reason=note, remedy=self.lane.remedy)
        return Probe(True, library, version, devices)

    def versions(self) -> Mapping[str, str]:
        """Runtime, Python, NumPy and CPU the child runs on. Raises DelegateUnavailable."""
        if self._versions is None:
            self._versions = dict(self._ask("probe", "loading its library")["versions"])
        return self._versions

    def _ask(self, what: str, about: str, **request: Any) -> dict[str, Any]:
        try:
            return self._child.ask(what, about, lane=self._request, **request)
        except DelegateUnavailable as error:
            raise DelegateUnavailable(f"{error}; {self.lane.remedy}") from None

    def run(
        self,
        model: Model,
        feeds: Feeds,
        *,
        tensors: Tensors = "all",
        threads: int | None = None,
        check_capture: bool = True,
    ) -> DelegateRun:
        """Runs one .onnx model once; see :class:`delegates.protocol.Delegate`.

        With ``tensors="all"`` every edge that can be shown without changing what runs becomes an
        output, and ``check_capture`` runs the model a second time as it is, to show that its outputs
        stay the same. Raises ModelError for a file that cannot be read.
        """
        from refimpl.engine import resolve_feeds

        if threads is not None and threads < 1:
            raise UsageError(f"{threads} threads asked for; at least one is needed")
        versions = self.versions()
        placed = self._place(model, tensors)
        graph = placed.graph
        fed = resolve_feeds(graph, feeds)
        written = {graph.tensors[i].name: self._child.write_feed(fed[i]) for i in graph.inputs}
        wanted = dict.fromkeys((*graph.outputs, *placed.shown))
        twice = check_capture and placed.exposed != placed.plain
        try:
            answer = self._ask(
                "run", placed.about, model=placed.exposed, plain=placed.plain if twice else None,
                stamp=placed.stamp, threads=threads or 1, feeds=written,
                fetch={graph.tensors[i].name: i for i in wanted},
                outputs=[graph.tensors[i].name for i in graph.outputs],
            )  # fmt: skip
        finally:
            remove(list(written.values()))
        read = take_arrays(answer["tensors"])
        values = {**{i: fed[i] for i in graph.inputs}, **read}
        names = {graph.tensors[i].name: i for i in graph.outputs}
        return DelegateRun(
            Trace(self.name, self.profile, dict(sorted(values.items())), versions=versions),
            tuple(values[i] for i in graph.outputs),
            placed.unreadable,
            frozenset(),
            tuple(names[name] for name in answer["capture_changed"]),
        )

    def _place(self, model: Model, tensors: Tensors) -> _Placed:
        """Reads the model, and writes it once more with what is to be shown among its outputs."""
        from export.onnx import read_onnx

        stamp: tuple[int, ...] = ()
        if isinstance(model, bytes):
            digest = hashlib.sha256(model).hexdigest()[:16]
            about = f"model {digest}"
            plain = str(self._child.write_model(digest, model))
        else:
            about, plain = str(model), str(Path(model).resolve())
            try:
                content = Path(model).read_bytes()
                stat = os.stat(plain)
            except OSError as error:
                raise UsageError(f"{model}: {error.strerror}") from None
            digest, stamp = hashlib.sha256(content).hexdigest()[:16], (stat.st_mtime_ns, stat.st_size)
        graph = read_onnx(model)
        if tensors == "outputs":
            return _Placed(about, graph, plain, plain, (), {}, stamp)
        shown, unreadable = self._edges(graph)
        if not shown:
            return _Placed(about, graph, plain, plain, (), unreadable, stamp)
        exposed = str(self._child.write_model(f"{digest}-exposed", expose(model, graph, shown)))
        return _Placed(about, graph, plain, exposed, shown, unreadable, stamp)

    def _edges(self, graph: Graph) -> tuple[tuple[int, ...], dict[int, str]]:
        """Edges to be shown, and why the others are not."""
        written = [index for layer in graph.layers for index in layer.outputs if index not in graph.outputs]
        if not self.lane.fuses_qdq:
            return tuple(written), {}
        hidden = {i for i in written if graph.tensors[i].dtype in ("float32", "float16", "float64")}
        reason = "showing a float edge would undo the fusion around it"
        return tuple(i for i in written if i not in hidden), dict.fromkeys(sorted(hidden), reason)


def expose(model: Model, graph: Graph, shown: Iterable[int]) -> bytes:
    """The model with tensors ``shown`` of ``graph``, its reading, among its outputs.

    Values it keeps in other files come with it. Raises UsageError when the onnx package is missing.
    """
    from export.onnx.package import import_onnx
    from export.onnx.schema import TYPE_CODES

    onnx = import_onnx()
    proto = onnx.load_from_string(model) if isinstance(model, bytes) else onnx.load(os.fspath(model))
    for index in shown:
        tensor = graph.tensors[index]
        proto.graph.output.append(
            onnx.helper.make_tensor_value_info(tensor.name, TYPE_CODES[tensor.dtype], tensor.shape)
        )
    return bytes(proto.SerializeToString(deterministic=True))
