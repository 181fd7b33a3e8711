"""TensorRT, and TensorRT for RTX: engines built from .onnx files, proved, and run where there is a GPU.

Networks are strongly typed: an engine computes in the data types its file names, so a float file gives
a float engine, a half-precision file a half-precision one, and int8 needs QuantizeLinear and
DequantizeLinear around each convolution (``karat24 export --flavour tensorrt``).

Building and proving were run with TensorRT for RTX 1.7.1 on machines without GPU or driver. Running an
engine, and the module ``tensorrt`` (10 and 11), have not been run so far.
"""

from __future__ import annotations

import importlib
import os
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from karat24.delegates.child import TIME_LIMIT, Child
from karat24.delegates.onnx_lanes import OnnxLane
from karat24.delegates.onnxruntime import OnnxDelegate
from karat24.delegates.protocol import Model, Probe
from karat24.delegates.tensorrt_report import BuiltLayer, ConvolutionProof, judge, parse_layers
from karat24.delegates.workers import TENSORRT_WORKER
from karat24.refimpl.errors import DelegateError, DelegateUnavailable, ModelError, UsageError
from karat24.refimpl.graph import Graph

LIBRARY_REMEDY = "pip install 'karat24[tensorrt]' (Linux x86-64), or NVIDIA's tensorrt 10 or 11"
DRIVER_REMEDY = (
    "an NVIDIA GPU with its driver runs engines; `karat24 prove` builds and examines them without either"
)
TENSORRT_LANE = OnnxLane("tensorrt", "tensorrt", "tensorrt", layers="predicted", remedy=LIBRARY_REMEDY)

MODULES = ("tensorrt", "tensorrt_rtx", "tensorrt_rtx_bindings")
"""Python modules that are TensorRT, in order of preference; without a driver, the first comes last."""

CONVOLUTIONS = ("Conv", "ConvTranspose")

_PLAIN_NAME = re.compile(r"[^\[\]{},\s]+")


@dataclass(frozen=True)
class EngineProof:
    """What the builder made of a model.

    ``versions`` starts with the library. ``engine_bytes`` and ``engine_sha256`` tell engines apart:
    a model built again by the same library for the same target gives the same bytes where nothing is
    timed, as without a GPU.
    """

    versions: dict[str, str]
    engine_bytes: int
    engine_sha256: str
    convolutions: tuple[ConvolutionProof, ...]
    layers: tuple[BuiltLayer, ...]

    @property
    def all_int8(self) -> bool:
        """Whether there are convolutions and each multiplies int8 by int8."""
        return bool(self.convolutions) and all(found.verdict == "int8" for found in self.convolutions)


class TensorrtDelegate(OnnxDelegate):
    """TensorRT in a child process. ``time_limit`` is in seconds, per request; building counts."""

    def __init__(self, time_limit: float = TIME_LIMIT) -> None:
        super().__init__(TENSORRT_LANE, time_limit)
        self._child = Child(self.name, time_limit=time_limit, worker=TENSORRT_WORKER)
        self._request: dict[str, Any] = {"modules": MODULES}

    def probe(self) -> Probe:
        """What is installed: the library, its driver, its devices. Without a device nothing runs."""
        try:
            answer = self._child.ask("probe", "loading its library", lane=self._request)
        except DelegateError as error:
            reason = str(error).removeprefix(f"{self.name}: ")
            return Probe(False, "tensorrt", reason=reason, remedy=self._remedy)
        library, version = next(iter(answer["versions"].items()))
        if answer["missing"]:
            reason = f"{library} {version} is installed, but {answer['missing']}"
            return Probe(False, library, version, reason=reason, remedy=DRIVER_REMEDY)
        return Probe(True, library, version, tuple(answer["devices"]))

    def _ask(self, what: str, about: str, **request: Any) -> dict[str, Any]:
        try:
            return self._child.ask(what, about, lane=self._request, **request)
        except DelegateUnavailable as error:
            no_library = not self._is_there()
            raise DelegateUnavailable(f"{error}; {LIBRARY_REMEDY if no_library else DRIVER_REMEDY}") from None

    def _is_there(self) -> bool:
        try:
            self._child.ask("probe", "loading its library", lane=self._request)
        except DelegateError:
            return False
        return True

    def prove(self, model: Model) -> EngineProof:
        """Builds an engine and says which arithmetic each convolution got. Needs no GPU and no driver.

        Raises ModelError for a file without convolutions, one that cannot be read, and one TensorRT
        refuses; DelegateUnavailable, DelegateCrashed, DelegateTimeout; and DelegateError when the
        builder gives no report that can be read.
        """
        named, convolutions = with_named_convolutions(model)
        about = "the model" if isinstance(model, bytes) else str(model)
        if not convolutions:
            raise ModelError(f"{about} has no convolution (Conv, ConvTranspose): there is nothing to prove")
        versions = self.versions()
        path = self._child.write_model("proof", named)
        try:
            answer = self._ask("prove", about, model=str(path))
        finally:
            self._child.stop()  # its builder's log and memory; and the file's name is free again
        if "refused" in answer:
            raise ModelError(f"{about}: {answer['refused']}{_advice(answer['refused'])}")
        layers = parse_layers(answer["report"])
        if not layers:
            raise DelegateError(
                f"{self.name}: {about}: the builder's report names no layer; nothing is proved"
            )
        proofs = judge(convolutions, layers)
        return EngineProof(dict(versions), answer["engine_bytes"], answer["engine_sha256"], proofs, layers)

    def __enter__(self) -> TensorrtDelegate:
        return self

    def _edges(self, graph: Graph) -> tuple[tuple[int, ...], dict[int, str]]:
        """Outputs of QuantizeLinear: marking one keeps the convolution before it in int8."""
        shown, unreadable = [], {}
        for view in graph.views():
            for index in view.layer.outputs:
                if index in graph.outputs:
                    continue
                if view.op == "QuantizeLinear":
                    shown.append(index)
                else:
                    unreadable[index] = (
                        "showing an edge that is not quantized would undo the fusion around it"
                    )
        return tuple(shown), unreadable


def _advice(refusal: str) -> str:
    if "quantizelinear" not in refusal.lower():
        return ""
    return (
        "; TensorRT takes symmetric int8 with a zero point of 0 and a float bias: quantize with the scheme "
        "'int8-symmetric' and export with --flavour tensorrt"
    )


def with_named_convolutions(model: Model) -> tuple[bytes, dict[str, str]]:
    """The .onnx file with a name of its own on every node, and its convolutions' names and op types.

    The builder's report knows nodes by name only: names that are missing, not unique, or hold what the
    report is punctuated with are replaced. Local functions are inlined, values in other files included.
    Raises UsageError for a path that cannot be read and without the onnx package, ModelError for a file that
    is not ONNX.
    """
    from karat24.export.onnx.package import import_onnx

    onnx = import_onnx()
    try:
        proto = onnx.load_from_string(model) if isinstance(model, bytes) else onnx.load(os.fspath(model))
    except OSError as error:
        raise UsageError(f"{'the model' if isinstance(model, bytes) else model}: {error.strerror}") from None
    except Exception as error:  # noqa: BLE001 - protobuf's errors have no common base across its versions
        about = "the model" if isinstance(model, bytes) else model
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ModelError(f"{about}: not an ONNX file that can be read whole: {reason}") from None
    if proto.functions:
        proto = importlib.import_module("onnx.inliner").inline_local_functions(proto)
    nodes = list(_nodes(proto.graph))
    uses = Counter(node.name for node in nodes)
    for number, node in enumerate(nodes):
        if uses[node.name] > 1 or not _PLAIN_NAME.fullmatch(node.name):
            name = f"node{number}.{node.op_type}"
            while name in uses:
                name += "_"
            node.name = name
            uses[name] += 1
    convolutions = {node.name: node.op_type for node in nodes if node.op_type in CONVOLUTIONS}
    return bytes(proto.SerializeToString(deterministic=True)), convolutions


def _nodes(graph: Any) -> Iterator[Any]:
    """A graph's nodes, and those of the graphs inside them."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                yield from _nodes(inner)
