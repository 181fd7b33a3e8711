"""Instruction sets: chosen at run time, forced by KARAT24_ISA, emitting the instructions in their names."""

from __future__ import annotations

import errno
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Any

import llvmlite.binding as llvm
import numpy as np
import pytest
from llvmlite import ir

from karat24.refimpl.contract import Target
from karat24.refimpl.engine import compile_graph
from karat24.refimpl.errors import UsageError
from karat24.refimpl.kernels.convolution.dense import DenseConvolution
from karat24.refimpl.kernels.depthwise.row_block import STRIDES, TAPS, emit_row
from karat24.refimpl.kernels.jit import isa
from karat24.refimpl.kernels.microkernel.blocking import pixels_at_once
from karat24.refimpl.kernels.microkernel.microkernel import (
    _BY_BLOCKING,
    DEPTHWISE_PIXELS,
    MICROKERNELS,
    OF_PAIRS,
    SINGLE_PIXEL,
    Microkernel,
    microkernel_for,
)
from karat24.refimpl.profiles.rules import Rule
from tests.cases.weighted_layer import WeightedShape, weighted_layer
from tests.support.kernel_against_spec import assert_kernel_equals_spec
from tests.support.small_network import small_graph

X86 = "x86_64-unknown-linux-gnu"
MACHINES = {
    "amx": (X86, "sapphirerapids", ("tdpbusd", "tileloadd", "tilestored", "ldtilecfg", "tilerelease")),
    "avx512vnni": (X86, "cascadelake", ("vpdpbusd", "zmm")),
    "avx2": (X86, "haswell", ("vpmaddwd", "ymm")),
    "dotprod": ("aarch64-unknown-linux-gnu", "neoverse-n1", ("sdot",)),
    "portable": (X86, "x86-64", ("pmaddwd",)),
}
"""Instruction set to a machine that has it, and what its code must contain."""


def assembly(kernel: Microkernel, triple: str, cpu: str, pixels: int | None = None) -> str:
    """The micro-kernel alone, compiled and optimized for a machine that need not be this one; only its
    code for so many pixels, if they are given."""

    def emit(builder: ir.IRBuilder, arguments: Sequence[Any]) -> None:
        if kernel.open is not None:
            kernel.open(builder)
        known = arguments[0] if pixels is None else ir.Constant(ir.IntType(64), pixels)
        kernel.emit(builder, [known, *arguments[1:]])
        if kernel.close is not None:
            kernel.close(builder)

    return compiled(emit, 10, triple, cpu)


def compiled(
    emit: Callable[[ir.IRBuilder, Sequence[Any]], None], arguments: int, triple: str, cpu: str
) -> str:
    """The assembly of a function of so many int64 whose code ``emit`` writes."""
    module = ir.Module()
    module.triple = triple
    kind = ir.FunctionType(ir.VoidType(), [ir.IntType(64)] * arguments)
    function = ir.Function(module, kind, "block")
    builder = ir.IRBuilder(function.append_basic_block())
    emit(builder, function.args)
    builder.ret_void()
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    machine = llvm.Target.from_triple(triple).create_target_machine(cpu=cpu, opt=3)
    parsed = llvm.parse_assembly(str(module))
    passes = llvm.create_pass_builder(machine, llvm.create_pipeline_tuning_options(speed_level=3))
    passes.getModulePassManager().run(parsed, passes)
    text: str = machine.emit_assembly(parsed)
    return text


@pytest.mark.parametrize("name", MICROKERNELS)
def test_the_micro_kernel_compiles_to_its_instructions(name: str) -> None:
    triple, cpu, instructions = MACHINES[name]
    for kernel in MICROKERNELS[name]:
        text = assembly(kernel, triple, cpu)
        for instruction in instructions:
            assert instruction in text, f"{name} {kernel.blocking}"


@pytest.mark.parametrize("name", MACHINES)
@pytest.mark.parametrize("stride", STRIDES)
def test_columns_of_depthwise_filters_take_the_same_instruction(name: str, stride: int) -> None:
    """Three products a pixel for a block of channels, of int16 twice as many; 32 registers spill none."""
    triple, cpu, instructions = MACHINES[name]
    multiply = "vpdpbusd" if name == "amx" else instructions[0]
    kernel = microkernel_for(name, 1)

    def emit(builder: ir.IRBuilder, arguments: Sequence[Any]) -> None:
        emit_row(builder, kernel, stride, arguments)

    lines = compiled(emit, 9, triple, cpu).splitlines()
    products = -(-TAPS // kernel.values_per_word) * TAPS * kernel.channelwise.vectors * (DEPTHWISE_PIXELS + 1)
    assert sum(multiply in line for line in lines) >= products
    if multiply == "vpdpbusd":
        assert not [line for line in lines if "zmm" in line and "rsp" in line]


def test_pairs_of_int16_are_multiplied_by_their_own_instruction() -> None:
    """In the one kernel that has no bytes; for every number of pixels, sums in registers."""
    kernel = OF_PAIRS["avx512vnni"]
    for pixels in (4, 8, 12):
        lines = assembly(kernel, X86, "cascadelake", pixels).splitlines()
        assert sum("vpdpwssd" in line for line in lines) >= 2 * pixels
        assert not [line for line in lines if "zmm" in line and "rsp" in line]


@pytest.mark.parametrize("name", ["avx512vnni", "avx2"])
def test_a_single_pixel_has_a_kernel_of_its_own(name: str) -> None:
    """At least four vectors of sums, in registers; taken for one pixel and two, not for three."""
    triple, cpu, (multiply, *_) = MACHINES[name]
    for kernel, filters in zip(SINGLE_PIXEL[name], (16, 17), strict=True):
        lines = assembly(kernel, triple, cpu).splitlines()
        vectors = kernel.blocking.channels // {"avx2": 8, "avx512vnni": 16}[name]
        count = sum(multiply in line for line in lines)
        assert count >= 4
        assert count % vectors == 0
        assert not [line for line in lines if multiply in line and "rsp" in line]
        taken = [microkernel_for(name, filters, pixels) is kernel for pixels in (1, 2, 3, None)]
        assert taken == [True, True, False, False]


@pytest.mark.parametrize("name", ["avx2", "avx512vnni", "dotprod"])
def test_sums_stay_in_registers(name: str) -> None:
    """A multiplication per pixel and vector at least; none of them, and no store, with a spilled sum."""
    triple, cpu, (multiply, *_) = MACHINES[name]
    for kernel in MICROKERNELS[name]:
        lanes, register = {"avx2": (8, "ymm"), "avx512vnni": (16, "zmm"), "dotprod": (4, "q")}[name]
        block = kernel.blocking
        for pixels in range(block.part, block.pixels + 1, block.part):
            lines = assembly(kernel, triple, cpu, pixels).splitlines()
            count = sum(multiply in line for line in lines)
            assert count >= pixels * block.channels // lanes
            spilled = [line for line in lines if ("rsp" in line or "[sp" in line) and register in line]
            assert not spilled


def test_avx2_uses_nothing_wider_than_256_bits() -> None:
    (kernel,) = MICROKERNELS["avx2"]
    assert "zmm" not in assembly(kernel, X86, "znver4")


def test_portable_names_no_instruction_of_any_machine() -> None:
    (kernel,) = MICROKERNELS["portable"]
    for triple, cpu in ((X86, "x86-64"), ("aarch64-unknown-linux-gnu", "generic")):
        assert assembly(kernel, triple, cpu)
    module = ir.Module()
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), [ir.IntType(64)] * 10), "block")
    kernel.emit(ir.IRBuilder(function.append_basic_block()), function.args)
    assert "llvm.x86" not in str(module)
    assert "llvm.aarch64" not in str(module)


@pytest.mark.parametrize("name", isa.FEATURES)
def test_kernels_of_each_instruction_set_equal_the_spec(name: str) -> None:
    """A convolution with tails everywhere; a skip says why an instruction set cannot run here."""
    reason = isa.why_not(name)
    if reason is not None:
        pytest.skip(f"{name} cannot run here: {reason}")
    shape = WeightedShape("CONV_2D", size=(9, 70), channels=67, filters=35)
    view, values = weighted_layer(shape, 0)
    assert_kernel_equals_spec(view, values, Rule("gemmlowp", "float64"))


def test_narrow_layers_take_the_narrow_kernel() -> None:
    assert microkernel_for("avx512vnni", 16).blocking.channels == 16
    assert microkernel_for("avx512vnni", 17).blocking.channels == 32


@pytest.mark.parametrize(
    ("filters", "pixels", "channels"),
    [
        (40, 98, 16),  # 48 channels, not 64
        (144, None, 16),  # 144, not 160
        (40, 4, 32),  # 64 channels of four pixels, not 48 of eight
        (64, 98, 32),  # equally many: the wide kernel reads pixels half as often
        (40, 10**9, 16),  # counted in no time
    ],
)
def test_the_kernel_that_computes_least_is_taken(filters: int, pixels: int | None, channels: int) -> None:
    assert microkernel_for("avx512vnni", filters, pixels).blocking.channels == channels


def test_rows_are_cut_into_the_blocks_there_is_code_for() -> None:
    """No more pixels computed than a part of a block too many, whatever the row's length."""
    for kernel in _BY_BLOCKING.values():
        blocking = kernel.blocking
        for pixels in range(1, 4 * blocking.pixels):
            done = 0
            while done < pixels:
                size = pixels_at_once.py_func(blocking, pixels - done)
                assert size in range(blocking.part, blocking.pixels + 1, blocking.part)
                done += size
            assert done < pixels + blocking.part, (blocking, pixels)


def test_bytes_of_weights_come_back_in_sum() -> None:
    """-255 to 255 in at most three int8 parts, none superfluous."""
    kernel = microkernel_for("avx512vnni", 32)
    for values, parts in ((range(-128, 128), 1), (range(-255, 255), 2), (range(-255, 256), 3)):
        weights = np.array(values, np.int16).reshape(-1, 1, 1)
        split = kernel.split(weights)
        assert len(split) == parts
        np.testing.assert_array_equal(sum(split), weights)


@pytest.fixture
def _unforced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(isa.VARIABLE, raising=False)


def test_the_variable_forces_an_instruction_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(isa.VARIABLE, "portable")
    graph = small_graph()
    program = compile_graph(graph)
    assert program.target.isa == "portable"
    kernels = [step.kernel for step in program.steps if isinstance(step.kernel, DenseConvolution)]
    assert kernels
    assert all(type(kernel.plan.microkernel.blocking).__name__ == "Portable" for kernel in kernels)


@pytest.mark.parametrize(
    ("error", "said"), [(errno.ENOSPC, "signal stack"), (errno.EINVAL, "needs kernel"), (0, None)]
)
def test_a_refusal_of_tiles_says_what_would_help(
    error: int, said: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Library:
        @staticmethod
        def syscall(*_: int) -> int:
            return -1 if error else 0

    monkeypatch.setattr(isa.sys, "platform", "linux")
    monkeypatch.setattr(isa.ctypes, "CDLL", lambda *_, **__: Library)
    monkeypatch.setattr(isa.ctypes, "get_errno", lambda: error)
    answer = isa._tile_permission.__wrapped__()
    assert (answer is None) == (said is None)
    assert said is None or said in answer


def test_an_unknown_instruction_set_is_a_usage_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(isa.VARIABLE, "mmx")
    with pytest.raises(UsageError, match=r"KARAT24_ISA=mmx .*amx, avx512vnni, avx2, dotprod, portable"):
        compile_graph(small_graph())


def test_one_that_cannot_run_here_is_a_usage_error_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    absent = next(name for name in isa.FEATURES if "belongs to" in (isa.why_not(name) or ""))
    monkeypatch.setenv(isa.VARIABLE, absent)
    with pytest.raises(UsageError, match=rf"KARAT24_ISA={absent} cannot run here: it belongs to .*portable"):
        compile_graph(small_graph())


@pytest.mark.usefixtures("_unforced")
def test_every_set_passed_over_is_logged_with_the_reason(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    features = isa.FEATURES["amx"] | isa.FEATURES["avx2"]
    monkeypatch.setattr(isa, "_compiled_for", lambda: ("x86_64", features))
    monkeypatch.setattr(isa, "_tile_permission", lambda: "Linux refused")
    monkeypatch.setattr(isa, "_best", isa._best.__wrapped__)
    with caplog.at_level(logging.INFO, logger=isa.__name__):
        assert isa.chosen_isa() == "avx2"
    assert "amx not used: Linux refused" in caplog.text
    assert "avx512vnni not used: the processor" in caplog.text


@pytest.mark.usefixtures("_unforced")
def test_arm_takes_dot_products_before_plain_code(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(isa, "_best", isa._best.__wrapped__)
    for features, expected in (
        (frozenset({"dotprod", "neon"}), "dotprod"),
        (frozenset({"neon"}), "portable"),
    ):
        monkeypatch.setattr(isa, "_compiled_for", lambda features=features: ("aarch64", features))
        assert isa.chosen_isa() == expected


@pytest.mark.parametrize(
    ("cpu", "features", "expected"),
    [
        ("neoverse-n1", "+neon,-sve", True),  # what LLVM lists of such a machine: no dotprod
        ("apple-m1", "", True),
        ("cortex-a53", "+neon", False),
        ("generic", "+neon,+sve2", False),
        ("generic", "+neon,+dotprod", True),
        ("neoverse-n1", "-dotprod", False),
    ],
)
def test_llvm_is_asked_whether_it_compiles_dot_products(cpu: str, features: str, expected: bool) -> None:
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    assert isa._compiles_to_dot_products(MACHINES["dotprod"][0], cpu, features) == expected


@pytest.mark.parametrize("processor_has", [True, False])
def test_dot_products_need_the_processor_and_llvm(
    monkeypatch: pytest.MonkeyPatch, processor_has: bool
) -> None:
    from numba.core.registry import cpu_target

    class Codegen:
        @staticmethod
        def magic_tuple() -> tuple[str, str, str]:
            return MACHINES["dotprod"][0], "neoverse-n1", "+neon"

    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    monkeypatch.setattr(type(cpu_target.target_context), "codegen", lambda _: Codegen)
    monkeypatch.setattr(isa, "_processor_has_dot_products", lambda: processor_has)
    _, features = isa._compiled_for.__wrapped__()
    assert ("dotprod" in features) == processor_has


@pytest.mark.slow
def test_a_processor_without_any_extension_runs_portable() -> None:
    """Numba told to compile for the oldest x86-64 there is: everything falls back, and the bits stay."""
    code = (
        "from karat24.refimpl.contract import Target\n"
        "from karat24.refimpl.kernels.jit import isa\n"
        "from tests.cases.weighted_layer import WeightedShape, weighted_layer\n"
        "from tests.support import kernel_against_spec as t\n"
        "assert isa.chosen_isa() == 'portable' and t.ISAS == ('portable',)\n"
        "for op in t.SPECS:\n"
        "    t.assert_kernel_equals_spec(*weighted_layer(WeightedShape(op), 0), t.RULES[0])\n"
    )
    environment = {name: value for name, value in os.environ.items() if name != isa.VARIABLE}
    environment |= {"NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": ""}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=1800
    )
    assert done.returncode == 0, done.stderr


def test_the_trace_tells_the_instruction_set() -> None:
    graph = small_graph()
    from karat24.feeds import random_feeds

    trace = compile_graph(graph).run(random_feeds(graph, 0), trace=True).trace
    assert trace is not None
    assert trace.versions["isa"] == isa.chosen_isa()
    assert Target().isa == "portable"
