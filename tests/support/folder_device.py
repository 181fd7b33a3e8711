"""A device behind a folder, played by the oracle: it runs what waits there."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from karat24.delegates.oracle import OracleDelegate


def run_device(folder: Path, profile: str) -> int:
    """Runs every model of ``folder`` that waits for outputs; how many there were."""
    device = OracleDelegate(profile)
    waiting = [place for place in folder.iterdir() if not list((place / "outputs").iterdir())]
    for place in waiting:
        count = len(list((place / "inputs").iterdir()))
        inputs = [np.load(place / "inputs" / f"input_{number}.npy") for number in range(count)]
        answer = device.run((place / "model.tflite").read_bytes(), inputs, tensors="outputs")
        for number, output in enumerate(answer.outputs):
            np.save(place / "outputs" / f"output_{number}.npy", output)
    return len(waiting)
