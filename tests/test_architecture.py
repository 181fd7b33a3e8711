"""The rooms import only what they may, and no code is where it must not be."""

from __future__ import annotations

import ast
import graphlib
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

MAY_IMPORT = {
    "refimpl": set(),
    "export": {"refimpl"},
    "delegates": {"refimpl", "export"},
    "golden": {"refimpl", "export", "delegates"},
    "karat24": {"refimpl", "export", "delegates", "golden"},
    "training": {"refimpl", "export", "karat24"},
}
ROOMS = {*MAY_IMPORT, "tests", "benchmarks"}


def sources(room: str) -> list[Path]:
    return sorted((ROOT / room).rglob("*.py"))


def by_folder(name: str) -> str:
    """A module by its path: what is installed as ``karat24.refimpl`` lies in the folder refimpl."""
    package, _, rest = name.partition(".")
    return rest if package == "karat24" and rest.split(".")[0] in MAY_IMPORT else name


def imported_modules(path: Path) -> list[str]:
    names = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names.append(node.module or "")
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            called = getattr(node.func, "attr", getattr(node.func, "id", ""))
            if called in ("import_module", "__import__"):
                names.append(str(node.args[0].value))
    return [by_folder(name) for name in names]


def test_a_room_is_imported_by_its_whole_name() -> None:
    """``import export`` would find whatever file of that name lies beside a user's script."""
    inside = {"refimpl", "export", "delegates", "golden"}
    wrong = []
    for path in (path for room in ROOMS for path in sources(room)):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            wrong += [f"{path.relative_to(ROOT)}: {name}" for name in names if name.split(".")[0] in inside]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("room", sorted(MAY_IMPORT))
def test_rooms_import_only_what_they_may(room: str) -> None:
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in sources(room)
        for name in imported_modules(path)
        if name.split(".")[0] in ROOMS - {room} - MAY_IMPORT[room]
    ]
    assert not wrong, "\n".join(wrong)


def neighbours_imported(path: Path, modules: dict[str, Path]) -> set[str]:
    """Modules of the room that a module imports: at its top, in a function, or for types only."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            inner = {by_folder(f"{node.module}.{alias.name}") for alias in node.names} & set(modules)
            names = [*inner, *([] if len(inner) == len(node.names) else [node.module or ""])]
        else:
            continue
        names = [by_folder(name) for name in names]
        beside = "delegates.workers."  # where scripts import each other by bare name
        found |= {beside + name if beside + name in modules else name for name in names} & set(modules)
    return found


@pytest.mark.parametrize("room", sorted({*MAY_IMPORT, "benchmarks"}))
def test_no_module_imports_itself_through_others(room: str) -> None:
    modules = {}
    for path in sources(room):
        parts = path.relative_to(ROOT).with_suffix("").parts
        modules[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    graph = {name: neighbours_imported(path, modules) - {name} for name, path in modules.items()}
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as circle:
        pytest.fail(" <- ".join(circle.args[1]))


@pytest.mark.parametrize(("side", "other"), [("spec", "kernels"), ("kernels", "spec")])
def test_spec_and_kernels_share_no_code(side: str, other: str) -> None:
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in sources(f"refimpl/{side}")
        for name in imported_modules(path)
        if name.startswith(f"refimpl.{other}")
    ]
    assert not wrong, "\n".join(wrong)


def test_spec_uses_numpy_and_nothing_faster() -> None:
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in sources("refimpl/spec")
        for name in imported_modules(path)
        if name.split(".")[0] in {"numba", "scipy", "llvmlite"}
    ]
    assert not wrong, "\n".join(wrong)


def test_tests_share_only_what_is_there_to_be_shared() -> None:
    """Helpers lie in tests/support, cases in tests/cases; a test module is nobody's helper."""
    shared = ("tests.support", "tests.cases", "tests.shared_models")
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in sources("tests")
        if "refimpl" not in path.parts
        for name in imported_modules(path)
        if name.split(".")[0] == "tests" and not name.startswith(shared)
    ]
    assert not wrong, "\n".join(wrong)


def files_with(pattern: str, *rooms: str) -> list[str]:
    """Modules of some rooms in whose text the pattern is found."""
    return [
        path.relative_to(ROOT).as_posix()
        for room in rooms
        for path in sources(room)
        if re.search(pattern, path.read_text(encoding="utf-8"))
    ]


def test_no_product_file_edits_the_import_path() -> None:
    assert not files_with(r"\bsys\.path\b|from sys import .*\bpath\b|\baddsitedir\b", *MAY_IMPORT)


def test_workers_need_nothing_of_ours() -> None:
    """A worker is started by its path under another environment's interpreter, which has its neighbours only;
    the oracle itself is one contestant of the stopwatch."""
    paths = {path.stem: path for path in sources("delegates/workers") if path.stem != "__init__"}
    for name, path in paths.items():
        imported = {module.split(".")[0] for module in imported_modules(path)}
        ours = imported & ROOMS
        assert ours == ({"export", "refimpl"} if name == "stopwatch" else set()), f"{path} imports {ours}"
        shadowed = set(paths) & (sys.stdlib_module_names | {"onnx", "onnxruntime", "tensorrt", "numpy"})
        assert not shadowed, "the folder of a script comes first on its import path"


def test_top_level_folders_are_the_rooms() -> None:
    folders = {
        path.name
        for path in ROOT.iterdir()
        if path.is_dir() and not path.name.startswith((".", "__")) and not path.name.endswith(".egg-info")
    }
    assert folders - {"build", "dist", "demo-output"} <= ROOMS


def test_no_fastmath_anywhere() -> None:
    assert not files_with(r"fastmath\s*=\s*(?!False)", *MAY_IMPORT)


def test_pointers_stay_inside_kernels() -> None:
    found = files_with(r"\.ctypes\b|@intrinsic|carray\(|llvmlite", "refimpl", "export", "golden", "karat24")
    assert [path for path in found if not path.startswith("refimpl/kernels/")] == []


KERNEL_LAYERS = (
    "jit", "threads", "rounding", "microkernel", "elementwise", "images", "moves", "reductions",
    "convolution", "depthwise", "onnx",
)  # fmt: skip
"""Folders of the kernels, lowest first."""


def test_a_folder_of_kernels_imports_none_above_it() -> None:
    kernels = ROOT / "refimpl" / "kernels"
    assert {path.parent.name for path in kernels.glob("*/__init__.py")} == set(KERNEL_LAYERS)
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for number, folder in enumerate(KERNEL_LAYERS)
        for path in sources(f"refimpl/kernels/{folder}")
        for name in imported_modules(path)
        if name.startswith("refimpl.kernels.") and name.split(".")[2] not in KERNEL_LAYERS[: number + 1]
    ]
    assert not wrong, "\n".join(wrong)


def test_no_two_test_modules_have_one_name() -> None:
    """pytest imports a test module by its file's name alone: it collects one of two with the same name."""
    folders: dict[str, list[str]] = {}
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        folders.setdefault(path.name, []).append(str(path.parent.relative_to(ROOT)))
    twice = {name: where for name, where in folders.items() if len(where) > 1}
    assert not twice, f"give each its own name: {twice}"
