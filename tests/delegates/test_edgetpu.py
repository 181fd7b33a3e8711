"""The Edge TPU delegate as far as it goes without the device: stand-in libraries, compiled here, take
the place of libedgetpu, and a stand-in runtime takes the place of what runs a compiled model."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from karat24.delegates import conformance_models as models
from karat24.delegates import delegate_named
from karat24.delegates.table import LANES
from karat24.delegates.tflite import EDGETPU_LIBRARY, TFLITE_PYTHON, TfliteDelegate
from karat24.export.tflite import write_tflite
from karat24.refimpl.errors import DelegateError, DelegateUnavailable
from tests.shared_models import require

FAKE = Path(__file__).resolve().parent / "fake_runtime"
LANE = next(lane for lane in LANES if lane.name == "edgetpu")

PROBE = """
#include <stdlib.h>
struct edgetpu_device { int type; const char* path; };
static struct edgetpu_device devices[] = {{1, "/sys/bus/usb/devices/2-1"}, {0, "/dev/apex_0"}};
const char* edgetpu_version(void) { return "BuildLabel(COMPILER=stand-in), RuntimeVersion(14)"; }
struct edgetpu_device* edgetpu_list_devices(size_t* count) { *count = COUNT; return COUNT ? devices : NULL; }
"""
REFUSING = """
void* tflite_plugin_create_delegate(char** k, char** v, size_t n, void (*report)(const char*)) {
  report("no device for you"); return NULL; }
void tflite_plugin_destroy_delegate(void* d) {}
"""
KILLING = "__attribute__((constructor)) static void die(void) { *(volatile int*)0 = 0; }"


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Compiles a stand-in libedgetpu and makes it the one that is used."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler to build a stand-in libedgetpu with")

    def build(source: str, *flags: str) -> None:
        (tmp_path / "edgetpu.c").write_text(source)
        path = tmp_path / "libstandin.so"
        command = [compiler, "-shared", "-fPIC", "-o", path, tmp_path / "edgetpu.c", *flags]
        subprocess.run(command, check=True)
        monkeypatch.setenv(EDGETPU_LIBRARY, str(path))

    return build


@pytest.fixture
def fake_runtime(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(FAKE))
    monkeypatch.setenv(TFLITE_PYTHON, sys.executable)


def test_absent_says_so_and_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(EDGETPU_LIBRARY, "libabsent-edgetpu.so.1")
    with delegate_named("edgetpu") as delegate:
        probe = delegate.probe()
        assert not probe.available
        assert probe.library == "libedgetpu"
        assert probe.reason.startswith("libabsent-edgetpu.so.1: cannot open shared object file")
        assert "libedgetpu1-std" in probe.remedy
        with pytest.raises(DelegateUnavailable, match=r"cannot open shared object file.*libedgetpu1-std"):
            delegate.run(write_tflite(models.chain()), [models.image()])


def test_devices_are_listed(library) -> None:
    library(PROBE, "-DCOUNT=2")
    with delegate_named("edgetpu") as delegate:
        probe = delegate.probe()
        assert probe.available
        assert probe.devices == ("usb /sys/bus/usb/devices/2-1", "pci /dev/apex_0")
        assert probe.version == "BuildLabel(COMPILER=stand-in), RuntimeVersion(14)"
        assert delegate.versions()["libedgetpu"] == probe.version


def test_a_library_without_a_device(library) -> None:
    library(PROBE, "-DCOUNT=0")
    with delegate_named("edgetpu") as delegate:
        probe = delegate.probe()
    assert not probe.available
    assert probe.reason == "the library is there but lists no Edge TPU"
    assert "lsusb" in probe.remedy


def test_another_library_under_its_name(library) -> None:
    library("int edgetpu = 0;")
    with delegate_named("edgetpu") as delegate:
        assert "is not an Edge TPU library: " in delegate.probe().reason


def test_a_library_that_kills_its_process(library) -> None:
    library(KILLING)
    with delegate_named("edgetpu") as delegate:
        probe = delegate.probe()
    assert not probe.available
    assert probe.reason == "the runtime died of SIGSEGV on loading its library"


def test_a_delegate_the_runtime_cannot_make(library) -> None:
    """Through the real load_delegate: the library lists a device, and then gives none."""
    library(PROBE + REFUSING, "-DCOUNT=1")
    with (
        delegate_named("edgetpu", device="usb:0") as delegate,
        pytest.raises(DelegateUnavailable, match=r"no Edge TPU answers to 'usb:0': Failed to load delegate"),
    ):
        delegate.run(write_tflite(models.chain()), [models.image()])


@pytest.mark.usefixtures("fake_runtime")
def test_a_compiled_model_gives_its_outputs(library) -> None:
    library(PROBE, "-DCOUNT=1")
    lane = replace(LANE, packages=("tflite_runtime",))
    x = np.array([1, 2, 3, 4], np.uint8)
    with TfliteDelegate(lane) as delegate:
        run = delegate.run(json.dumps([]).encode(), [x])
        assert run.outputs[0].tolist() == [2, 3, 4, 5]
        assert dict(run.unreadable) == {1: "a compiled model gives only its outputs"}
        assert run.trace.profile == ""
        assert not delegate.run(json.dumps([]).encode(), [x], tensors="outputs").unreadable
    with (
        TfliteDelegate(lane, device="usb:9") as delegate,
        pytest.raises(DelegateUnavailable, match="no Edge TPU answers to 'usb:9'"),
    ):
        delegate.run(json.dumps([]).encode(), [x])


def test_a_compiled_model_without_its_device_is_refused() -> None:
    path = require("coral/mobilenet_v1_0.25_128_quant_edgetpu.tflite")
    with (
        delegate_named("litert-ref") as delegate,
        pytest.raises(DelegateError, match="unresolved custom op: edgetpu-custom-op"),
    ):
        delegate.run(path, [np.zeros((1, 128, 128, 3), np.uint8)])
