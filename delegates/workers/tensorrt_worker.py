"""The child process: builds TensorRT engines, reports on them, and runs them where there is a GPU.

Runs as a script and imports nothing of this project but its neighbours.

    python tensorrt_worker.py SCRATCH_DIR

Building and reporting need no driver with TensorRT for RTX. The driver is looked for before anything
that needs one is called, since the runtime ends the process without it. Device memory comes from the
driver's own library through ctypes, so no CUDA package is needed beside TensorRT.

Not run so far: everything below :class:`Engine`, for lack of a GPU; and the module ``tensorrt``, whose
builder needs one.
"""

from __future__ import annotations

import ctypes
import hashlib
import importlib
import importlib.util
import platform
from typing import Any

import numpy as np
from onnx_worker import Worker as OnnxWorker
from protocol import Refused, first_line, serve
from tflite_worker import cpu

DRIVER_LIBRARY = {"Windows": "nvcuda.dll"}.get(platform.system(), "libcuda.so.1")

LIBRARIES = {
    "tensorrt": "tensorrt",
    "tensorrt_rtx": "tensorrt-rtx",
    "tensorrt_rtx_bindings": "tensorrt-rtx",
}
"""Module name to what users call the library, in order of preference."""


class Driver:
    """NVIDIA's driver API: devices, memory, one stream.

    Raises Refused saying what is missing: the library, the driver behind it, or a device.
    """

    def __init__(self) -> None:
        try:
            self.library = ctypes.CDLL(DRIVER_LIBRARY)
        except OSError:
            raise Refused("unavailable", f"no NVIDIA driver here: {DRIVER_LIBRARY} does not load") from None
        code = self.library.cuInit(0)
        if code:
            reason = f"{DRIVER_LIBRARY} loads but cuInit answers {code}{self._name(code)}"
            raise Refused("unavailable", reason)
        version, count = ctypes.c_int(), ctypes.c_int()
        self.call("cuDriverGetVersion", ctypes.byref(version))
        self.call("cuDeviceGetCount", ctypes.byref(count))
        self.version = f"{version.value // 1000}.{version.value % 1000 // 10}"
        self.devices = [self._device(number) for number in range(count.value)]
        if not self.devices:
            raise Refused("unavailable", f"the NVIDIA driver (CUDA {self.version}) lists no device")

    def _name(self, code: int) -> str:
        text = ctypes.c_char_p()
        known = self.library.cuGetErrorName(code, ctypes.byref(text)) == 0 and text.value is not None
        return f" ({text.value.decode()})" if known and text.value else ""

    def _device(self, number: int) -> str:
        name = ctypes.create_string_buffer(256)
        self.call("cuDeviceGetName", name, 256, number)
        return name.value.decode("utf-8", "replace")

    def call(self, function: str, *arguments: Any) -> None:
        """One driver function. Raises Refused when it does not answer 0."""
        code = getattr(self.library, function)(*arguments)
        if code:
            raise Refused("error", f"{function} answers {code}{self._name(code)}")

    def use_first_device(self) -> ctypes.c_void_p:
        """Makes device 0's primary context, the one the CUDA runtime shares, current; returns a stream."""
        context, stream = ctypes.c_void_p(), ctypes.c_void_p()
        self.call("cuDevicePrimaryCtxRetain", ctypes.byref(context), 0)
        self.call("cuCtxSetCurrent", context)
        self.call("cuStreamCreate", ctypes.byref(stream), 1)  # 1: does not wait for the default stream
        return stream

    def allocate(self, size: int) -> ctypes.c_uint64:
        """Device memory of ``size`` bytes, and at least one."""
        pointer = ctypes.c_uint64()
        self.call("cuMemAlloc_v2", ctypes.byref(pointer), ctypes.c_size_t(max(size, 1)))
        return pointer

    def upload(self, pointer: ctypes.c_uint64, array: Any) -> None:
        """Host to device; complete on return."""
        source = ctypes.c_void_p(array.ctypes.data)
        self.call("cuMemcpyHtoD_v2", pointer, source, ctypes.c_size_t(array.nbytes))

    def download(self, array: Any, pointer: ctypes.c_uint64) -> None:
        """Device to host; complete on return."""
        target = ctypes.c_void_p(array.ctypes.data)
        self.call("cuMemcpyDtoH_v2", target, pointer, ctypes.c_size_t(array.nbytes))


def find_driver() -> tuple[Any, str]:
    """(driver, "") or (None, what is missing)."""
    try:
        return Driver(), ""
    except Refused as missing:
        return None, str(missing)


class Lane:
    """The library that was found, its builder, and the driver if there is one."""

    def __init__(self, wanted: list[str]) -> None:
        self.driver, self.missing = find_driver()
        if self.driver is None:  # TensorRT proper cannot even build without a GPU; TensorRT for RTX can
            wanted = sorted(wanted, key=lambda module: module == "tensorrt")
        problems = []
        for module in wanted:
            try:
                self.trt: Any = importlib.import_module(module)
            except Exception as error:  # noqa: BLE001 - a broken library raises whatever it likes
                if importlib.util.find_spec(module) is not None:
                    problems.append(f"{module}: {type(error).__name__}: {first_line(error)}")
                continue
            self.library, self.version = LIBRARIES[module], str(self.trt.__version__)
            break
        else:
            raise Refused("unavailable", "; ".join(problems) or "no TensorRT is installed")
        self.log: list[tuple[str, str]] = []
        self.logger = self._logger()
        self.builder: Any = None

    def _logger(self) -> Any:
        """What keeps every message. The library knows one logger per process: the first."""
        log, trt = self.log, self.trt

        class Keep(trt.ILogger):  # type: ignore[misc, name-defined]
            def __init__(self) -> None:
                trt.ILogger.__init__(self)

            def log(self, severity: Any, message: str) -> None:
                log.append((str(severity).rpartition(".")[2], message))

        return Keep()

    def versions(self) -> dict[str, str]:
        """The library first, then all that its results may depend on."""
        found = {self.library: self.version, "python": platform.python_version(), "numpy": np.__version__}
        found |= {"machine": platform.machine(), **cpu()}
        if self.driver is not None:
            found |= {"cuda driver": self.driver.version, "gpu": self.driver.devices[0]}
        return found

    def build(self, path: str) -> bytes:
        """The engine of an .onnx file. Raises Refused with the parser's or the builder's reason."""
        trt = self.trt
        self.log.clear()
        if self.builder is None:
            self.builder = trt.Builder(self.logger)
        flag = 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
        network = self.builder.create_network(flag)
        parser = trt.OnnxParser(network, self.logger)
        with open(path, "rb") as file:
            parsed = parser.parse(file.read(), path)  # values in other files lie beside it
        if not parsed:
            raise Refused("error", refusal(parser))
        config = self.builder.create_builder_config()
        config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
        engine = self.builder.build_serialized_network(network, config)
        if engine is None:
            raise Refused("error", f"{self.library} {self.version} builds no engine: {self.last_error()}")
        return bytes(engine)

    def last_error(self) -> str:
        """The last error the library logged, on one line."""
        errors = [text for severity, text in self.log if severity in ("ERROR", "INTERNAL_ERROR")]
        return " ".join(errors[-1].split()) if errors else "it gives no reason"

    def report(self, engine: bytes) -> str:
        """The builder's own report of the engine's layers; without one in the log, the inspector's."""
        for _, text in reversed(self.log):
            if text.startswith("Layers:"):
                return text
        if self.driver is None:
            reason = f"{self.library} {self.version} logs no layer report, and reading one needs a driver"
            raise Refused("error", reason)
        inspector = self.deserialize(engine).create_engine_inspector()
        return str(inspector.get_engine_information(self.trt.LayerInformationFormat.JSON))

    def deserialize(self, engine: bytes) -> Any:
        """The engine on the first device. Raises Refused without a driver, or on a device it cannot use."""
        if self.driver is None:
            raise Refused("unavailable", self.missing)
        self.runtime = self.trt.Runtime(self.logger)
        found = self.runtime.deserialize_cuda_engine(engine)
        if found is None:
            reason = f"{self.library} {self.version} cannot use {self.driver.devices[0]}: {self.last_error()}"
            raise Refused("unavailable", reason)
        return found

    def session(self, model: str, _threads: int) -> Engine:
        """Something with ``run(names, feeds)``."""
        if self.driver is None:
            raise Refused("unavailable", self.missing)
        return Engine(self, self.build(model))


def refusal(parser: Any) -> str:
    """The parser's first error, with the node it is about."""
    if not parser.num_errors:
        return "the parser refuses the file and gives no reason"
    error = parser.get_error(0)
    node = f"node {error.node_name()!r} ({error.node_operator()}): " if error.node_operator() else ""
    return f"TensorRT's parser refuses {node or 'the file: '}{' '.join(error.desc().split())}"


class Engine:
    """An engine, its execution context, and device memory for its inputs and outputs.

    No machine with a GPU has run this class yet.
    """

    def __init__(self, lane: Lane, content: bytes) -> None:
        self.lane, self.trt, self.driver = lane, lane.trt, lane.driver
        self.stream = self.driver.use_first_device()
        self.engine = lane.deserialize(content)
        self.context = self.engine.create_execution_context()
        if self.context is None:
            reason = f"{lane.library} makes no context on {self.driver.devices[0]}: {lane.last_error()}"
            raise Refused("error", reason)
        self.memory: list[ctypes.c_uint64] = []

    def run(self, names: list[str], feeds: dict[str, Any]) -> list[Any]:
        """The values of outputs ``names``."""
        outputs: dict[str, tuple[Any, ctypes.c_uint64]] = {}
        try:
            for number in range(self.engine.num_io_tensors):
                name = self.engine.get_tensor_name(number)
                is_input = self.engine.get_tensor_mode(name) == self.trt.TensorIOMode.INPUT
                shape = tuple(self.engine.get_tensor_shape(name))
                dtype = np.dtype(self.trt.nptype(self.engine.get_tensor_dtype(name)))
                array = np.ascontiguousarray(feeds[name]) if is_input else np.empty(shape, dtype)
                if array.dtype != dtype or array.shape != shape:
                    reason = f"{name!r} is {array.dtype} {array.shape}; the engine takes {dtype} {shape}"
                    raise Refused("feed", reason)
                pointer = self.driver.allocate(array.nbytes)
                self.memory.append(pointer)
                if is_input:
                    self.driver.upload(pointer, array)
                else:
                    outputs[name] = (array, pointer)
                self.context.set_tensor_address(name, pointer.value)
            if not self.context.execute_async_v3(self.stream.value):
                raise Refused("error", f"the engine did not run: {self.lane.last_error()}")
            self.driver.call("cuStreamSynchronize", self.stream)
            for array, pointer in outputs.values():
                self.driver.download(array, pointer)
        finally:
            while self.memory:
                self.driver.call("cuMemFree_v2", self.memory.pop())
        return [outputs[name][0] for name in names]


class Worker(OnnxWorker):  # type: ignore[misc]
    """Answers ``probe``, ``prove`` and ``run``; keeps the last engines."""

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """The answer to any request. Raises Refused, or whatever the library raises."""
        if request["ask"] == "run":
            return dict(self.run(request))
        lane = self.lane(request["lane"])
        if request["ask"] == "prove":
            return self.prove(lane, request["model"])
        devices = lane.driver.devices if lane.driver is not None else []
        return {"versions": lane.versions(), "devices": devices, "missing": lane.missing}

    def lane(self, request: dict[str, Any]) -> Lane:
        """The library, imported once: its logger and its builder live as long as this process."""
        if "" not in self.lanes:
            self.lanes[""] = Lane(request["modules"])
        found: Lane = self.lanes[""]
        return found

    def prove(self, lane: Lane, model: str) -> dict[str, Any]:
        """Builds an engine, runs nothing. A model that cannot be built is an answer, ``refused``."""
        try:
            engine = lane.build(model)
        except Refused as refused:
            return {"refused": str(refused)}
        digest = hashlib.sha256(engine).hexdigest()
        return {"report": lane.report(engine), "engine_bytes": len(engine), "engine_sha256": digest}


if __name__ == "__main__":
    serve(Worker)
