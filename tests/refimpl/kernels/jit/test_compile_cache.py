"""Compiled kernels: out of date when any source they contain changed, and one directory for many machines."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import types
from pathlib import Path

import pytest
from numba.core import caching

from karat24.refimpl.kernels.jit import compile_cache
from karat24.refimpl.kernels.jit.compile_cache import KernelCacheLocator, source_stamp
from karat24.refimpl.kernels.rounding import requantize

KERNELS = Path(requantize.__file__).parents[1]


def test_an_edit_anywhere_below_changes_the_stamp_and_nothing_else_does(tmp_path: Path) -> None:
    """dense.py imports microkernel.py, which imports vector_blocks.py and that llvm_ir.py, each of another
    folder; fixed_point.py imports none of them."""
    root = tmp_path / "kernels"
    shutil.copytree(KERNELS, root, ignore=shutil.ignore_patterns("__pycache__"))
    dense, fixed_point = root / "convolution" / "dense.py", root / "rounding" / "fixed_point.py"
    llvm_ir, blocks = root / "jit" / "llvm_ir.py", root / "microkernel" / "vector_blocks.py"
    files = (dense, fixed_point, llvm_ir, blocks)
    before = {path: source_stamp(path, root) for path in files}
    assert before == {path: source_stamp(KERNELS / path.relative_to(root)) for path in files}
    llvm_ir.write_text(llvm_ir.read_text() + "\nCHANGED = 1\n")
    assert {path for path in files if before[path] != source_stamp(path, root)} == {dense, llvm_ir, blocks}


@pytest.mark.parametrize(
    "line",
    [
        "from karat24.refimpl.kernels.folder.below import thing",
        "from karat24.refimpl.kernels.folder import below",
        "from karat24.refimpl.kernels.folder import beside, below as under",
        "from karat24.refimpl.kernels.folder import (\n    beside,\n    below,\n)",
        "def late():\n    from karat24.refimpl.kernels.folder.below import thing",
    ],
)
def test_every_way_to_import_a_kernel_file_counts(line: str, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    below, above = tmp_path / "folder" / "below.py", tmp_path / "above.py"
    below.write_text("thing = 1\n")
    above.write_text(f"{line}\n")
    before = source_stamp(above, tmp_path)
    below.write_text("thing = 2\n")
    assert source_stamp(above, tmp_path) != before


def test_files_of_one_name_in_two_folders_keep_their_code_apart() -> None:
    """Numba names a file of code by module (without its folder), function and what the locator answers."""
    first, second, third = (
        KernelCacheLocator(KERNELS / path, 7).get_disambiguator().rpartition("-")[0]
        for path in ("depthwise/convolution.py", "convolution/winograd/convolution.py", "__init__.py")
    )
    assert len({first, second, third}) == 3
    assert (
        KernelCacheLocator(KERNELS / "depthwise/convolution.py", 8).get_disambiguator().rpartition("-")[0]
        != first
    )


def test_an_index_of_other_sources_is_not_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    """Unpickling one raises AttributeError where a type in it has moved to another file."""
    locator = KernelCacheLocator(KERNELS / "depthwise" / "convolution.py", 7)
    now = locator.get_disambiguator()
    monkeypatch.setattr(compile_cache, "_stamp_once", lambda _: "0" * 64)
    assert locator.get_disambiguator() != now


@pytest.mark.parametrize("damage", ["a type's module is gone", "a type is gone", "cut short", "empty"])
def test_an_index_that_cannot_be_read_counts_as_empty(
    damage: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """What is compiled then is kept as ever. Numba's own caches stay as they are."""
    monkeypatch.setattr(compile_cache, "cache_directory", lambda: tmp_path)
    module = types.ModuleType("module_that_moves")
    module.Key = type("Key", (), {"__module__": module.__name__})  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    caching.IndexDataCacheFile(str(tmp_path), "loop", "stamp").save(module.Key(), "code")
    (index,) = tmp_path.glob("*.nbi")
    if damage == "a type's module is gone":
        monkeypatch.delitem(sys.modules, module.__name__)
    elif damage == "a type is gone":
        del module.Key
    else:
        index.write_bytes(index.read_bytes()[: 40 if damage == "cut short" else 0])
    file = caching.IndexDataCacheFile(str(tmp_path), "loop", "stamp")
    assert file.load("b") is None
    file.save("b", "code of b")
    assert file.load("b") == "code of b"

    index.write_bytes(b"")
    monkeypatch.setattr(compile_cache, "cache_directory", lambda: tmp_path / "another")
    with pytest.raises(EOFError):
        file.load("b")


def test_the_locator_serves_every_folder() -> None:
    for folder in ("", "jit", "convolution/winograd"):
        source = next((KERNELS / folder).glob("*.py"))
        assert KernelCacheLocator.from_function(test_the_locator_serves_every_folder, str(source)) is not None


def test_the_locator_serves_the_kernels_and_nobody_else() -> None:
    function = requantize._requantize.py_func
    locator = KernelCacheLocator.from_function(function, requantize.__file__)
    assert locator is not None
    assert locator.get_source_stamp() == source_stamp(Path(requantize.__file__))
    assert (
        KernelCacheLocator.from_function(test_the_locator_serves_the_kernels_and_nobody_else, __file__)
        is None
    )
    assert requantize._requantize.stats.cache_path == str(compile_cache.cache_directory())


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
from karat24.refimpl.contract import Target
from karat24.refimpl.kernels.jit import isa
from karat24.refimpl.kernels.convolution.dense import convolve_tasks
from karat24.refimpl.profiles.rules import Rule
from tests.cases.weighted_layer import WeightedShape, weighted_layer
from tests.support.kernel_against_spec import KERNELS, SPECS
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
        environment = {name: value for name, value in os.environ.items() if name != "KARAT24_ISA"}
        environment |= {compile_cache.VARIABLE: str(tmp_path), **processor}
        done = subprocess.run(
            [sys.executable, "-c", RUN_A_LAYER], env=environment, capture_output=True, text=True, timeout=1800
        )
        assert done.returncode == 0, done.stderr
        outcomes.append(done.stdout.split())
    assert [isa for isa, _ in outcomes[1::2]] == ["portable", "portable"]
    assert [hits for _, hits in outcomes] == ["0", "0", "1", "1"]


def test_processes_that_write_at_once_write_files_of_their_own(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Both have read an index without codes; each must find its own code afterwards, or none."""
    monkeypatch.setattr(compile_cache, "cache_directory", lambda: tmp_path)
    files = [caching.IndexDataCacheFile(str(tmp_path), "loop", "stamp") for _ in range(2)]
    for file in files:
        monkeypatch.setattr(file, "_load_index", dict)
    for number, (key, file) in enumerate(zip("ab", files, strict=True)):
        monkeypatch.setattr(compile_cache, "_TOKEN", f"process{number}")
        file.save(key, f"code of {key}")
    reader = caching.IndexDataCacheFile(str(tmp_path), "loop", "stamp")
    assert [reader.load(key) for key in "ab"] == [None, "code of b"]
    assert len(list(tmp_path.glob("*.nbc"))) == 2
