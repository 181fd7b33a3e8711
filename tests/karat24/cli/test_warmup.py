"""``karat24 warmup`` leaves nothing to compile for the networks that ship."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from karat24.export.quantize import PRESETS, quantize_model
from karat24.feeds import random_feeds
from karat24.refimpl.engine import compile_graph
from karat24.refimpl.kernels.jit.compile_cache import cache_directory
from karat24.refimpl.networks import network
from karat24.refimpl.warmup import PROFILES, layers

COUNT = """
import gc
import sys
import numpy as np
from numba.core.dispatcher import Dispatcher
from karat24.cli.main import main
from karat24.export.quantize import PRESETS, quantize_model
from karat24.feeds import random_feeds
from karat24.refimpl.engine import compile_graph
from karat24.refimpl.networks import network

def codes():
    return {
        (loop.py_func.__module__, loop.py_func.__qualname__, kinds)
        for loop in gc.get_objects() if isinstance(loop, Dispatcher)
        if loop.py_func.__module__.startswith("karat24.refimpl.kernels")
        for kinds in loop.overloads
    }

assert main(["warmup"]) == 0
warm = codes()
for name, upsampling in (("tomogan", "bilinear"), ("tomogan", "transposed"), ("fine-tune", "bilinear")):
    for preset in PRESETS:
        if preset == "int16x8":  # its convolutions are not compiled, and XNNPACK's profile has none
            continue
        graph = network(name, 64, 64, upsampling)
        sample = np.random.default_rng(0).random(graph.tensors[graph.inputs[0]].shape, np.float32)
        quantized = quantize_model(graph, [sample], PRESETS[preset])
        for profile in sys.argv[1:]:
            compile_graph(quantized, profile).run(random_feeds(quantized, 0))
print(len(warm), *(f"{module}.{name}" for module, name, kinds in codes() - warm))
"""


@pytest.mark.slow
def test_nothing_is_left_to_compile_for_the_flagships() -> None:
    """In a process of its own: what others compiled is loaded at most, and counts as this process's code."""
    run = subprocess.run(
        [sys.executable, "-c", COUNT, *PROFILES], cwd=Path(__file__).resolve().parents[3],
        capture_output=True, text=True, timeout=1800, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    assert f"{len(PROFILES) * len(list(layers()))} layers run for " in run.stdout
    assert str(cache_directory()) in run.stdout
    count, *missed = run.stdout.splitlines()[-1].split()
    assert int(count) > 50
    assert missed == []


def test_the_layers_meet_every_weighted_op() -> None:
    ops = {graph.layers[0].op for _, graph in layers()}
    assert {"CONV_2D", "DEPTHWISE_CONV_2D", "TRANSPOSE_CONV", "FULLY_CONNECTED"} <= ops


def test_threads_do_not_change_a_bit() -> None:
    """A network whose layers are large enough to be shared out, traced with one thread and with two."""
    graph = network("tomogan", 64, 64, "transposed")
    sample = np.random.default_rng(0).random(graph.tensors[graph.inputs[0]].shape, np.float32)
    quantized = quantize_model(graph, [sample], PRESETS["int8"])
    feeds = random_feeds(quantized, 1)
    one, two = (compile_graph(quantized, threads=n).run(feeds, accumulators=True).trace for n in (1, 2))
    assert one is not None
    assert two is not None
    for index, value in one.tensors.items():
        np.testing.assert_array_equal(two.tensors[index], value)
    for index, value in one.accumulators.items():
        np.testing.assert_array_equal(two.accumulators[index], value)
