"""Compiled kernels: out of date when any source they contain changed, and one directory for many machines."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from refimpl.kernels import compile_cache, requantize
from refimpl.kernels.compile_cache import KernelCacheLocator, source_stamp

KERNELS = Path(requantize.__file__).parent


def test_an_edit_anywhere_below_changes_the_stamp_and_nothing_else_does(tmp_path: Path) -> None:
    """convolution.py imports microkernel.py, which imports addresses.py; fixed_point.py none."""
    for source in KERNELS.glob("*.py"):
        shutil.copy(source, tmp_path)
    files = {
        name: tmp_path / f"{name}.py" for name in ("convolution", "fixed_point", "addresses", "vector_blocks")
    }
    before = {name: source_stamp(path) for name, path in files.items()}
    assert before == {name: source_stamp(KERNELS / path.name) for name, path in files.items()}
    files["addresses"].write_text(files["addresses"].read_text() + "\nCHANGED = 1\n")
    after = {name: source_stamp(path) for name, path in files.items()}
    assert {name for name in files if before[name] != after[name]} == {
        "convolution", "addresses", "vector_blocks"
    }  # fmt: skip


def test_the_locator_serves_the_kernels_and_nobody_else() -> None:
    function = requantize.requantize_pixels.py_func
    locator = KernelCacheLocator.from_function(function, requantize.__file__)
    assert locator is not None
    assert locator.get_source_stamp() == source_stamp(Path(requantize.__file__))
    assert (
        KernelCacheLocator.from_function(test_the_locator_serves_the_kernels_and_nobody_else, __file__)
        is None
    )
    assert requantize.requantize_pixels.stats.cache_path == str(compile_cache.cache_directory())


def test_an_unwritable_directory_is_passed_over(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    occupied = tmp_path / "file"
    occupied.write_text("not a directory")
    monkeypatch.setattr(compile_cache, "_candidates", lambda: iter([occupied, tmp_path / "good"]))
    assert compile_cache.cache_directory.__wrapped__() == tmp_path / "good"
    monkeypatch.setattr(compile_cache, "_candidates", lambda: iter([occupied]))
    vanishing = compile_cache.cache_directory.__wrapped__()
    assert vanishing.is_dir()
    assert vanishing.stat().st_mode & 0o077 == 0 or sys.platform == "win32"


def test_the_variable_names_the_directory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(compile_cache.VARIABLE, str(tmp_path))
    assert compile_cache.cache_directory.__wrapped__().parent == tmp_path


RUN_A_LAYER = """
from refimpl.contract import Target
from refimpl.kernels import isa
from refimpl.kernels.convolution import convolve_tasks
from refimpl.profiles.rules import Rule
from tests.cases.weighted_layer import WeightedShape, weighted_layer
from tests.refimpl.kernel_against_spec import KERNELS, SPECS
import numpy as np
view, values = weighted_layer(WeightedShape("CONV_2D"), 0)
rule = Rule("gemmlowp", "float64")
output = np.empty(view.output().shape, view.output().dtype)
KERNELS["CONV_2D"](view, rule, Target(isa.chosen_isa()))(values, [output], None)
assert np.array_equal(output, SPECS["CONV_2D"][1](view, values, rule).outputs[0])
print(isa.chosen_isa(), sum(convolve_tasks.stats.cache_hits.values()))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="compares child processes' environments on POSIX")
def test_processors_share_a_directory_without_sharing_code(tmp_path: Path) -> None:
    """What this processor compiled is not loaded for one without its instructions, and is there after."""
    outcomes = []
    plain = {"NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": ""}
    for processor in ({}, plain, {}, plain):
        environment = {name: value for name, value in os.environ.items() if name != "KARAT_ISA"}
        environment |= {compile_cache.VARIABLE: str(tmp_path), **processor}
        done = subprocess.run(
            [sys.executable, "-c", RUN_A_LAYER], env=environment, capture_output=True, text=True, timeout=1800
        )
        assert done.returncode == 0, done.stderr
        outcomes.append(done.stdout.split())
    assert [isa for isa, _ in outcomes[1::2]] == ["portable", "portable"]
    assert [hits for _, hits in outcomes] == ["0", "0", "1", "1"]
