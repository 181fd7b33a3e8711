"""A graph under rewriting: nodes that can be replaced, over tensors that only grow in number."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np

from karat24.refimpl.graph import DTYPES, Array, AttributeValue, Graph, Layer, LayerView, Quantization, Tensor

QUANTIZE = "QuantizeLinear"
DEQUANTIZE = "DequantizeLinear"


@dataclass(eq=False)
class Node:
    """A layer whose inputs and outputs (tensor indices) can still change."""

    op: str
    inputs: list[int]
    outputs: list[int]
    attributes: dict[str, AttributeValue] = field(default_factory=dict)
    version: int = 1
    standing: bool = True

    def input(self, position: int) -> int:
        """Tensor index of an input; -1 when it is left out."""
        return self.inputs[position] if position < len(self.inputs) else -1


class Rewriting:
    """Nodes in executable order. Tensors of the source keep their indices; new ones come after them."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.tensors = list(graph.tensors)
        self.nodes = [
            Node(layer.op, list(layer.inputs), list(layer.outputs), dict(layer.attributes), layer.version)
            for layer in graph.layers
        ]
        self.outputs = frozenset(graph.outputs)
        self._names = {tensor.name for tensor in graph.tensors}
        self._writers: dict[int, Node] = {}
        self._uses: dict[int, dict[Node, None]] = {}
        for node in self.nodes:
            self._register(node)

    def _register(self, node: Node) -> None:
        for index in node.outputs:
            self._writers[index] = node
        for index in node.inputs:
            # Entries stay when a node is made to read another tensor; ``readers`` checks them.
            self._uses.setdefault(index, {})[node] = None

    def producer(self, index: int) -> Node | None:
        """The node that writes a tensor; None for graph inputs and constants."""
        node = self._writers.get(index)
        return node if node is not None and node.standing and index in node.outputs else None

    def readers(self, index: int) -> list[tuple[Node, int]]:
        """``(node, input position)`` of each use of a tensor."""
        return [
            (node, position)
            for node in self._uses.get(index, {})
            if node.standing
            for position, read in enumerate(node.inputs)
            if read == index
        ]

    def read(self, node: Node, position: int, index: int) -> None:
        """Makes a node read another tensor."""
        node.inputs[position] = index
        self._register(node)

    def read_all(self, node: Node, inputs: list[int]) -> None:
        """Makes a node read these tensors and no others."""
        node.inputs[:] = inputs
        self._register(node)

    def write(self, node: Node, position: int, index: int) -> None:
        """Makes a node write another tensor."""
        node.outputs[position] = index
        self._register(node)

    def only_reader(self, node: Node) -> Node | None:
        """The only reader of ``node``'s only output, which is not a graph output; None otherwise."""
        if len(node.outputs) != 1 or node.outputs[0] in self.outputs:
            return None
        readers = self.readers(node.outputs[0])
        return readers[0][0] if len(readers) == 1 else None

    def dequantize_of(self, node: Node, position: int) -> Node | None:
        """The DequantizeLinear that writes an input, if there is one."""
        source = self.producer(node.input(position))
        return source if source is not None and source.op == DEQUANTIZE else None

    def view(self, node: Node) -> LayerView:
        """The node as a layer, for attributes and messages."""
        return LayerView(
            Layer(self.nodes.index(node), node.op, tuple(node.inputs), tuple(node.outputs), node.attributes),
            tuple(None if index == -1 else self.tensors[index] for index in node.inputs),
            tuple(self.tensors[index] for index in node.outputs),
        )

    def data(self, index: int) -> Array | None:
        """A constant's values; None for everything else, and for types that nothing here computes with."""
        return None if index == -1 or self.tensors[index].is_opaque else self.tensors[index].data

    def add_tensor(
        self, name: str, like: Tensor, dtype: str, quantization: Quantization | None = None
    ) -> int:
        """A new edge in the shape of another; its name is made unique."""
        return self._add(Tensor(0, name, like.shape, dtype, quantization))

    def add_constant(self, name: str, values: Array, quantization: Quantization | None = None) -> int:
        """A new constant; its name is made unique."""
        return self._add(Tensor(0, name, values.shape, values.dtype.name, quantization, values))

    def retype(self, index: int, dtype: str, quantization: Quantization | None) -> None:
        """Gives an edge another element type and other parameters; index, name and shape stay."""
        tensor = self.tensors[index]
        self.tensors[index] = Tensor(index, tensor.name, tensor.shape, dtype, quantization)

    def make_constant(self, index: int, values: Array) -> None:
        """Gives an edge constant values; the caller must remove the node that writes it."""
        tensor = self.tensors[index]
        self.tensors[index] = Tensor(
            index, tensor.name, values.shape, values.dtype.name, tensor.quantization, values
        )

    def _add(self, tensor: Tensor) -> int:
        index, name = len(self.tensors), tensor.name
        if name in self._names:
            name = f"{name}#{index}"
        self._names.add(name)
        self.tensors.append(Tensor(index, name, tensor.shape, tensor.dtype, tensor.quantization, tensor.data))
        return index

    def zero_point(self, node: Node) -> int:
        """The zero point of a Quantize- or DequantizeLinear, made a constant 0 where it is left out."""
        if node.input(2) == -1:
            quantized = self.tensors[node.outputs[0] if node.op == QUANTIZE else node.inputs[0]]
            scale = self.tensors[node.inputs[1]]
            zero = np.zeros(scale.shape, DTYPES[quantized.dtype])
            node.inputs[2:] = [self.add_constant(f"{quantized.name}_zero_point", zero)]
        return node.inputs[2]

    def insert(self, position: int, *nodes: Node) -> None:
        """Puts nodes before the one that stands at ``position``."""
        self.nodes[position:position] = nodes
        for node in nodes:
            self._register(node)

    def replace(self, old: Node, new: Node) -> None:
        """Puts a node where another stands."""
        self.nodes[self.nodes.index(old)] = new
        old.standing = False
        self._register(new)

    def remove(self, node: Node) -> None:
        """Takes a node out; nodes that read its output must read something else by now."""
        self.nodes.remove(node)
        node.standing = False

    def bypass(self, node: Node) -> None:
        """Takes a node out; its readers read its first input."""
        for reader, position in self.readers(node.outputs[0]):
            self.read(reader, position, node.inputs[0])
        self.remove(node)

    def sweep(self) -> None:
        """Removes nodes whose outputs no node reads."""
        used = set(self.outputs)
        kept = []
        for node in reversed(self.nodes):
            if used.intersection(node.outputs):
                used.update(node.inputs)
                kept.append(node)
            else:
                node.standing = False
        self.nodes = kept[::-1]

    def each(self, *ops: str) -> Iterator[Node]:
        """The nodes of some ops that stand now, in order; they may be replaced while iterating."""
        for node in list(self.nodes):
            if node.op in ops and node.standing:
                yield node

    def build(self) -> Graph:
        """The graph as it stands."""
        layers = tuple(
            Layer(position, node.op, tuple(node.inputs), tuple(node.outputs), node.attributes, node.version)
            for position, node in enumerate(self.nodes)
        )
        return replace(self.graph, tensors=tuple(self.tensors), layers=layers)
