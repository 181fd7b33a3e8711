"""TensorRT's worker against a stand-in for driver and engine: the only test of a run that needs no GPU."""

from __future__ import annotations

import ctypes
import importlib
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from karat24.delegates.workers import TENSORRT_WORKER
from karat24.refimpl.graph import Array


class FakeDriver:
    """Host memory behind the driver's interface, and a count of what is still allocated."""

    devices = ("fake",)

    def __init__(self) -> None:
        self.blocks: dict[int, Any] = {}

    def use_first_device(self) -> ctypes.c_void_p:
        return ctypes.c_void_p(1)

    def allocate(self, size: int) -> ctypes.c_uint64:
        block = ctypes.create_string_buffer(max(size, 1))
        self.blocks[ctypes.addressof(block)] = block
        return ctypes.c_uint64(ctypes.addressof(block))

    def upload(self, pointer: ctypes.c_uint64, array: Array) -> None:
        ctypes.memmove(pointer.value, array.ctypes.data, array.nbytes)

    def download(self, array: Array, pointer: ctypes.c_uint64) -> None:
        ctypes.memmove(array.ctypes.data, pointer.value, array.nbytes)

    def call(self, function: str, *arguments: Any) -> None:
        if function == "cuMemFree_v2":
            del self.blocks[arguments[0].value]


class FakeEngine:
    """An engine of int8 ``x`` to ``y``, a copy."""

    num_io_tensors = 2
    answers = True

    def __init__(self) -> None:
        self.addresses: dict[str, int] = {}
        self.set_tensor_address = self.addresses.__setitem__

    def create_execution_context(self) -> FakeEngine:
        return self

    def get_tensor_name(self, number: int) -> str:
        return "xy"[number]

    def get_tensor_mode(self, name: str) -> str:
        return "in" if name == "x" else "out"

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return (2, 3)

    def get_tensor_dtype(self, name: str) -> str:
        return "int8"

    def execute_async_v3(self, stream: int) -> bool:
        ctypes.memmove(self.addresses["y"], self.addresses["x"], 6)
        return self.answers


def test_feeding_and_fetching_against_a_stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not TensorRT: the order of calls, shapes, and that no device memory is kept. Without a GPU this is
    all that is tested of a run."""
    monkeypatch.syspath_prepend(str(TENSORRT_WORKER.parent))
    worker = importlib.import_module("tensorrt_worker")
    engine, driver = FakeEngine(), FakeDriver()
    trt = SimpleNamespace(TensorIOMode=SimpleNamespace(INPUT="in"), nptype=np.dtype)
    stand_in = SimpleNamespace(
        trt=trt, driver=driver, library="fake", deserialize=lambda _: engine, last_error=lambda: "no reason"
    )
    session = worker.Engine(stand_in, b"")
    x = np.arange(6, dtype=np.int8).reshape(2, 3)
    assert np.array_equal(session.run(["y"], {"x": x})[0], x)
    assert np.array_equal(session.run(["y"], {"x": x[::-1]})[0], x[::-1]), "a view with strides of its own"
    for wrong in (x.astype(np.float32), x[:1]):
        with pytest.raises(worker.Refused, match=r"'x' is .* the engine takes int8"):
            session.run(["y"], {"x": wrong})
    engine.answers = False
    with pytest.raises(worker.Refused, match="did not run: no reason"):
        session.run(["y"], {"x": x})
    assert not driver.blocks
