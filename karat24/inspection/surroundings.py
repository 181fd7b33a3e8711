"""What integers the float tensors of an ONNX graph are made of and made into."""

from __future__ import annotations

from karat24.refimpl.graph import Graph, Quantization, Tensor

CLAMPS = ("Relu", "Clip")
"""Ops that may stand between an op and its QuantizeLinear and are part of the quantized op then."""


class Surroundings:
    """A graph and, for each float tensor, the integers behind DequantizeLinear and before QuantizeLinear.

    ``made_of`` and ``made_into`` map a tensor's index to that tensor of integers; of several readers the
    first counts.
    """

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.made_of: dict[int, Tensor] = {}
        self.made_into: dict[int, Tensor] = {}
        for view in reversed(graph.views()):
            given, written = view.optional_input(0), view.outputs[:1]
            if given is None or not written:
                continue
            if view.op == "DequantizeLinear":
                self.made_of[written[0].index] = given
            elif view.op == "QuantizeLinear":
                self.made_into[given.index] = written[0]
            elif view.op in CLAMPS and written[0].index in self.made_into:
                self.made_into[given.index] = self.made_into[written[0].index]

    def integers(self, tensor: Tensor) -> Tensor:
        """The tensor of integers that a float tensor is made of, else the tensor itself."""
        return self.made_of.get(tensor.index, tensor)

    def quantization(self, tensor: Tensor | None) -> Quantization | None:
        """The tensor's parameters, else those of the integers it is made of, else of those made of it."""
        if tensor is None or tensor.quantization is not None:
            return None if tensor is None else tensor.quantization
        source = self.made_of.get(tensor.index) or self.made_into.get(tensor.index)
        return None if source is None else source.quantization
