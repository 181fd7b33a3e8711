"""``karat24 export``: write a network, a model or a piece of one to a file."""

from __future__ import annotations

import argparse
from pathlib import Path

from karat24.cli import options as shared

HELP = "write one of the shipped networks, a model, or a piece of a model to a file"
EPILOG = """examples:
  karat24 export tomogan --height 1024 --width 1024 --output tomogan.onnx     the float network
  karat24 export model.tflite --layer 7 --output layer7.tflite                one layer alone
  karat24 export model.tflite --output model.onnx --flavour qoperator         as quantized ONNX
  karat24 export model.tflite --until 42 --output prefix.tflite               all that tensor 42 needs

A network goes to .onnx or .tflite in float; `karat24 quantize` makes the int8 one."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's options."""
    parser.add_argument(
        "source", metavar="NETWORK|MODEL", help="a network, as `karat24 quantize` names them, or a model file"
    )
    shared.add_subgraph(parser)
    shared.add_network(parser)
    piece = parser.add_mutually_exclusive_group()
    piece.add_argument("--layer", type=int, metavar="N", help="only layer N, as a model of its own")
    piece.add_argument("--until", type=int, metavar="T", help="only what tensor T needs")
    parser.add_argument("--output", "-o", type=Path, required=True, metavar="FILE")
    parser.add_argument(
        "--flavour",
        choices=("qdq", "qoperator", "tensorrt"),
        help="form of an .onnx file of an 8-bit model: float ops between quantizations, ONNX Runtime's "
        "integer ops, or what TensorRT parses (zero points of 0 only) (default: qdq for a .tflite model, the "
        "file's own for an .onnx one)",
    )
    parser.add_argument("--half", action="store_true", help="a float network as .onnx in half precision")


def run(options: argparse.Namespace) -> int:
    """Writes the file."""
    from karat24.export.cut import single_layer, up_to
    from karat24.refimpl.errors import UsageError
    from karat24.refimpl.networks import NETWORKS

    shared.writable(options.output)
    if options.half and (options.source not in NETWORKS or options.output.suffix != ".onnx"):
        raise UsageError(f"{options.output}: --half is for a float network written as .onnx")
    if options.source in NETWORKS:
        if options.layer is not None or options.until is not None:
            raise UsageError("--layer and --until cut a model file, not a network")
        graph = shared.float_network(options.source, options)
    else:
        graph = shared.read_graph(Path(options.source), options.subgraph)
        if options.layer is not None:
            if not 0 <= options.layer < len(graph.layers):
                raise UsageError(
                    f"--layer {options.layer}: the model has layers 0 to {len(graph.layers) - 1}"
                )
            graph = single_layer(graph, options.layer).graph
        elif options.until is not None:
            if not 0 <= options.until < len(graph.tensors):
                raise UsageError(
                    f"--until {options.until}: the model has tensors 0 to {len(graph.tensors) - 1}"
                )
            graph = up_to(graph, (options.until,)).graph
    shared.write_graph(graph, options.output, options.flavour)
    if options.half:
        from karat24.export.onnx import half_precision

        content = half_precision(options.output.read_bytes())
        options.output.write_bytes(content)
        print(f"{options.output}: {len(content):,} bytes in half precision")
    return 0
