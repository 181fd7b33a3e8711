"""The Edge TPU delegate without the device: a stand-in for libedgetpu with its entry points, compiled here,
computes compiled models in the real TFLite runtime, and fails as the real one does."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from karat24.delegates import delegate_named
from karat24.delegates.edgetpu import EDGETPU_DEVICE, EDGETPU_LIBRARY, EdgeTpuDelegate
from karat24.delegates.edgetpu_compiler import EDGETPU_COMPILER
from karat24.delegates.table import EDGETPU_LANE
from karat24.export.tflite import write_tflite
from karat24.refimpl.errors import (
    DelegateCrashed,
    DelegateError,
    DelegateTimeout,
    DelegateUnavailable,
    UsageError,
)
from tests.shared_models import require
from tests.support.edgetpu_chain import chain
from tests.support.edgetpu_compiler import SUCCEEDED, StandIn
from tests.support.edgetpu_fake import (
    BEHAVIOUR,
    build,
    image,
    model,
)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("edgetpu"))


@pytest.fixture
def library(built: Path, monkeypatch: pytest.MonkeyPatch):
    """Makes the stand-in the library that is used, and says what goes wrong with it."""
    monkeypatch.setenv(EDGETPU_LIBRARY, str(built))
    monkeypatch.delenv(EDGETPU_DEVICE, raising=False)

    def behaves(how: str) -> None:
        monkeypatch.setenv(BEHAVIOUR, how)

    behaves("")
    return behaves


def test_a_compiled_model_runs_and_gives_its_outputs(library) -> None:
    with delegate_named("edgetpu") as delegate:
        run = delegate.run(model(), [image()])
        assert run.outputs[0].tolist() == [[1, 2, 3, 4, 5]]
        assert run.delegated == {0}
        assert not run.unreadable
        assert run.trace.profile == "edgetpu"
        assert delegate.versions()["libedgetpu"].endswith("RuntimeVersion(14)")
        assert next(iter(delegate.versions())) == "ai-edge-litert"


def test_devices_are_listed(library) -> None:
    with delegate_named("edgetpu") as delegate:
        probe = delegate.probe()
    assert probe.available
    assert probe.devices == ("usb /sys/bus/usb/devices/2-1", "pci /dev/apex_0")
    assert probe.version == "BuildLabel(COMPILER=stand-in), RuntimeVersion(14)"


@pytest.mark.parametrize("device", ["", "usb", "usb:0", "pci", "pci:0", ":1"])
def test_a_device_that_is_there_may_be_chosen(library, device: str) -> None:
    with delegate_named("edgetpu", device=device) as delegate:
        assert delegate.probe().available
        assert delegate.run(model(), [image()]).outputs[0].shape == (1, 5)


@pytest.mark.parametrize("device", ["usb:1", "pci:1", ":2"])
def test_a_device_that_is_not_there_is_named(library, device: str) -> None:
    with delegate_named("edgetpu", device=device) as delegate:
        probe = delegate.probe()
    assert not probe.available
    assert probe.reason.startswith(f"no Edge TPU answers to {device!r}; here are usb /sys")


def test_the_environment_chooses_a_device(library, monkeypatch: pytest.MonkeyPatch) -> None:
    library("usb only")
    monkeypatch.setenv(EDGETPU_DEVICE, "pci")
    with delegate_named("edgetpu") as delegate:
        assert "no Edge TPU answers to 'pci'" in delegate.probe().reason


@pytest.mark.parametrize("device", ["gpu", "usb:", "usb:x", "usb0", "/dev/apex_0"])
def test_a_name_no_device_has_is_refused(device: str) -> None:
    with pytest.raises(UsageError, match="no Edge TPU is called"):
        delegate_named("edgetpu", device=device)


def test_no_device(library) -> None:
    library("no device")
    with delegate_named("edgetpu") as delegate:
        probe = delegate.probe()
    assert not probe.available
    assert probe.reason == "the library is there but lists no Edge TPU"
    assert "lsusb" in probe.remedy


def test_a_delegate_the_runtime_cannot_make(library) -> None:
    """Through the real load_delegate: the library gives no delegate for this device."""
    with (
        delegate_named("edgetpu", device="usb:9") as delegate,
        pytest.raises(DelegateUnavailable, match=r"no Edge TPU answers to 'usb:9': Failed to load delegate"),
    ):
        delegate.run(model(), [image()])


def test_a_library_that_kills_its_process(library) -> None:
    library("kills on load")
    with delegate_named("edgetpu") as delegate:
        probe = delegate.probe()
    assert not probe.available
    assert probe.reason == "the runtime died of SIGSEGV on loading its library"


def test_a_library_that_hangs(library) -> None:
    library("hangs on load")
    with delegate_named("edgetpu", time_limit=3) as delegate:
        probe = delegate.probe()
    assert not probe.available
    assert probe.reason.startswith("no answer about loading its library within 3 s")


def test_a_lost_device_is_the_runtime_s_own_message(library) -> None:
    with delegate_named("edgetpu") as delegate:
        library("lost")
        with pytest.raises(DelegateError, match=r"USB transfer error 5 \[LibUsbDataIn\]"):
            delegate.run(model(), [image()])


def test_a_crash_while_running_costs_one_run(library) -> None:
    library("crashes")
    with delegate_named("edgetpu") as delegate:
        with pytest.raises(DelegateCrashed, match="died of SIGSEGV on model"):
            delegate.run(model(), [image()])
        library("")
        assert delegate.run(model(), [image()]).outputs[0].tolist() == [[1, 2, 3, 4, 5]]


def test_a_run_that_hangs_is_stopped(library) -> None:
    with delegate_named("edgetpu", time_limit=5) as delegate:
        delegate.versions()
        library("hangs")
        delegate.close()
        with pytest.raises(DelegateTimeout, match="within 5 s"):
            delegate.run(model(), [image()])


def test_a_library_too_old_for_the_model(library) -> None:
    library("old")
    with (
        delegate_named("edgetpu") as delegate,
        pytest.raises(
            DelegateUnavailable, match=r"needs Edge TPU runtime 12, and .* is 10.*--min-runtime 10"
        ),
    ):
        delegate.run(model(), [image()])


def test_absent_says_so_and_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(EDGETPU_LIBRARY, "libabsent-edgetpu.so.1")
    with delegate_named("edgetpu") as delegate:
        probe = delegate.probe()
        assert not probe.available
        assert probe.library == "libedgetpu"
        assert probe.reason.startswith("libabsent-edgetpu.so.1: cannot open shared object file")
        assert "libedgetpu1-std" in probe.remedy
        with pytest.raises(DelegateUnavailable, match=r"cannot open shared object file.*libedgetpu1-std"):
            delegate.run(model(), [image()])


def test_another_library_under_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "other.c").write_text("int edgetpu = 0;")
    monkeypatch.setenv(EDGETPU_LIBRARY, str(build(tmp_path, tmp_path / "other.c")))
    with delegate_named("edgetpu") as delegate:
        assert "is not an Edge TPU library: " in delegate.probe().reason


def test_a_model_that_is_not_compiled_is_compiled_first(
    library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a compiler it runs; without one, nothing of it would run on the device, and that is said."""
    source = write_tflite(chain())
    monkeypatch.setenv(EDGETPU_COMPILER, "absent-edgetpu-compiler")
    with delegate_named("edgetpu") as delegate:
        with pytest.raises(DelegateUnavailable, match="x86-64 Linux only"):
            delegate.run(source, [image()])
        standin = StandIn(tmp_path)
        monkeypatch.setenv(EDGETPU_COMPILER, str(standin.path))
        standin.does(SUCCEEDED, {"model_edgetpu.tflite": model()})
        assert delegate.run(source, [image()]).outputs[0].tolist() == [[1, 2, 3, 4, 5]]


def test_a_model_the_compiler_leaves_on_the_cpu_is_no_run(
    library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write_tflite(chain())
    standin = StandIn(tmp_path)
    monkeypatch.setenv(EDGETPU_COMPILER, str(standin.path))
    standin.does(SUCCEEDED, {"model_edgetpu.tflite": source})
    with (
        delegate_named("edgetpu") as delegate,
        pytest.raises(DelegateError, match="leaves all of the model on the CPU"),
    ):
        delegate.run(source, [image()])


@pytest.mark.parametrize("google", [True, False])
def test_a_package_called_pycoral_is_told_from_google_s(
    library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, google: bool
) -> None:
    """PyPI's package of that name is another project; only Google's has pycoral.utils.edgetpu."""
    utils = tmp_path / "pycoral" / "utils"
    utils.mkdir(parents=True)
    (tmp_path / "pycoral" / "__init__.py").touch()
    if google:
        (utils / "edgetpu.py").touch()
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with delegate_named("edgetpu") as delegate:
        probe = delegate.probe()
    assert probe.available
    assert ("another project's" in probe.reason) is not google


def test_a_foreign_pycoral_is_no_runtime(library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nothing else is there, the reason is the package's name, not an import that fails inside it."""
    (tmp_path / "pycoral").mkdir()
    (tmp_path / "pycoral" / "__init__.py").touch()
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with EdgeTpuDelegate(replace(EDGETPU_LANE, packages=("pycoral",))) as delegate:
        probe = delegate.probe()
    assert not probe.available
    assert probe.reason == "pycoral: the package of this name here is another project's, not Google's"
    assert "pip install 'ai-edge-litert==2.3.*'" in probe.remedy


def test_a_compiled_model_without_its_device_is_refused() -> None:
    path = require("coral/mobilenet_v1_0.25_128_quant_edgetpu.tflite")
    with (
        delegate_named("litert-ref") as delegate,
        pytest.raises(DelegateError, match="unresolved custom op: edgetpu-custom-op"),
    ):
        delegate.run(path, [np.zeros((1, 128, 128, 3), np.uint8)])
