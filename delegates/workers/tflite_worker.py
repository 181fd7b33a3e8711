"""The child process: runs a TFLite runtime and answers over a pipe.

Runs as a script under any Python >= 3.9 with NumPy and a runtime, and imports nothing of this project
but ``protocol.py``, so that another environment's interpreter can run it (tflite-runtime 2.14 needs
NumPy < 2).

    python tflite_worker.py SCRATCH_DIR

Arrays travel as .npy files in SCRATCH_DIR.
"""

from __future__ import annotations

import collections
import ctypes
import importlib.util
import json
import os
import platform
import time
from importlib import metadata
from typing import Any

import numpy as np
from protocol import Refused, first_line, serve

SAME_BYTES = ("RESHAPE", "EXPAND_DIMS", "SQUEEZE")
"""Ops that may share their input's buffer without changing what is in it."""

LOST = "what the run before left in the model's variables is lost"

EDGETPU_LIBRARY = {"Darwin": "libedgetpu.1.dylib", "Windows": "edgetpu.dll"}.get(
    platform.system(), "libedgetpu.so.1"
)


def find_runtime(wanted: list[str]) -> tuple[Any, str, str]:
    """(module, package name, version) of the first importable runtime among ``wanted``."""
    problems = []
    for package in wanted:
        if package == "pycoral" and is_foreign_pycoral():
            problems.append("pycoral: the package of this name here is another project's, not Google's")
            continue
        try:
            if package == "ai_edge_litert":
                from ai_edge_litert import interpreter as module
            elif package == "pycoral":
                from pycoral.utils.edgetpu import tflite as module  # the runtime Google's package brings
            else:
                from tflite_runtime import interpreter as module
        except Exception as error:  # noqa: BLE001 - an ABI mismatch raises whatever it likes
            problems.append(f"{package}: {type(error).__name__}: {first_line(error)}")
            continue
        name = package.replace("_", "-")
        for distribution in (name, f"{name}-nightly"):
            try:
                return module, distribution, metadata.version(distribution)
            except metadata.PackageNotFoundError:
                continue
        return module, name, "unknown"
    raise Refused("unavailable", "; ".join(problems))


class Lane:
    """One way of interpreting a model: runtime, kernels, device."""

    def __init__(self, request: dict[str, Any]) -> None:
        self.module, self.package, self.version = find_runtime(request["packages"])
        self.resolver = request["resolver"]
        self.device = request.get("device")
        self.library = request.get("library") or EDGETPU_LIBRARY

    def interpreter(self, path: str, threads: int, preserve: bool) -> Any:
        """An interpreter with its tensors allocated."""
        options: dict[str, Any] = {"model_path": path, "num_threads": threads}
        if self.device is None:
            options["experimental_op_resolver_type"] = getattr(self.module.OpResolverType, self.resolver)
            options["experimental_preserve_all_tensors"] = preserve
        else:
            options["experimental_delegates"] = [self._edgetpu()]
        interpreter = self.module.Interpreter(**options)
        interpreter.allocate_tensors()
        return interpreter

    def _edgetpu(self) -> Any:
        try:
            return self.module.load_delegate(self.library, {"device": self.device} if self.device else {})
        except OSError as error:
            raise Refused("unavailable", first_line(error)) from None
        except ValueError as error:  # the runtime's words for a missing device and for a wrong name are equal
            where = f"no Edge TPU answers to {self.device!r}" if self.device else "no Edge TPU answers"
            raise Refused("unavailable", f"{where}: {first_line(error)}") from None

    def versions(self) -> dict[str, str]:
        """The runtime first, then all that its results may depend on."""
        return {
            self.package: self.version,
            "python": platform.python_version(),
            "numpy": np.__version__,
            "machine": platform.machine(),
            **cpu(),
        }


def cpu() -> dict[str, str]:
    """The processor's name, where the system tells it."""
    if not os.path.exists("/proc/cpuinfo"):
        return {}
    with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as cpuinfo:
        names = [line.split(":", 1)[1].strip() for line in cpuinfo if line.startswith("model name")]
    return {"cpu": names[0]} if names else {}


class EdgeTpuDevice(ctypes.Structure):
    """``struct edgetpu_device`` of libedgetpu's C interface."""

    _fields_ = [("type", ctypes.c_int), ("path", ctypes.c_char_p)]


def probe_edgetpu(path: str) -> dict[str, Any]:
    """Library version and devices, by ctypes: nothing is loaded into a runtime yet."""
    try:
        library = ctypes.CDLL(path)
        library.edgetpu_version.restype = ctypes.c_char_p
        library.edgetpu_list_devices.restype = ctypes.POINTER(EdgeTpuDevice)
        library.edgetpu_list_devices.argtypes = [ctypes.POINTER(ctypes.c_size_t)]
        version = library.edgetpu_version() or b""
        count = ctypes.c_size_t(0)
        listed = library.edgetpu_list_devices(ctypes.byref(count))
    except OSError as error:
        raise Refused("unavailable", first_line(error)) from None
    except AttributeError as error:
        raise Refused("unavailable", f"{path} is not an Edge TPU library: {first_line(error)}") from None
    buses = ("pci", "usb")
    devices = []
    for device in listed[: count.value]:
        bus = buses[device.type] if device.type in (0, 1) else str(device.type)
        devices.append(f"{bus} {(device.path or b'').decode('utf-8', 'replace')}")
    return {
        "version": version.decode("utf-8", "replace"),
        "devices": devices,
        "foreign_pycoral": is_foreign_pycoral(),
    }


def is_foreign_pycoral() -> bool:
    """Whether a package called pycoral is here that is not Google's, which PyPI does not have."""
    found = importlib.util.find_spec("pycoral")
    if found is None:
        return False
    places = found.submodule_search_locations or []
    return not any(os.path.exists(os.path.join(place, "utils", "edgetpu.py")) for place in places)


Node = dict[str, Any]


def layer_nodes(interpreter: Any) -> tuple[list[Node], list[Node]]:
    """(layers of the file, nodes a delegate added), of the first subgraph."""
    nodes: list[Node] = interpreter._get_ops_details()
    delegates = [node for node in nodes if node["op_name"] == "DELEGATE"]
    return [node for node in nodes if node["op_name"] != "DELEGATE"], delegates


def indices(values: Any) -> list[int]:
    """Tensor indices without the -1 of an optional input left out."""
    return [int(value) for value in values if int(value) >= 0]


def delegated_layers(layers: list[Node], delegates: list[Node]) -> list[int]:
    """Layers some delegate node computes: all between its inputs and its outputs."""
    producer = {index: node for node in layers for index in indices(node["outputs"])}
    taken: set[int] = set()
    for delegate in delegates:
        given = set(indices(delegate["inputs"]))
        pending = indices(delegate["outputs"])
        while pending:
            index = pending.pop()
            node = producer.get(index)
            if node is None or index in given or int(node["index"]) in taken:
                continue
            taken.add(int(node["index"]))
            pending.extend(indices(node["inputs"]))
    return sorted(taken)


def address(interpreter: Any, index: int) -> int | None:
    """Where the runtime keeps a tensor, or None where it keeps nothing (or a scalar, given by value)."""
    try:
        view = interpreter.tensor(index)()
    except (ValueError, RuntimeError):
        return None
    return int(view.ctypes.data) if isinstance(view, np.ndarray) and view.size else None


def overwritten_tensors(interpreter: Any, layers: list[Node], fed: list[int]) -> dict[int, Node]:
    """Tensors whose buffer a later layer wrote over, with that layer: their values are lost.

    tflite-runtime 2.14 runs some ops in place although asked to preserve every
    tensor; input and output then have the same address.
    """
    lost: dict[int, Node] = {}
    holders: dict[int, list[int]] = {}
    for index in fed:
        where = address(interpreter, index)
        if where is not None:
            holders[where] = [index]
    for node in layers:
        for index in indices(node["outputs"]):
            where = address(interpreter, index)
            if where is None:
                continue
            sharing = holders.get(where, [])
            renamed = node["op_name"] in SAME_BYTES and sharing[-1:] == indices(node["inputs"])[:1]
            if sharing and not renamed:
                lost.update(dict.fromkeys(sharing, node))
                sharing = []
            holders[where] = [*sharing, index]
    return lost


class Worker:
    """Answers requests; keeps the last interpreters, since tiles come one after another."""

    def __init__(self, scratch: str) -> None:
        self.scratch = scratch
        self.lanes: dict[str, Lane] = {}
        self.interpreters: collections.OrderedDict[str, Any] = collections.OrderedDict()

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """The answer to any request. Raises Refused, or whatever the runtime raises."""
        if request["ask"] == "run":
            return self.run(request)
        if request["ask"] == "tiles":
            return self.run_tiles(request)
        lane = self.lane(request["lane"])
        answer: dict[str, Any] = {"versions": lane.versions()}
        if lane.device is not None:
            answer["edgetpu"] = probe_edgetpu(lane.library)
            answer["versions"]["libedgetpu"] = answer["edgetpu"]["version"]
        return answer

    def lane(self, request: dict[str, Any]) -> Lane:
        """The lane a request names, imported once."""
        key = json.dumps(request, sort_keys=True)
        if key not in self.lanes:
            self.lanes[key] = Lane(request)
        return self.lanes[key]

    def interpreter(self, request: dict[str, Any], preserve: bool) -> Any:
        """An interpreter for the request's model, the one used before if nothing changed."""
        chosen = [request[name] for name in ("lane", "model", "stamp", "threads")]
        key = json.dumps([*chosen, preserve], sort_keys=True)
        found = self.interpreters.pop(key, None)
        if found is None and not request.get("first", True):
            raise ValueError(LOST)
        if found is None:
            while len(self.interpreters) > 1:
                self.interpreters.popitem(last=False)
            found = self.lane(request["lane"]).interpreter(request["model"], request["threads"], preserve)
        self.interpreters[key] = found
        return found

    def run(self, request: dict[str, Any]) -> dict[str, Any]:
        """Feeds, invokes, and saves what was asked for."""
        on_device = request["lane"].get("device") is not None
        everything = request["tensors"] == "all" and not on_device
        interpreter = self.interpreter(request, everything)
        feeds = load_feeds(interpreter, request["feeds"])
        invoke(interpreter, feeds, request.get("first", True))
        outputs = [int(d["index"]) for d in interpreter.get_output_details()]
        layers, delegates = layer_nodes(interpreter)
        answer: dict[str, Any] = {
            "fed": list(feeds),
            "outputs": outputs,
            "delegated": delegated_layers(layers, delegates),
            "unreadable": {},
            "capture_changed": [],
            "tensors": {},
        }
        results = {index: interpreter.get_tensor(index) for index in outputs}
        for index, array in results.items():
            answer["tensors"][index] = self.save(request, index, array)
        if everything:
            self.save_layers(request, interpreter, layers, answer)
            if request["check_capture"]:
                answer["capture_changed"] = self.changed_by_capture(request, feeds, results)
        elif request["tensors"] == "all":
            inner = {index for node in layers for index in indices(node["outputs"])} - set(outputs)
            answer["unreadable"] = dict.fromkeys(sorted(inner), "a compiled model gives only its outputs")
        return answer

    def run_tiles(self, request: dict[str, Any]) -> dict[str, Any]:
        """One tile after the other, and how long they took; the first runs once before, for the device to
        fetch its parameters."""
        interpreter = self.interpreter(request, False)
        tiles = np.load(request["tiles"], mmap_mode="r")
        first = {"keys": None, "paths": [self._write(request, "first", tiles[:1])]}
        feeds = load_feeds(interpreter, first)
        invoke(interpreter, feeds)
        (given,) = feeds
        made = int(interpreter.get_output_details()[0]["index"])
        results = np.empty(
            (len(tiles), *interpreter.get_tensor(made).shape[1:]), interpreter.get_tensor(made).dtype
        )
        start = time.perf_counter()
        for number, tile in enumerate(tiles):
            interpreter.set_tensor(given, tile[np.newaxis])
            interpreter.invoke()
            results[number] = interpreter.get_tensor(made)[0]
        seconds = time.perf_counter() - start
        return {"seconds": seconds, "results": self._write(request, "results", results)}

    def _write(self, request: dict[str, Any], name: str, array: Any) -> str:
        path = os.path.join(self.scratch, f"{request['id']}.{name}.npy")
        np.save(path, array)
        return path

    def save(self, request: dict[str, Any], index: int, array: Any) -> str:
        """Writes one tensor's values; returns the path."""
        if array.dtype.kind not in "biuf":
            raise ValueError(f"element type {array.dtype} cannot be compared")
        path = os.path.join(self.scratch, f"{request['id']}.{index}.npy")
        np.save(path, array)
        return path

    def save_layers(
        self, request: dict[str, Any], interpreter: Any, layers: list[Node], answer: dict[str, Any]
    ) -> None:
        """Saves every layer output whose value is still there, and says why the others are not."""
        lost = overwritten_tensors(interpreter, layers, answer["fed"])
        saved, unreadable = answer["tensors"], answer["unreadable"]
        for node in layers:
            for index in indices(node["outputs"]):
                if index in saved:
                    continue
                if index in lost:
                    over = lost[index]
                    unreadable[index] = f"layer {over['index']} ({over['op_name']}) ran in place over it"
                    continue
                try:
                    saved[index] = self.save(request, index, interpreter.get_tensor(index))
                except (ValueError, RuntimeError) as error:
                    unreadable[index] = f"the runtime keeps no value for it: {first_line(error)}"

    def changed_by_capture(
        self, request: dict[str, Any], feeds: dict[int, Any], results: dict[int, Any]
    ) -> list[int]:
        """Outputs that differ when the runtime is not asked to preserve its tensors."""
        plain = self.interpreter(request, False)
        invoke(plain, feeds, request.get("first", True))
        again = {index: plain.get_tensor(index) for index in results}
        return [
            index
            for index, array in results.items()
            if again[index].shape != array.shape or again[index].tobytes() != array.tobytes()
        ]


def invoke(interpreter: Any, feeds: dict[int, Any], first: bool = True) -> None:
    """Runs the model once, the ``first`` time from the state its variables have at first."""
    if first:
        interpreter.reset_all_variables()
    for index, array in feeds.items():
        interpreter.set_tensor(index, array)
    interpreter.invoke()


def load_feeds(interpreter: Any, given: dict[str, Any]) -> dict[int, Any]:
    """Feeds by tensor index in the order given, each checked: the runtime's own messages name no input."""
    details = interpreter.get_input_details()
    known = [int(d["index"]) for d in details]
    names = {d["name"]: int(d["index"]) for d in details}
    keys, paths = given["keys"], given["paths"]
    if keys is None:
        if len(paths) != len(details):
            raise Refused("feed", f"{len(paths)} arrays given, the model has {len(details)} inputs")
        keys = known
    by_index: dict[int, str] = {}
    for key, path in zip(keys, paths):  # noqa: B905 - strict= needs Python 3.10
        index = names.get(key, -1) if isinstance(key, str) else int(key)
        if index not in known:
            raise Refused("feed", f"the model has no input {key!r}; it has {', '.join(map(repr, names))}")
        by_index[index] = path
    arrays: dict[int, Any] = dict.fromkeys(by_index)
    for detail in details:
        index, shape = int(detail["index"]), tuple(int(n) for n in detail["shape"])
        label = f"input {detail['name']!r} (tensor {index})"
        wanted = f"{np.dtype(detail['dtype']).name} {shape}"
        if index not in by_index:
            raise Refused("feed", f"{label}: no value given; the model needs {wanted}")
        array = np.load(by_index[index], mmap_mode="r")
        if array.dtype != np.dtype(detail["dtype"]) or array.shape != shape:
            raise Refused("feed", f"{label}: got {array.dtype} {array.shape}, the model needs {wanted}")
        arrays[index] = array
    return arrays


if __name__ == "__main__":
    serve(Worker)
