"""WALK.md names files and functions that exist."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
STOP = re.compile(r"`([\w/]+\.py)`: ((?:`[\w.]+`(?:, )?)+)")


def stops() -> list[tuple[str, str]]:
    """(file, name) of everything the walk stops at."""
    text = (ROOT / "WALK.md").read_text(encoding="utf-8")
    return [(path, name) for path, names in STOP.findall(text) for name in re.findall(r"[\w.]+", names)]


def names_in(nodes: list[ast.stmt]) -> dict[str, list[ast.stmt]]:
    """What a module or class defines, with the body of each."""
    found: dict[str, list[ast.stmt]] = {}
    for node in nodes:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            found[node.name] = node.body
        elif isinstance(node, (ast.Assign, ast.AnnAssign)):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found |= {target.id: [] for target in targets if isinstance(target, ast.Name)}
    return found


def test_every_line_of_the_walk_is_a_stop() -> None:
    lines = [line for line in (ROOT / "WALK.md").read_text(encoding="utf-8").splitlines() if line[:2] == "* "]
    assert len(lines) > 50
    assert [line for line in lines if not STOP.match(line[2:])] == []


@pytest.mark.parametrize(("path", "name"), dict.fromkeys(stops()))
def test_a_stop_exists(path: str, name: str) -> None:
    nodes = ast.parse((ROOT / path).read_text(encoding="utf-8")).body
    for part in name.split("."):
        known = names_in(nodes)
        assert part in known, f"{path} has no {name}"
        nodes = known[part]
