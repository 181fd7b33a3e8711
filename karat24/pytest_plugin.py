"""The pytest plug-in: fixture ``karat24_golden``, marker ``karat24``, and goldens beside the tests.

It is loaded into every pytest run of an environment that has karat24, so it imports nothing of ours until a
test asks for the fixture.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from karat24.golden.goldens import GoldenCheck

FIXTURE, MARKER, FOLDER = "karat24_golden", "karat24", "goldens"
ARGUMENTS = ("model", "delegate", "profile", "seed", "files")
"""What the marker says, in this order, or by name."""

SUFFIX = ".golden.json"
"""As in ``karat24.golden.goldens.files``, which would import NumPy here."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Adds the two ways to write goldens anew."""
    group = parser.getgroup("karat24", "goldens of quantized models")
    group.addoption(
        "--karat24-force-regen", action="store_true", help="rewrite goldens that differ, and fail"
    )
    group.addoption("--karat24-regen-all", action="store_true", help="rewrite every golden, and pass")


def pytest_configure(config: pytest.Config) -> None:
    """Registers the marker and the search for stale goldens."""
    config.addinivalue_line(
        "markers",
        f"{MARKER}(model, delegate=None, profile=None, seed=0, files=()): what fixture {FIXTURE} checks",
    )
    config.pluginmanager.register(StaleGoldens(config), "karat24-stale-goldens")


class StaleGoldens:
    """Finds goldens that no collected test has; a session that found some fails.

    Under pytest-xdist every worker collects every test, so every worker finds all of them and tells the
    controller, which reports each once.
    """

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._stale: set[str] = set()
        self._modules: set[Path] = set()

    @pytest.hookimpl(wrapper=True)
    def pytest_make_collect_report(
        self, collector: pytest.Collector
    ) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
        """Takes note of modules that were read: one may have no test any more."""
        report = yield
        if isinstance(collector, pytest.Module) and report.passed:
            self._modules.add(collector.path)
        return report

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Looks before -k and -m leave tests out. A module named in part (``a.py::test``) is not judged, nor
        is any with --last-failed, which collects some tests of a module only."""
        for item in items:
            if item.get_closest_marker(MARKER) and FIXTURE not in getattr(item, "fixturenames", ()):
                item.fixturenames.append(FIXTURE)  # type: ignore[attr-defined]
        if self._config.getoption("lf", False):
            return
        in_part = {argument.split("::")[0] for argument in self._config.args if "::" in argument}
        partial = {(self._config.invocation_params.dir / path).resolve() for path in in_part}
        stems: dict[Path, set[str]] = {module: set() for module in self._modules}
        for item in items:
            stems.setdefault(item.path, set()).add(_stem(item))
        for module, known in stems.items():
            if module.resolve() not in partial:
                self._look(module.parent / FOLDER / module.stem, known)
        for folder in {module.parent / FOLDER for module in stems}:
            for below in folder.iterdir() if folder.is_dir() else ():
                if below.is_dir() and not (folder.parent / f"{below.name}.py").exists():
                    self._look(below, set())

    def _look(self, folder: Path, known: set[str]) -> None:
        for path in folder.glob(f"*{SUFFIX}"):
            if path.name.removesuffix(SUFFIX).split("~")[0] not in known:
                self._stale.add(str(path))

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        """A worker of pytest-xdist has ended."""
        self._stale.update(getattr(node, "workeroutput", {}).get("karat24_stale", ()))

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Fails a session that passed, or hands a worker's findings on."""
        output = getattr(self._config, "workeroutput", None)
        if output is not None:
            output["karat24_stale"] = sorted(self._stale)
        elif self._stale and session.exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """Names the stale goldens."""
        if self._stale:
            terminalreporter.section("stale karat24 goldens", red=True)
            for path in sorted(self._stale):
                terminalreporter.line(f"{path}: no test has this golden; remove it, or bring its test back")


class GoldenOfTest:
    """What the fixture gives: the goldens of one test."""

    def __init__(self, request: pytest.FixtureRequest) -> None:
        self._config = request.config
        self._item: pytest.Item = request.node
        marker = self._item.get_closest_marker(MARKER)
        self._marked: dict[str, Any] = {} if marker is None else _named(marker)
        self.checked = 0

    def path(self, name: str = "") -> Path:
        """Where the golden lies; ``name`` tells several of one test apart."""
        module = self._item.path
        case = f"~{re.sub(r'[^A-Za-z0-9_-]', '_', name)}" if name else ""
        return module.parent / FOLDER / module.stem / f"{_stem(self._item)}{case}{SUFFIX}"

    def check(
        self,
        model: str | Path | None = None,
        *,
        name: str = "",
        delegate: str | None = None,
        profile: str | None = None,
        seed: int | None = None,
        files: Sequence[str | Path] = (),
        feeds: Any = None,
    ) -> GoldenCheck | None:
        """Checks the golden of this test, or writes it where the command line or its absence says so.

        What is not given is taken from the marker. A relative model is looked for beside the test.
        ``delegate`` is the runtime to check, and to record by, the oracle by default. Returns the check, None
        where the golden was written. Fails the test where the golden is missing, differs or cannot be
        compared, so also where it is of another model, input or profile than the test names.
        """
        from karat24.goldens import check_golden, propose_golden
        from karat24.refimpl.errors import KaratError

        self.checked += 1
        marked = self._marked
        model = model or marked.get("model")
        if model is None:
            pytest.fail(
                f"name a model: @pytest.mark.{MARKER}(model=...) or {FIXTURE}.check(model)", pytrace=False
            )
        delegate = delegate or marked.get("delegate")
        profile = profile or marked.get("profile")
        seed = marked.get("seed", 0) if seed is None else seed
        given = [self._beside(file) for file in files or marked.get("files", ())]
        path = self.path(name)
        try:
            if self._config.getoption("--karat24-regen-all") or not path.is_file() or self._forced:
                proposal = propose_golden(
                    self._beside(model), path, files=given, feeds=feeds, delegate=delegate, seed=seed,
                    profile=profile,
                )  # fmt: skip
                self._write(proposal)
                return None
            found = check_golden(
                path, model=self._beside(model), profile=profile, seed=seed, delegate=delegate or "oracle",
                files=given, feeds=feeds,
            )  # fmt: skip
        except KaratError as error:
            pytest.fail(f"{path}: {error}", pytrace=False)
        if not found.passed:
            pytest.fail(found.table(), pytrace=False)
        return found

    @property
    def _forced(self) -> bool:
        return bool(self._config.getoption("--karat24-force-regen"))

    def _write(self, proposal: Any) -> None:
        """Writes a golden and, unless --karat24-regen-all is given, fails where that changed anything."""
        changed = proposal.changes
        if changed:
            proposal.write()
        if changed and not self._config.getoption("--karat24-regen-all"):
            lines = "\n".join(f"  {line}" for line in changed)
            pytest.fail(
                f"{proposal.path}: written anew; look at it and keep it in git\n{lines}", pytrace=False
            )

    def _beside(self, path: str | Path) -> Path:
        return self._item.path.parent / path


@pytest.fixture(name=FIXTURE)
def karat24_golden(request: pytest.FixtureRequest) -> GoldenOfTest:
    """The goldens of a test. A test that asks for them, or is marked, and checks none fails."""
    return GoldenOfTest(request)


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Generator[None, object, object]:
    """Fails a test that passed and has looked at no golden."""
    result = yield
    golden = pyfuncitem.funcargs.get(FIXTURE)
    if isinstance(golden, GoldenOfTest) and not golden.checked:
        pytest.fail(f"this test checks no golden: call {FIXTURE}.check()", pytrace=False)
    return result


def _named(marker: pytest.Mark) -> dict[str, Any]:
    """The marker's arguments by name. Fails the test for one that is unknown, which would say nothing."""
    named = dict(zip(ARGUMENTS, marker.args, strict=False)) | dict(marker.kwargs)
    unknown = [*marker.args[len(ARGUMENTS) :], *(named.keys() - {*ARGUMENTS})]
    if unknown:
        pytest.fail(f"@pytest.mark.{MARKER} takes {', '.join(ARGUMENTS)}; not {unknown[0]!r}", pytrace=False)
    return named


def _stem(item: pytest.Item) -> str:
    """A test's name as a part of a file's name: its class, function and parameters.

    Characters that files cannot have become _, and a digest keeps names apart that this makes equal.
    """
    import hashlib

    full = item.nodeid.split("::", 1)[-1]
    plain = re.sub(r"[^A-Za-z0-9_.-]", "_", full)
    if plain == full and len(plain) <= 100:
        return plain
    return f"{plain[:80]}-{hashlib.sha256(full.encode()).hexdigest()[:8]}"
