"""The plug-in in pytest runs of its own: what writes, what fails, and that nothing passes unlooked at."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from karat24.export.tflite import write_tflite
from tests.support.inner_pytest import load_kernels
from tests.support.small_network import small_graph

pytest_plugins = ["pytester"]

ROOT = Path(__file__).resolve().parents[2]

TEST = """
import pytest

@pytest.mark.karat24(model="small.tflite")
def test_model(karat24_golden):
    karat24_golden.check()
"""


@pytest.fixture(scope="module", autouse=True)
def loaded() -> None:
    load_kernels()


@pytest.fixture
def project(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """A folder with a model and a test of it; no plug-in is loaded but those that are named."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    (pytester.path / "small.tflite").write_bytes(write_tflite(small_graph()))
    (pytester.path / "test_it.py").write_text(TEST)
    return pytester


def run(project: pytest.Pytester, *arguments: str) -> pytest.RunResult:
    return project.runpytest_inprocess("-p", "karat24.pytest_plugin", "-p", "no:cacheprovider", *arguments)


def golden(project: pytest.Pytester, name: str = "test_model") -> Path:
    return project.path / "goldens" / "test_it" / f"{name}.golden.json"


def damage(project: pytest.Pytester) -> None:
    """Another model under the golden's name: its values differ, and so does its hash."""
    content = (project.path / "small.tflite").read_bytes()
    (project.path / "small.tflite").write_bytes(content + b"\0" * 4)


def test_a_missing_golden_is_written_and_fails(project: pytest.Pytester) -> None:
    run(project).assert_outcomes(failed=1)
    assert golden(project).is_file()
    run(project).assert_outcomes(passed=1)


def test_a_changed_model_fails_until_it_is_accepted(project: pytest.Pytester) -> None:
    run(project)
    damage(project)
    result = run(project)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*stale: recorded of*"])
    before = golden(project).read_bytes()
    run(project, "--karat24-force-regen").assert_outcomes(failed=1)
    assert golden(project).read_bytes() != before, "rewritten, and failed"
    run(project, "--karat24-force-regen").assert_outcomes(passed=1)
    run(project).assert_outcomes(passed=1)


def test_regenerating_all_passes(project: pytest.Pytester) -> None:
    run(project, "--karat24-regen-all").assert_outcomes(passed=1)
    damage(project)
    run(project, "--karat24-regen-all").assert_outcomes(passed=1)
    run(project).assert_outcomes(passed=1)


def test_a_damaged_golden_fails(project: pytest.Pytester) -> None:
    run(project)
    golden(project).write_bytes(golden(project).read_bytes()[:-9])
    result = run(project)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*damaged golden*"])
    run(project, "--karat24-regen-all").assert_outcomes(passed=1)
    run(project).assert_outcomes(passed=1)


MARK = "import pytest\n@pytest.mark.karat24(model='small.tflite')\n"


@pytest.mark.parametrize(
    "body",
    [MARK + "def test_model(): pass", "def test_model(karat24_golden): pass"],
    ids=["marked only", "fixture only"],
)
def test_a_test_that_looks_at_nothing_fails(project: pytest.Pytester, body: str) -> None:
    (project.path / "test_it.py").write_text(body)
    result = run(project)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*checks no golden*"])


def test_a_skipped_test_is_skipped(project: pytest.Pytester) -> None:
    (project.path / "test_it.py").write_text(
        MARK + "def test_model(karat24_golden): pytest.skip('not today')"
    )
    run(project).assert_outcomes(skipped=1)


def test_goldens_no_test_has_fail_the_session(project: pytest.Pytester) -> None:
    run(project, "--karat24-regen-all")
    golden(project, "test_gone").write_bytes(golden(project).read_bytes())
    gone = project.path / "goldens" / "test_no_module" / "test_model.golden.json"
    gone.parent.mkdir()
    gone.write_bytes(golden(project).read_bytes())
    result = run(project)
    result.assert_outcomes(passed=1)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(["*test_gone.golden.json: no test*", "*test_no_module*: no test*"])


def test_choosing_tests_makes_no_golden_stale(project: pytest.Pytester) -> None:
    """With -k, -m and ``file::test`` goldens of the tests left out stay."""
    other = "\ndef test_other(karat24_golden):\n    karat24_golden.check('small.tflite', name='a')\n"
    (project.path / "test_it.py").write_text(TEST + other)
    assert run(project, "--karat24-regen-all").ret == 0
    assert golden(project, "test_other~a").is_file()
    for arguments in (["-k", "model"], ["test_it.py::test_model"], ["-k", "nothing"]):
        assert run(project, *arguments).ret in (0, pytest.ExitCode.NO_TESTS_COLLECTED)


def test_parameters_have_goldens_of_their_own(project: pytest.Pytester) -> None:
    (project.path / "test_it.py").write_text(
        "import pytest\n@pytest.mark.parametrize('seed', ['a/b', 'a:b', 'plain'])\n"
        "def test_model(karat24_golden, seed): karat24_golden.check('small.tflite')\n"
    )
    run(project, "--karat24-regen-all").assert_outcomes(passed=3)
    assert len(list((project.path / "goldens").rglob("*.golden.json"))) == 3
    assert run(project).ret == 0


def test_under_xdist(project: pytest.Pytester) -> None:
    """Workers write goldens of their own, a stale one is reported once, and the session fails."""
    pytest.importorskip("xdist", reason="pytest-xdist is not installed")
    (project.path / "test_it.py").write_text(
        "import pytest\n@pytest.mark.parametrize('seed', range(4))\n"
        "def test_model(karat24_golden, seed): karat24_golden.check('small.tflite', seed=seed)\n"
    )
    golden(project, "test_gone").parent.mkdir(parents=True)
    golden(project, "test_gone").write_bytes(b"")
    result = project.runpytest_subprocess(
        "-p", "karat24.pytest_plugin", "-p", "xdist.plugin", "-n", "2", "--karat24-regen-all"
    )
    result.assert_outcomes(passed=4)
    assert len(list((project.path / "goldens").rglob("*.golden.json"))) == 5
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert result.stdout.str().count("test_gone.golden.json: no test") == 1


def test_the_installed_entry_point_is_this_plug_in() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["entry-points"]["pytest11"] == {"karat24": "karat24.pytest_plugin"}


def test_loading_it_costs_nothing() -> None:
    """Every pytest run of the environment loads it: it must not bring NumPy or Numba along."""
    script = "import sys, karat24.pytest_plugin; print(*sorted({'numpy', 'numba'} & set(sys.modules)))"
    found = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert found.stdout.split() == []
