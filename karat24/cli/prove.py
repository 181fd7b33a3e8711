"""``karat24 prove``: what a vendor's compiler made of a model, without the device it is for.

Of an .onnx file, which arithmetic TensorRT gives each convolution; of a .tflite compiled for the Edge TPU,
whether it carries its source (``prove_edgetpu.py``).
"""

from __future__ import annotations

import argparse
from pathlib import Path

HELP = "prove what TensorRT or the Edge TPU's compiler made of a model, layer by layer, without the device"
EPILOG = """examples:
  karat24 prove model_edgetpu.tflite --source model.tflite
  karat24 prove part0_edgetpu.tflite part1_edgetpu.tflite --source model.tflite
  karat24 quantize fine-tune --scheme int8-symmetric --output repair.tflite
  karat24 export repair.tflite --flavour tensorrt --output repair.onnx
  karat24 prove repair.onnx

For the Edge TPU each layer is proved, differs (which field, both values), is on
the CPU, or is not provable (why); every byte of the parameters is explained. Strides,
paddings, windows and the device's own arithmetic are in no known field of a compiled file.

For TensorRT the verdicts come from the builder's own layer report: int8, float (with
the kernel), or not found, when no kernel is that convolution's own.

exit codes: 0 all proved or int8, 1 something differs or is not int8, 2 usage or input
error, 3 something could not be proved, or TensorRT is absent"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's options."""
    parser.add_argument("model", type=Path, metavar="MODEL", help="a .onnx file, or a compiled .tflite")
    parser.add_argument(
        "segments", type=Path, nargs="*", help="further .tflite files, compiled together with it"
    )
    parser.add_argument(
        "--source", type=Path, action="append", metavar="X.tflite", help="what the .tflite was compiled from"
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument(
        "--time-limit", type=float, default=600.0, metavar="S", help="seconds the builder may take"
    )


def run(options: argparse.Namespace) -> int:
    """Prints one verdict per layer or convolution, and returns 0 when all are proved or int8."""
    import json
    from dataclasses import asdict

    from karat24.delegates.tensorrt import TensorrtDelegate
    from karat24.refimpl.errors import UsageError

    if options.model.suffix.lower() == ".tflite":
        from karat24.cli import prove_edgetpu

        return prove_edgetpu.run(options)
    if options.source or options.segments:
        raise UsageError(f"{options.model}: --source and further files go with a .tflite for the Edge TPU")
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
