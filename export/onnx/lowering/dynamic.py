"""Products of data quantized by their own range, with the scaling behind them, in one node.

``quantize_dynamic`` writes DynamicQuantizeLinear → MatMulInteger → Cast → Mul (→ Add). ONNX Runtime makes
MatMulIntegerToFloat of what follows the first, and DynamicQuantizeMatMul of all where nothing else reads the
quantized data (its MatMulIntegerToFloatFusion and DynamicQuantizeMatMulFusion).
"""

from __future__ import annotations

from karat24.export.onnx.lowering.rewriting import Node, Rewriting
from karat24.export.onnx.schema import MICROSOFT, TYPE_CODES


def join_dynamic_products(rewriting: Rewriting) -> None:
    """Replaces each such chain by one node, at the place of its last node."""
    for product in rewriting.each("MatMulInteger"):
        dynamic = rewriting.producer(product.inputs[0])
        cast = rewriting.only_reader(product)
        scaled = None if cast is None else rewriting.only_reader(cast)
        if dynamic is None or dynamic.op != "DynamicQuantizeLinear" or cast is None or scaled is None:
            continue
        stored, scale, zero_point = dynamic.outputs
        chain = (cast.op, cast.attributes.get("to"), scaled.op) == ("Cast", TYPE_CODES["float32"], "Mul")
        if not chain or product.inputs[0] != stored or product.input(2) != zero_point:
            continue
        scales = rewriting.producer(scaled.inputs[1 - scaled.inputs.index(cast.outputs[0])])
        if scales is None or scales.op != "Mul" or scale not in scales.inputs:
            continue
        if rewriting.only_reader(scales) is not scaled:
            continue
        filter_scale = scales.inputs[1 - scales.inputs.index(scale)]
        _join(rewriting, dynamic, product, (cast, scaled, scales), filter_scale)


def _join(
    rewriting: Rewriting,
    dynamic: Node,
    product: Node,
    chain: tuple[Node, Node, Node],
    filter_scale: int,
) -> None:
    scaled, matrix = chain[1], product.inputs[1]
    total, bias = _bias_behind(rewriting, scaled, rewriting.tensors[matrix].shape[-1])
    last = total or scaled
    stored, scale, zero_point = dynamic.outputs
    inputs = [stored, matrix, scale, filter_scale, zero_point, product.input(3), bias]
    op = "MatMulIntegerToFloat"
    for node in (product, *chain):
        if node is not last:
            rewriting.remove(node)
    if not any(rewriting.readers(index) or index in rewriting.outputs for index in dynamic.outputs):
        op, inputs = "DynamicQuantizeMatMul", [dynamic.inputs[0], matrix, filter_scale, *inputs[5:]]
        rewriting.remove(dynamic)
    while inputs[-1] == -1:
        inputs.pop()
    rewriting.replace(last, Node(f"{MICROSOFT}:{op}", inputs, last.outputs, {}, 1))


def _bias_behind(rewriting: Rewriting, scaled: Node, columns: int) -> tuple[Node | None, int]:
    """The Add of a constant row after the scaling, and the row's index; None and -1 where there is no Add."""
    total = rewriting.only_reader(scaled)
    if total is None or total.op != "Add" or len(total.inputs) != 2:
        return None, -1
    bias = total.inputs[1 - total.inputs.index(scaled.outputs[0])]
    data = rewriting.data(bias)
    return (total, bias) if data is not None and data.shape == (columns,) else (None, -1)
