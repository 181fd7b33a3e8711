"""From a QDQ graph to the integer graph ONNX Runtime runs for it.

ONNX Runtime 1.31 and 1.32 at ORT_ENABLE_ALL replace each op between DequantizeLinear and QuantizeLinear
nodes by an integer op where they have one (``fusions.py``), and leave the others in float. The runtime then
computes the layers of the result, not of the file: QLinearConv rounds once, from the accumulator, where Conv
in float rounds many times. This module models the steps of the optimizer that decide where integers are
used. It does not model changes of layout and fusions of float ops: a layer that stays float here is float
there, too, for instance as FusedConv or MatMulNBits.
"""

from __future__ import annotations

import numpy as np

from karat24.export.onnx.lowering.dynamic import join_dynamic_products
from karat24.export.onnx.lowering.fold_constants import fold_constants
from karat24.export.onnx.lowering.fusions import FUSIONS, fuses
from karat24.export.onnx.lowering.pairs import (
    dequantize_for_each_reader,
    make_unsigned,
    merge_double_pairs,
    merge_equal_quantizations,
    parameters_of,
    remove_empty_requantizations,
    share_dequantizations,
)
from karat24.export.onnx.lowering.products import join_products_and_sums
from karat24.export.onnx.lowering.quantize_constants import quantize_constants
from karat24.export.onnx.lowering.rewriting import QUANTIZE, Node, Rewriting
from karat24.export.onnx.lowering.spread import spread_backward, spread_forward
from karat24.export.onnx.lowering.transposes import cancel_transposes, transpose_stored
from karat24.refimpl.errors import ModelError
from karat24.refimpl.graph import QUANTIZED_RANGE, Graph

REMOVED = frozenset({"Dropout", "Identity"})
"""Ops whose output is their input."""


def lower_qdq(graph: Graph, int8_allowed: bool = False) -> Graph:
    """The integer graph ONNX Runtime makes of a QDQ graph; a graph without QDQ pairs is returned as it is.

    ``int8_allowed`` is the session option ``session.qdqisint8allowed``. In a session without it, which is
    the default, int8 activations become uint8 where one layer reads them, and a Conv or MatMul whose
    activations are still int8 stays in float.

    Tensors keep their indices and names. A tensor that no layer writes any more has no value, one that
    becomes uint8 has that type, and one that follows from constants is a constant. New tensors come after
    the others: parameters and biases that the file leaves out, and edges that quantization spreads to.

    Raises ModelError for a graph that is not in ONNX layout, and UnsupportedOp for two quantizations in a
    row that have no value in common.
    """
    if graph.format != "onnx":
        raise ModelError(f"graph {graph.name!r} is in {graph.format} layout; only ONNX graphs are lowered")
    rewriting = Rewriting(graph)
    _remove_identities(rewriting)
    fold_constants(rewriting)
    transpose_stored(rewriting)
    join_products_and_sums(rewriting)
    join_dynamic_products(rewriting)
    dequantize_for_each_reader(rewriting)
    merge_double_pairs(rewriting)
    merge_equal_quantizations(rewriting)
    spread_backward(rewriting)
    spread_forward(rewriting)
    quantize_constants(rewriting)
    cancel_transposes(rewriting)
    # Passes are repeated: the last of three pairs in a row can be merged only after biases have scales.
    while merge_double_pairs(rewriting):
        pass
    if not int8_allowed:
        make_unsigned(rewriting)
    _remove_clips(rewriting)
    for node in rewriting.each(*FUSIONS):
        if fuses(rewriting, node, int8_allowed):
            FUSIONS[node.op](rewriting, node)
    rewriting.sweep()
    remove_empty_requantizations(rewriting)
    fold_constants(rewriting)
    share_dequantizations(rewriting)
    rewriting.sweep()
    return rewriting.build()


def _remove_identities(rewriting: Rewriting) -> None:
    for node in rewriting.each(*REMOVED):
        if len(node.outputs) == 1 and node.outputs[0] not in rewriting.outputs:
            rewriting.bypass(node)


def _remove_clips(rewriting: Rewriting) -> None:
    """Removes each Relu and Clip whose bounds no value of the quantization after it exceeds."""
    for node in rewriting.each("Relu", "Clip"):
        quantize = rewriting.only_reader(node)
        found = None
        if quantize is not None and quantize.op == QUANTIZE:
            found = parameters_of(rewriting, quantize)
        if found is None:
            continue
        qmin, qmax = QUANTIZED_RANGE[found.dtype]
        if node.op == "Relu":
            redundant = found.zero_point == qmin
        else:
            low, high = _clip_range(rewriting, node)
            step, offset = found.scale, found.zero_point
            epsilon = np.finfo(np.float32).eps
            redundant = bool(
                low - step * np.float32(qmin - offset) <= epsilon
                and step * np.float32(qmax - offset) - high <= epsilon
            )
        if redundant:
            rewriting.bypass(node)


def _clip_range(rewriting: Rewriting, node: Node) -> tuple[np.float32, np.float32]:
    """Both bounds, infinite where left out; a bound that is not constant counts as clipping everything."""
    ends = []
    for position, unlimited in ((1, -np.inf), (2, np.inf)):
        values = rewriting.data(node.input(position))
        if node.input(position) == -1:
            ends.append(np.float32(unlimited))
        else:
            ends.append(np.float32(-unlimited if values is None else values.item()))
    return ends[0], ends[1]
