"""A .npz holds the arrays it was given and nothing else, whatever their names and NumPy's version are."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from karat24.cli.npz import write_npz


def test_every_name_is_kept_and_nothing_is_added(tmp_path: Path) -> None:
    arrays = {name: np.arange(3) + at for at, name in enumerate(("file", "allow_pickle", "a/b:0"))}
    path = tmp_path / "no suffix"
    write_npz(path, arrays)
    with np.load(path, allow_pickle=False) as found:
        assert set(found.files) == set(arrays)
        assert all((found[name] == value).all() for name, value in arrays.items())
