"""``karat24 prove``: which arithmetic TensorRT gives each convolution, without a GPU."""

from __future__ import annotations

import argparse
from pathlib import Path

HELP = "build a TensorRT engine and prove that every convolution multiplies int8 by int8; needs no GPU"
EPILOG = """examples:
  karat24 quantize fine-tune --scheme int8-symmetric --output repair.tflite
  karat24 export repair.tflite --flavour tensorrt --output repair.onnx
  karat24 prove repair.onnx

The verdicts come from the builder's own layer report: int8, float (with the
kernel), or not found, when no kernel is that convolution's own.

exit codes: 0 all int8, 1 some convolution is not, 2 usage or input error,
3 TensorRT is absent or gave no answer"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's options."""
    parser.add_argument("model", type=Path, metavar="MODEL.onnx", help="an ONNX file, quantized or not")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument(
        "--time-limit", type=float, default=600.0, metavar="S", help="seconds the builder may take"
    )


def run(options: argparse.Namespace) -> int:
    """Builds, prints one line per convolution, and returns 0 when all are int8."""
    import json
    from dataclasses import asdict

    from karat24.delegates.tensorrt import TensorrtDelegate
    from karat24.refimpl.errors import UsageError

    if not options.model.is_file():
        raise UsageError(f"{options.model}: {'is a directory' if options.model.is_dir() else 'no such file'}")
    with TensorrtDelegate(time_limit=options.time_limit) as delegate:
        proof = delegate.prove(options.model)
    if options.json:
        print(json.dumps({"all_int8": proof.all_int8, **asdict(proof)}, indent=1))
        return 0 if proof.all_int8 else 1
    width = max(len(found.name) for found in proof.convolutions)
    for found in proof.convolutions:
        factors = f"{found.input} x {found.filter}" if found.kernel else ""
        detail = found.note or ("" if found.verdict == "int8" else found.kernel)
        print(f"{found.name:{width}}  {found.verdict:9}  {factors:17}  {detail}".rstrip())
    good = sum(found.verdict == "int8" for found in proof.convolutions)
    library, version = next(iter(proof.versions.items()))
    print(f"{library} {version}: {good} of {len(proof.convolutions)} convolutions int8 x int8")
    return 0 if proof.all_int8 else 1
