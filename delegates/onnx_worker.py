"""The child process: runs ONNX Runtime, or the onnx package's reference, and answers over a pipe.

Runs as a script beside ``worker.py`` and ``answering.py``, whose protocol it speaks, and imports
nothing else of this project. What to fetch is asked for by name; names become tensor indices in the
parent.

    python onnx_worker.py SCRATCH_DIR
"""

from __future__ import annotations

import collections
import json
import os
import platform
import sys
from importlib import metadata
from typing import Any

import numpy as np
from answering import Refused, first_line, serve
from worker import cpu

sys.path.pop(0)  # this folder, where onnxruntime.py is not the runtime

SMALL_MODEL = bytes.fromhex(
    "08083a370a100a017812017922084964656e746974791201675a0f0a0178120a0a08080112040a020801620f0a0179"
    "120a0a08080112040a02080142040a001011"
)
"""A float32 Identity of one value: a provider that cannot load it cannot load anything."""


class Lane:
    """One way of running an ONNX model: provider, optimization level and options."""

    def __init__(self, request: dict[str, Any]) -> None:
        self.request = request
        self.distribution, self.version = "", ""
        try:
            if request["provider"]:
                import onnxruntime as module
            else:
                import onnx.reference as module
        except Exception as error:  # noqa: BLE001 - a broken library raises whatever it likes
            raise Refused("unavailable", f"{type(error).__name__}: {first_line(error)}") from None
        self.module: Any = module
        candidates = ["onnxruntime-gpu", "onnxruntime"] if request["provider"] else ["onnx"]
        for name in candidates:
            try:
                self.distribution, self.version = name, metadata.version(name)
                break
            except metadata.PackageNotFoundError:
                self.distribution, self.version = name, str(getattr(module, "__version__", "unknown"))

    def session(self, model: str | bytes, threads: int, level: str = "", written_to: str = "") -> Any:
        """Something with ``run(names, feeds)``. Never falls back to another provider.

        ``level`` takes the place of the lane's; ``written_to`` is where the optimized model goes.
        """
        if not self.request["provider"]:
            return self.module.ReferenceEvaluator(model, new_ops=older_operators(model))
        provider = self.request["provider"]
        present = self.module.get_available_providers()
        if provider not in present:
            raise Refused(
                "unavailable", f"{self.distribution} {self.version} has {', '.join(present)}, not {provider}"
            )
        options = self.module.SessionOptions()
        options.graph_optimization_level = getattr(
            self.module.GraphOptimizationLevel, level or self.request["level"]
        )
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        options.log_severity_level = 3
        if written_to:
            options.optimized_model_filepath = written_to
        for key, value in self.request["entries"].items():
            options.add_session_config_entry(key, value)
        try:
            session = self.module.InferenceSession(model, options, providers=[provider])
        except Exception as error:
            if "fallback" in str(error).lower():
                reason = f"{provider} leaves nodes of this model to the CPU: {first_line(error)}"
                raise Refused("error", reason) from None
            raise
        if session.get_providers()[0] != provider:
            reason = f"{provider} is listed but does not load; its driver or libraries are missing"
            raise Refused("unavailable", reason)
        return session

    def versions(self) -> dict[str, str]:
        """The runtime first, then all that its results may depend on."""
        return {
            self.distribution: self.version,
            "python": platform.python_version(),
            "numpy": np.__version__,
            "machine": platform.machine(),
            **cpu(),
        }


def older_operators(model: str | bytes) -> list[type]:
    """What the reference lacks of ``model``'s operator set: it has DequantizeLinear from 19 on only.

    The one of 13 to 18 is the same function with fewer types and attributes. The evaluator hands what is
    registered by name the attributes of the newest, hence the newest class.
    """
    import onnx
    from onnx.reference.ops import op_dequantize_linear as module

    loaded = onnx.load_from_string(model) if isinstance(model, bytes) else onnx.load(model)
    versions = [entry.version for entry in loaded.opset_import if entry.domain in ("", "ai.onnx")]
    known = {
        int(name.rpartition("_")[2]): found
        for name, found in vars(module).items()
        if name.startswith("DequantizeLinear_")
    }
    if not versions or not known or versions[0] >= min(known):
        return []
    return [type("DequantizeLinear", (known[max(known)],), {"op_domain": ""})]


class Worker:
    """Answers requests; keeps the last sessions, since samples come one after another."""

    def __init__(self, scratch: str) -> None:
        self.scratch = scratch
        self.lanes: dict[str, Lane] = {}
        self.sessions: collections.OrderedDict[str, Any] = collections.OrderedDict()

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """The answer to any request. Raises Refused, or whatever the runtime raises."""
        if request["ask"] == "run":
            return self.run(request)
        if request["ask"] == "optimize":
            return self.optimize(request)
        if request["ask"] == "edges":
            return self.edges(request)
        lane = self.lane(request["lane"])
        if lane.request["provider"]:
            lane.session(SMALL_MODEL, 1)
        return {"versions": lane.versions()}

    def lane(self, request: dict[str, Any]) -> Lane:
        """The lane a request names, imported once."""
        key = json.dumps(request, sort_keys=True)
        if key not in self.lanes:
            self.lanes[key] = Lane(request)
        return self.lanes[key]

    def optimize(self, request: dict[str, Any]) -> dict[str, Any]:
        """Has the runtime write the model it makes of ``model`` at ``level``."""
        path = os.path.join(self.scratch, f"{request['id']}.optimized.onnx")
        self.lane(request["lane"]).session(request["model"], 1, request["level"], path)
        return {"optimized": path}

    def edges(self, request: dict[str, Any]) -> dict[str, Any]:
        """Name, type and sizes of every output of ``model``, as the runtime works them out."""
        found = self.session(request, request["model"], request["level"]).get_outputs()
        return {"edges": [(edge.name, edge.type, edge.shape) for edge in found]}

    def session(self, request: dict[str, Any], model: str, level: str = "") -> Any:
        """A session for ``model``, the one used before if nothing changed."""
        key = json.dumps(
            [request["lane"], model, level, request["stamp"], request["threads"]], sort_keys=True
        )
        found = self.sessions.pop(key, None)
        if found is None:
            while len(self.sessions) > 1:
                self.sessions.popitem(last=False)
            lane, threads = self.lane(request["lane"]), request["threads"]
            found = lane.session(model, threads, level) if level else lane.session(model, threads)
        self.sessions[key] = found
        return found

    def run(self, request: dict[str, Any]) -> dict[str, Any]:
        """Feeds, runs, and saves what was asked for.

        ``model``, run at ``level`` where one is given, gives every tensor of ``fetch``; ``plain``, when
        given, is the model as it was, and must give the same ``outputs``: those that differ are
        ``capture_changed``, and the values answered are those of ``plain``.
        """
        feeds = {name: np.load(path) for name, path in request["feeds"].items()}
        wanted = list(request["fetch"])
        found = self._values(request, request["model"], wanted, feeds, request.get("level", ""))
        changed = []
        if request["plain"] is not None:
            again = self._values(request, request["plain"], request["outputs"], feeds)
            changed = [name for name in request["outputs"] if not same(found[name], again[name])]
            found.update(again)
        paths = {}
        for number, name in enumerate(wanted):
            path = os.path.join(self.scratch, f"{request['id']}.{number}.npy")
            np.save(path, np.asarray(found[name]))
            paths[request["fetch"][name]] = path
        return {"tensors": paths, "capture_changed": changed}

    def _values(
        self, request: dict[str, Any], model: str, names: list[str], feeds: dict[str, Any], level: str = ""
    ) -> dict[str, Any]:
        session = self.session(request, model, level)
        return dict(zip(names, session.run(names, feeds)))  # noqa: B905 - strict= needs Python 3.10


def same(left: Any, right: Any) -> bool:
    """Equal shapes and bits."""
    left, right = np.asarray(left), np.asarray(right)
    alike = left.shape == right.shape and left.dtype == right.dtype
    return bool(alike and left.tobytes() == right.tobytes())


if __name__ == "__main__":
    serve(Worker)
