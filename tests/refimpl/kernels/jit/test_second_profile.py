"""A network under a second profile: profiles differ in numbers, and compiled loops take them as arguments."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from karat24.refimpl.cheapest import codes_to_compile
from karat24.refimpl.engine import compile_graph
from karat24.refimpl.graph import Graph
from karat24.refimpl.kernels.jit.code import Code
from tests.shared_models import MODELS
from tests.support.flagships import TITLES, quantized

PROFILES = ("litert-2.3-ref", "litert-2.3-builtin", "litert-2.3-xnnpack", "tflite-2.14-ref", "tflm")

OTHER_ALGORITHMS = {
    "_softmax_fixed_point", "_softmax_float",
    "approximate_sums", "weighted_sums", "_look_up_pairs",
}  # fmt: skip
"""Loops of SOFTMAX and of ADD, which profiles compute by different algorithms, seconds to compile at most."""

SECOND_RUN = """
import sys
from numba.core.event import install_recorder
from karat24.feeds import random_feeds
from karat24.refimpl.engine import compile_graph
from karat24.export.cut import single_layer
from tests.support.small_network import small_graph

graph = single_layer(small_graph(), 0).graph
for profile in sys.argv[1:]:
    with install_recorder("numba:compile") as recorder:
        program = compile_graph(graph, profile, threads=1)
        program.run(random_feeds(program.graph, 0))
    print(len(recorder.buffer))
"""


@pytest.fixture
def nothing_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a machine that never ran karat24."""
    monkeypatch.setattr(Code, "is_compiled", property(lambda _: False))


def _needed(graph: Graph, profile: str) -> set[Code]:
    steps = compile_graph(graph, profile).steps
    return {code for code in codes_to_compile([(s.view, s.kernel) for s in steps]) if isinstance(code, Code)}


def _new_loops(graph: Graph) -> set[str]:
    """Names of the loops that some profile needs and not every other one."""
    needed = [_needed(graph, profile) for profile in PROFILES]
    assert all(needed)
    return {code.function.__name__ for code in set.union(*needed) - set.intersection(*needed)}


@pytest.mark.usefixtures("nothing_compiled")
@pytest.mark.parametrize("title", TITLES)
def test_our_networks_need_the_same_loops_under_every_profile(title: str) -> None:
    assert _new_loops(quantized(title, 64)) == set()


@pytest.mark.usefixtures("nothing_compiled")
@pytest.mark.parametrize(
    "name",
    [
        "mlperf_tiny/kws_ref_model.tflite",
        "mlperf_tiny/pretrainedResnet_quant.tflite",
        "coral/tf2_mobilenet_v2_1.0_224_ptq.tflite",
    ],
)
def test_public_models_need_other_loops_for_other_algorithms_alone(name: str) -> None:
    from karat24.export.tflite import read_tflite

    path = MODELS / name
    if not path.is_file():
        pytest.skip(f"{path} is absent; set KARAT24_MODELS to the folder of public models")
    assert _new_loops(read_tflite(path)) <= OTHER_ALGORITHMS


def test_a_convolution_compiles_once_for_all_profiles(tmp_path: Path) -> None:
    """Counted by Numba itself, in a process whose cache is empty."""
    environment = {**os.environ, "KARAT24_CACHE_DIR": str(tmp_path)}
    run = subprocess.run(
        [sys.executable, "-c", SECOND_RUN, *PROFILES],
        capture_output=True, text=True, check=False, env=environment, cwd=Path(__file__).parents[4],
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    first, *others = map(int, run.stdout.split())
    assert first > 3
    assert others == [0] * len(others)
