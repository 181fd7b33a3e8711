"""What a program lacks is compiled ahead, in processes of its own, and found in the cache afterwards."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from karat24.refimpl.contract import LOCKS_NOTHING
from karat24.refimpl.kernels.jit import code
from karat24.refimpl.kernels.jit.code import Code, processes_for

LINUX = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="processes are forked on Linux only")

COMPILED_AHEAD = """
import sys
from karat24.refimpl.cheapest import codes_to_compile, seconds_to_compile
from karat24.refimpl.engine import compile_graph
from karat24.refimpl.contract import LOCKS_NOTHING
from karat24.refimpl.kernels.jit import code
from karat24.feeds import random_feeds
from tests.support.small_network import small_graph

if sys.argv[1] == "dies":
    code._compile_and_leave = lambda codes: code.os._exit(1)
code._processors = lambda: 2
program = compile_graph(small_graph(), threads=1)
layers = [(step.view, step.kernel) for step in program.steps]
codes = codes_to_compile(layers)
assert len(codes) > len(set(one.function for one in codes)) - 1 > 2, codes
code.compile_ahead(codes)
print(len(codes), len(codes_to_compile(layers)), int(seconds_to_compile(layers) > 0), end=" ")
program.run(random_feeds(program.graph, 0), trace=True)
hits = sum(sum(one.function.stats.cache_hits.values()) for one in codes)
misses = sum(sum(one.function.stats.cache_misses.values()) for one in codes)
print(hits, misses)
"""


def _compiled_ahead(cache: Path, how: str) -> list[int]:
    environment = {**os.environ, "KARAT24_CACHE_DIR": str(cache)}
    run = subprocess.run(
        [sys.executable, "-c", COMPILED_AHEAD, how],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )
    assert run.returncode == 0, run.stderr
    return [int(number) for number in run.stdout.split()]


@LINUX
@pytest.mark.slow
def test_other_processes_compile_everything_and_this_one_loads_it(tmp_path: Path) -> None:
    codes, left, seconds, hits, misses = _compiled_ahead(tmp_path, "lives")
    assert (left, seconds, misses) == (0, 0, 0)
    assert hits == codes


@LINUX
@pytest.mark.slow
def test_what_a_process_leaves_is_compiled_here(tmp_path: Path) -> None:
    codes, left, seconds, hits, misses = _compiled_ahead(tmp_path, "dies")
    assert (left, seconds, hits) == (codes, 1, 0)
    assert misses == codes


def test_a_process_with_threads_is_not_forked(monkeypatch: pytest.MonkeyPatch) -> None:
    main = threading.current_thread()
    reader, worker = threading.Thread(name=LOCKS_NOTHING), threading.Thread(name="worker")
    codes = [Code(None, (number,)) for number in range(3)]
    monkeypatch.setattr(code, "_processors", lambda: 8)
    for platform, threads, expected in (
        ("linux", [main], 3),
        ("linux", [main, reader], 3),
        ("linux", [main, worker], 1),
        ("darwin", [main], 1),
    ):
        monkeypatch.setattr(sys, "platform", platform)
        monkeypatch.setattr(threading, "enumerate", lambda threads=threads: threads)
        assert processes_for(codes) == expected
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(threading, "enumerate", lambda: [main])
    assert processes_for([]) == 1
