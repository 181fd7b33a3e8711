"""Killing a process that writes goldens leaves the old one or the new one, whole, with its arrays."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.small_golden import small_golden

KILLS = 50

SCRIPT = """
import os, random, signal, sys, time
from pathlib import Path
from karat24.golden.goldens import read_golden
from karat24.golden.goldens.files import leftovers, stored_arrays
from karat24.goldens import propose_golden

model, path, kills = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
proposals = [propose_golden(model, path, seed=seed, keep="all") for seed in (0, 1)]
expected = [proposal.write() for proposal in proposals]
moments = random.Random(24)
start = time.perf_counter()
proposals[0].write()
one_write = time.perf_counter() - start
seen = set()
for _ in range(kills):
    begun, tell = os.pipe()
    child = os.fork()
    if child == 0:
        while True:  # until killed
            for proposal in proposals:
                os.write(tell, b".")
                proposal.write()
    for _ in range(moments.randint(1, 4)):  # a busy machine starts the writer late
        os.read(begun, 1)
    time.sleep(moments.uniform(0.0, one_write))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    os.close(begun)
    os.close(tell)
    golden = read_golden(path)
    assert golden in expected, "a golden that nobody wrote"
    written = {tensor.tensor for tensor in golden.tensors}
    assert stored_arrays(path, golden, written).keys() == written, "values of a golden are missing"
    seen.add(expected.index(golden))
assert seen == {0, 1}, "both goldens must have been left at least once"
print(len(list(leftovers(path.parent))))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the writers are forked, which this system cannot do")
def test_killed_at_random_moments(tmp_path: Path) -> None:
    small = small_golden(tmp_path)
    command = [sys.executable, "-c", SCRIPT, str(small.model), str(small.path), str(KILLS)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[3])
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 0, "no writer was killed in the middle of its work"
