"""A product and the sum after it become one Gemm (ONNX Runtime's MatMulAddFusion)."""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from karat24.export.onnx.lowering.rewriting import Node, Rewriting
from karat24.refimpl.graph import AttributeValue


def join_products_and_sums(rewriting: Rewriting) -> None:
    """Replaces MatMul → Add by Gemm where the sum's other operand is a row or broadcasts in two dimensions.

    Where the left matrix has more than two axes, a Reshape joins them before the Gemm and another one
    separates them after it; this is done only for a row of one axis.
    """
    for product in rewriting.each("MatMul"):
        total = rewriting.only_reader(product)
        if total is None or total.op != "Add" or len(total.inputs) != 2:
            continue
        bias = total.inputs[1 - total.inputs.index(product.outputs[0])]
        left, right, added, result = (
            rewriting.tensors[index] for index in (*product.inputs, bias, total.outputs[0])
        )
        if len(right.shape) != 2 or len(left.shape) < 2 or {left.dtype, added.dtype} != {"float32"}:
            continue
        if result.shape != rewriting.tensors[product.outputs[0]].shape:
            continue
        rows, columns = math.prod(left.shape[:-1]), right.shape[1]
        flat = len(left.shape) == 2
        fitting = [(columns,), (1, columns), (rows, 1), (rows, columns)] if flat else [(columns,)]
        if added.shape in fitting:
            _replace(rewriting, product, total, bias, flat)


def _replace(rewriting: Rewriting, product: Node, total: Node, bias: int, flat: bool) -> None:
    """Puts all new nodes in the place of the Add, after the node that computes the bias."""
    attributes: dict[str, AttributeValue] = {"alpha": 1.0, "beta": 1.0, "transA": 0, "transB": 0}
    if flat:
        gemm = Node("Gemm", [*product.inputs, bias], total.outputs, attributes, total.version)
        rewriting.replace(total, gemm)
    else:
        left, result = rewriting.tensors[product.inputs[0]], rewriting.tensors[total.outputs[0]]
        shapes = [(math.prod(tensor.shape[:-1]), tensor.shape[-1]) for tensor in (left, result)]
        matrix, sums = (
            rewriting.add_tensor(
                f"{tensor.name}/rows", dataclasses.replace(tensor, shape=shape), tensor.dtype
            )
            for tensor, shape in zip((left, result), shapes, strict=True)
        )
        before, behind = (
            rewriting.add_constant(f"{tensor.name}/shape", np.array(shape, np.int64))
            for tensor, shape in ((left, shapes[0]), (result, result.shape))
        )
        apart = Node("Reshape", [sums, behind], total.outputs, {}, total.version)
        rewriting.replace(total, apart)
        rewriting.insert(
            rewriting.nodes.index(apart),
            Node("Reshape", [product.inputs[0], before], [matrix], {}, total.version),
            Node("Gemm", [matrix, product.inputs[1], bias], [sums], attributes, total.version),
        )
    rewriting.remove(product)
