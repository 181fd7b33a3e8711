"""``karat24 warmup`` leaves nothing to compile for the networks that ship."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from karat24.export.quantize import PRESETS, quantize_model
from karat24.feeds import random_feeds
from karat24.refimpl.engine import compile_graph
from karat24.refimpl.kernels.jit.compile_cache import VARIABLE
from karat24.refimpl.networks import network
from karat24.refimpl.warmup import PROFILES, layers

COUNT = """
import sys
import numpy as np
from numba.core.dispatcher import Dispatcher
from karat24.export.quantize import PRESETS, quantize_model
from karat24.feeds import random_feeds
from karat24.refimpl.engine import compile_graph
from karat24.refimpl.networks import network
for name, upsampling in (("tomogan", "bilinear"), ("tomogan", "transposed"), ("fine-tune", "bilinear")):
    for preset in PRESETS:
        if preset == "int16x8":  # its convolutions are not compiled, and XNNPACK's profile has none
            continue
        graph = network(name, 64, 64, upsampling)
        sample = np.random.default_rng(0).random(graph.tensors[graph.inputs[0]].shape, np.float32)
        quantized = quantize_model(graph, [sample], PRESETS[preset])
        for profile in sys.argv[1:]:
            compile_graph(quantized, profile).run(random_feeds(quantized, 0))
missed = [
    f"{module.__name__}.{name}"
    for module in list(sys.modules.values()) if (module.__name__ or "").startswith("karat24.refimpl.kernels")
    for name, value in vars(module).items()
    if isinstance(value, Dispatcher) and sum(value.stats.cache_misses.values())
]
print(*missed)
"""


@pytest.mark.slow
def test_nothing_is_left_to_compile_for_the_flagships(tmp_path: Path) -> None:
    """From an empty cache: what other tests compiled must not help."""
    environment = {**os.environ, VARIABLE: str(tmp_path)}
    root = Path(__file__).resolve().parents[3]
    warmup = "import sys; from karat24.cli.main import main; sys.exit(main(['warmup']))"
    commands = ([sys.executable, "-c", warmup], [sys.executable, "-c", COUNT, *PROFILES])
    warmed, counted = (
        subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, timeout=1800)
        for command in commands
    )
    assert warmed.returncode == 0, warmed.stderr
    assert f"{len(PROFILES) * len(list(layers()))} layers run for " in warmed.stdout
    assert str(tmp_path) in warmed.stdout
    assert counted.returncode == 0, counted.stderr
    assert counted.stdout.split() == []


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
