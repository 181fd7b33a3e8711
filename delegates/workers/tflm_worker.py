"""The child process: runs TensorFlow Lite Micro, the PyPI package ``tflite-micro``, over a pipe.

Runs as a script under any Python with NumPy and the package; imports its neighbours only.

    python tflm_worker.py SCRATCH_DIR

Arrays travel as .npy files in SCRATCH_DIR.
"""

from __future__ import annotations

import os
import platform
from importlib import metadata
from typing import Any

import numpy as np
from protocol import Refused, first_line, serve
from tflite_worker import LOST, cpu, load_feeds

PACKAGE = "tflite-micro"
ARENA_BYTES = (1 << 20, 1 << 24, 1 << 28, 1 << 30)
"""Sizes of the memory all tensors lie in, tried in turn; nothing tells how much a model needs."""


class Model:
    """A model file and its interpreters, one that keeps every tensor and one that does not."""

    def __init__(self, runtime: Any, path: str) -> None:
        with open(path, "rb") as file:
            self.content = file.read()
        if self.content[4:8] != b"TFL3":
            raise ValueError("the file is not a .tflite model")
        self.graph = runtime.schema_fb.ModelT.InitFromPackedBuf(self.content, 0).subgraphs[0]
        self.inputs, self.outputs = indices(self.graph.inputs), indices(self.graph.outputs)
        self.runtime = runtime
        self.interpreters: dict[bool, Any] = {}

    def interpreter(self, preserve: bool) -> Any:
        """An interpreter with its tensors allocated; raises what the runtime says of the largest arena."""
        if preserve not in self.interpreters:
            self.interpreters[preserve] = self.new_interpreter(preserve)
        return self.interpreters[preserve]

    def new_interpreter(self, preserve: bool) -> Any:
        """One in the smallest arena that holds the model."""
        kinds = self.runtime.InterpreterConfig
        kind = kinds.kPreserveAllTensors if preserve else kinds.kAllocationRecording
        refused: RuntimeError | None = None
        for size in ARENA_BYTES:
            try:
                # The package spells its keyword so.
                return self.runtime.Interpreter.from_bytes(
                    self.content, arena_size=size, intrepreter_config=kind
                )
            except RuntimeError as error:
                refused = error
        assert refused is not None
        raise refused

    def get_input_details(self) -> list[dict[str, Any]]:
        """What LiteRT's interpreters say of their inputs: index, name, element type and shape."""
        found = []
        for position, index in enumerate(self.inputs):
            detail = self.interpreter(False).get_input_details(position)
            name = self.graph.tensors[index].name
            known = {"index": index, "name": name.decode("utf-8", "replace") if name else ""}
            found.append({**known, "dtype": detail["dtype"], "shape": detail["shape"]})
        return found

    def run(self, preserve: bool, feeds: dict[int, Any], first: bool) -> Any:
        """The interpreter after one run, the ``first`` time from the state its variables have at first."""
        if not first and preserve not in self.interpreters:
            raise ValueError(LOST)
        interpreter = self.interpreter(preserve)
        if first:
            interpreter.reset()
        for index, array in feeds.items():
            interpreter.set_input(np.asarray(array, order="C"), self.inputs.index(index))
        interpreter.invoke()
        return interpreter

    def results(self, interpreter: Any) -> dict[int, Any]:
        """The outputs by tensor index."""
        return {index: interpreter.get_output(position) for position, index in enumerate(self.outputs)}


def indices(values: Any) -> list[int]:
    """Tensor indices without the -1 of a tensor left out."""
    return [] if values is None else [int(value) for value in values if int(value) >= 0]


class Worker:
    """Answers requests; keeps the last model."""

    def __init__(self, scratch: str) -> None:
        self.scratch = scratch
        self.last: tuple[Any, Model] | None = None

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """The answer to any request. Raises Refused, or whatever the runtime raises."""
        runtime = find_runtime()
        if request["ask"] == "run":
            return self.run(runtime, request)
        own = {PACKAGE: metadata.version(PACKAGE), "python": platform.python_version()}
        return {"versions": {**own, "numpy": np.__version__, "machine": platform.machine(), **cpu()}}

    def run(self, runtime: Any, request: dict[str, Any]) -> dict[str, Any]:
        """Feeds, invokes, and saves what was asked for."""
        model = self.model(runtime, request)
        feeds = load_feeds(model, request["feeds"])
        everything = request["tensors"] == "all"
        interpreter = model.run(everything, feeds, request.get("first", True))
        results = model.results(interpreter)
        found, unreadable = dict(results), {}
        for operator in (model.graph.operators or []) if everything else []:
            for index in indices(operator.outputs):
                try:
                    found.setdefault(index, interpreter.GetTensor(index, 0)["tensor_data"])
                except RuntimeError as error:
                    unreadable[index] = f"the runtime shows no value of it: {first_line(error)}"
        changed: list[int] = []
        if everything and request["check_capture"]:
            again = model.results(model.run(False, feeds, request.get("first", True)))
            changed = [i for i, array in results.items() if array.tobytes() != again[i].tobytes()]
        return {
            "fed": list(feeds),
            "outputs": model.outputs,
            "delegated": [],
            "unreadable": unreadable,
            "capture_changed": changed,
            "tensors": {index: self.save(request, index, array) for index, array in found.items()},
        }

    def model(self, runtime: Any, request: dict[str, Any]) -> Model:
        """The request's model, the one used before if nothing changed."""
        key = (request["model"], request["stamp"])
        if self.last is None or self.last[0] != key:
            self.last = None  # its arena goes before another one comes
            self.last = (key, Model(runtime, request["model"]))
        return self.last[1]

    def save(self, request: dict[str, Any], index: int, array: Any) -> str:
        """Writes one tensor's values; returns the path."""
        if array.dtype.kind not in "biuf":
            raise ValueError(f"element type {array.dtype} cannot be compared")
        path = os.path.join(self.scratch, f"{request['id']}.{index}.npy")
        np.save(path, array)
        return path


def find_runtime() -> Any:
    """The package's module."""
    try:
        from tflite_micro.python.tflite_micro import runtime
    except Exception as error:  # noqa: BLE001 - an ABI mismatch raises whatever it likes
        raise Refused("unavailable", f"tflite_micro: {type(error).__name__}: {first_line(error)}") from None
    return runtime


if __name__ == "__main__":
    serve(Worker)
