"""Writing arrays by name as .npz."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from karat24.refimpl.graph import Array


def write_npz(path: Path, arrays: Mapping[str, Array]) -> None:
    """Writes the arrays, without pickle. ``np.savez`` adds .npz to a path without it, takes ``file`` for no
    array's name, and in older NumPy stores its option ``allow_pickle`` as an array. Raises OSError."""
    import io
    import zipfile

    import numpy as np

    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        for name, value in arrays.items():
            buffer = io.BytesIO()
            np.lib.format.write_array(buffer, np.asarray(value), allow_pickle=False)
            archive.writestr(f"{name}.npy", buffer.getbuffer())
