"""A golden is of what its test names: another model, input or profile fails; no golden is stale in vain."""

from __future__ import annotations

from pathlib import Path

import pytest

from karat24.export.tflite import write_tflite
from tests.support.inner_pytest import load_kernels
from tests.support.int8_networks import plain
from tests.support.small_network import small_graph

pytest_plugins = ["pytester"]

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module", autouse=True)
def loaded() -> None:
    load_kernels()


@pytest.fixture
def project(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """A folder with two models and a golden of the first; no plug-in is loaded but those that are named."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    (pytester.path / "small.tflite").write_bytes(write_tflite(small_graph()))
    (pytester.path / "other.tflite").write_bytes(write_tflite(plain()))
    write(pytester, "model='small.tflite'")
    run(pytester, "--karat24-regen-all").assert_outcomes(passed=1)
    run(pytester).assert_outcomes(passed=1)
    return pytester


def write(project: pytest.Pytester, marked: str) -> None:
    (project.path / "test_it.py").write_text(
        f"import pytest\n@pytest.mark.karat24({marked})\n"
        "def test_model(karat24_golden): karat24_golden.check()\n"
    )


def run(project: pytest.Pytester, *arguments: str) -> pytest.RunResult:
    return project.runpytest_inprocess("-p", "karat24.pytest_plugin", *arguments)


@pytest.mark.parametrize(
    ("marked", "said"),
    [
        ("model='other.tflite'", "*stale: recorded of*"),
        ("model='absent.tflite'", "*absent.tflite: no such file*"),
        ("model='small.tflite', seed=1", "*recorded for input values*"),
        ("model='small.tflite', profile='tflm'", "*recorded under profile litert-2.3-ref, and tflm*"),
        ("model='small.tflite', delegat='oracle'", "*takes model, delegate, profile, *; not 'delegat'*"),
        ("'small.tflite', None, None, 0, (), 7", "*; not 7*"),
    ],
)  # fmt: skip
def test_another_expectation_fails(project: pytest.Pytester, marked: str, said: str) -> None:
    """The golden itself still holds, for what it was recorded of."""
    write(project, marked)
    result = run(project)
    assert result.parseoutcomes().keys() <= {"failed", "error", "errors"}
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines([said])


def test_a_model_that_moved_is_the_same(project: pytest.Pytester) -> None:
    (project.path / "models").mkdir()
    (project.path / "small.tflite").rename(project.path / "models" / "moved.tflite")
    write(project, "'models/moved.tflite'")
    run(project).assert_outcomes(passed=1)


def test_a_test_that_names_no_runtime_checks_the_oracle(project: pytest.Pytester) -> None:
    """Although LiteRT recorded the golden, which the oracle's profile describes."""
    pytest.importorskip("ai_edge_litert", reason="LiteRT is not installed")
    write(project, "model='small.tflite', delegate='litert-ref'")
    run(project, "--karat24-regen-all").assert_outcomes(passed=1)
    run(project, "--karat24-force-regen").assert_outcomes(passed=1)
    (project.path / "test_it.py").write_text(
        "def test_model(karat24_golden):\n"
        "    assert karat24_golden.check('small.tflite').report.delegate == 'oracle'\n"
    )
    run(project).assert_outcomes(passed=1)


def test_the_last_failed_alone_make_no_golden_stale(project: pytest.Pytester) -> None:
    """pytest then collects only those tests of a module; the goldens of the others stay."""
    path = project.path / "test_it.py"
    body = path.read_text()
    path.write_text(body + "def test_other(): assert False\n")
    run(project).assert_outcomes(passed=1, failed=1)
    path.write_text(body + "def test_other(): pass\n")
    result = run(project, "--last-failed")
    result.assert_outcomes(passed=1)
    assert result.ret == 0
    assert "stale karat24 goldens" not in result.stdout.str()


def test_a_module_without_tests_leaves_stale_goldens(project: pytest.Pytester) -> None:
    (project.path / "test_it.py").write_text("")
    result = run(project)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(["*test_model.golden.json: no test*"])


def test_a_module_that_cannot_be_read_is_not_judged(project: pytest.Pytester) -> None:
    (project.path / "test_it.py").write_text("import no_such_module_anywhere\n")
    result = run(project)
    assert result.ret == pytest.ExitCode.INTERRUPTED
    assert "stale karat24 goldens" not in result.stdout.str()
