"""Code that several processes compiled into one cache, loaded by another process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from karat24.refimpl.kernels.jit.compile_cache import VARIABLE
from karat24.refimpl.kernels.microkernel.microkernel import MICROKERNELS, OF_PAIRS, SINGLE_PIXEL
from karat24.refimpl.kernels.microkernel.row import multiply_row
from tests.support.kernel_against_spec import targets

ROOT = Path(__file__).parents[4]

SCRIPT = """
import sys
import numpy as np
from karat24.refimpl.contract import Target
from karat24.refimpl.kernels import KERNELS
from karat24.refimpl.kernels.microkernel.row import multiply_row
from karat24.refimpl.ops import OPS
from tests.cases.weighted_layer import weighted_layer
from tests.refimpl.kernels.convolution.test_dense import EDGES
from tests.support.kernel_against_spec import RULES
view, values = weighted_layer(next(iter(EDGES.values())), 0)
expected = OPS[view.op].spec(view, values, RULES[0]).outputs[0]
kernels = {isa: KERNELS[view.op](view, RULES[0], Target(isa=isa, threads=1)) for isa in sys.argv[1:]}
for kernel in kernels.values():
    multiply_row(kernel.plan.microkernel).code.address  # before all else, so that processes number it alike
for isa, kernel in kernels.items():
    found = np.empty(expected.shape, expected.dtype)
    kernel(values, [found], None)
    if not np.array_equal(found, expected):
        raise SystemExit(f"{isa} computes other values")
"""


def computed(folder: Path, *isas: str) -> str:
    """What a process complains of that runs a convolution on these instruction sets, with this cache."""
    run = subprocess.run(
        [sys.executable, "-c", SCRIPT, *isas], cwd=ROOT, env={**os.environ, VARIABLE: str(folder)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    return f"exit code {run.returncode}: {run.stderr}" if run.returncode else ""


def test_functions_of_several_processes_are_told_apart(tmp_path: Path) -> None:
    """Each compiles one micro-kernel's row as its first; the last process loads the code of all."""
    isas = list(dict.fromkeys(target.isa for target in targets((1,))))
    if len(isas) < 2:
        pytest.skip(f"this machine runs one instruction set only: {isas[0]}")
    for isa in isas:
        assert computed(tmp_path, isa) == ""
    assert computed(tmp_path, *isas) == ""
    assert computed(tmp_path, *reversed(isas)) == ""


def test_no_two_micro_kernels_share_a_name() -> None:
    groups = (*MICROKERNELS.values(), *SINGLE_PIXEL.values(), tuple(OF_PAIRS.values()))
    kernels = [kernel for group in groups for kernel in group]
    rows = {multiply_row(kernel).code.function for kernel in kernels}
    assert len({row.py_func.__qualname__ for row in rows}) == len(rows) > 3
