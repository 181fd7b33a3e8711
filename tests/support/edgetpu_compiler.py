"""A program in place of the Edge TPU compiler, which prints the real one's logs."""

from __future__ import annotations

import json
import sys
from pathlib import Path

VERSION = "Edge TPU Compiler version 16.0.384591198\n"

STARTED = VERSION + "Started a compilation timeout timer of 180 seconds.\n"

SUCCEEDED = (
    STARTED
    + """
Model compiled successfully in 61 ms.

Input model: model.tflite
Input size: 2.46MiB
Output model: model_edgetpu.tflite
Output size: 296.85KiB
On-chip memory used for caching model parameters: 66.00KiB
On-chip memory remaining for caching model parameters: 7.67MiB
Off-chip memory used for streaming uncached model parameters: 0.00B
Number of Edge TPU subgraphs: 1
Total number of operations: 159
Operation log: model_edgetpu.log

Model successfully compiled but not all operations are supported by the Edge TPU. A percentage of the model \
will instead run on the CPU, which is slower. If possible, consider updating your model to use only \
operations supported by the Edge TPU. For details, visit g.co/coral/model-reqs.
Number of operations that will run on Edge TPU: 85
Number of operations that will run on CPU: 74

Operator                       Count      Status

TRANSPOSE                      70         Operation not supported
PAD                            17         Mapped to Edge TPU
QUANTIZE                       1          Operation is otherwise supported, but not mapped due to some \
unspecified limitation
CONV_2D                        68         Mapped to Edge TPU
RESIZE_NEAREST_NEIGHBOR        1          Operation version not supported
DEQUANTIZE                     2          Operation is working on an unsupported data type
Compilation child process completed within timeout period.
Compilation succeeded!
"""
)

PROGRAM = """#!{python}
import json, os, signal, sys, time
script = json.load(open({script!r}))
with open({record!r}, "w") as record:
    json.dump(sys.argv[1:], record)
print(script["prints"], end="", flush=True)
folder = sys.argv[sys.argv.index("--out_dir") + 1]
for name, source in script["writes"].items():
    with open(source, "rb") as file, open(os.path.join(folder, name), "wb") as output:
        output.write(file.read())
if script["sleeps"]:
    if os.fork() == 0:
        with open({child!r}, "w") as child:
            child.write(str(os.getpid()))
    time.sleep(600)
if script["code"] < 0:
    os.kill(os.getpid(), -script["code"])
sys.exit(script["code"])
"""


class StandIn:
    """A program that prints, writes and ends as told; ``arguments`` are those of its last run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        paths = {name: str(folder / name) for name in ("script", "record", "child")}
        self.path = folder / "edgetpu_compiler"
        self.path.write_text(PROGRAM.format(python=sys.executable, **paths))
        self.path.chmod(0o755)

    def does(
        self, prints: str, writes: dict[str, bytes] | None = None, code: int = 0, sleeps: bool = False
    ) -> None:
        sources = {}
        for name, content in (writes or {}).items():
            sources[name] = str(self.folder / f"result-{name}")
            Path(sources[name]).write_bytes(content)
        script = {"prints": prints, "writes": sources, "code": code, "sleeps": sleeps}
        (self.folder / "script").write_text(json.dumps(script))

    @property
    def arguments(self) -> list[str]:
        return json.loads((self.folder / "record").read_text())
