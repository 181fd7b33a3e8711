"""Writing a graph by hand: networks, tests and transformations build on this."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from karat24.refimpl.graph import Array, AttributeValue, Format, Graph, Layer, Quantization, Signature, Tensor


class GraphBuilder:
    """Collects tensors and layers in order and builds a validated :class:`Graph`.

    Methods return tensor indices, so a network reads top to bottom.
    """

    def __init__(self, name: str = "main", format: Format = "tflite", description: str = "") -> None:
        self._name, self._format, self._description = name, format, description
        self._tensors: list[Tensor] = []
        self._layers: list[Layer] = []
        self._inputs: list[int] = []

    def tensor(
        self, name: str, shape: Sequence[int], dtype: str, quantization: Quantization | None = None
    ) -> int:
        """A tensor some layer will write."""
        index = len(self._tensors)
        self._tensors.append(Tensor(index, name, tuple(int(n) for n in shape), dtype, quantization))
        return index

    def input(
        self, name: str, shape: Sequence[int], dtype: str, quantization: Quantization | None = None
    ) -> int:
        """A graph input."""
        index = self.tensor(name, shape, dtype, quantization)
        self._inputs.append(index)
        return index

    def constant(self, name: str, values: Array, quantization: Quantization | None = None) -> int:
        """A tensor whose values the graph stores."""
        values = np.asarray(values)
        index = len(self._tensors)
        self._tensors.append(Tensor(index, name, values.shape, values.dtype.name, quantization, values))
        return index

    def variable(
        self, name: str, shape: Sequence[int], dtype: str, quantization: Quantization | None = None
    ) -> int:
        """A tensor that keeps its values from run to run."""
        index, dtype = len(self._tensors), f"variable {dtype}"
        held = np.empty(0, np.uint8)  # by the runtime, not by the graph
        self._tensors.append(Tensor(index, name, tuple(shape), dtype, quantization, held))
        return index

    def layer(
        self,
        op: str,
        inputs: Sequence[int],
        outputs: Sequence[int],
        version: int = 1,
        **attributes: AttributeValue,
    ) -> int:
        """Appends a layer and returns its first output, so that calls chain."""
        self._layers.append(Layer(len(self._layers), op, tuple(inputs), tuple(outputs), attributes, version))
        return outputs[0]

    def shape(self, index: int) -> tuple[int, ...]:
        """Shape of a tensor already added."""
        return self._tensors[index].shape

    def build(self, outputs: Sequence[int], signature: str | None = "serving_default") -> Graph:
        """The validated graph; ``signature`` names an entry point over all inputs and outputs."""
        signatures: tuple[Signature, ...] = ()
        if signature is not None:
            signatures = (
                Signature(
                    signature,
                    {self._tensors[i].name: i for i in self._inputs},
                    {self._tensors[i].name: i for i in outputs},
                ),
            )
        return Graph(
            tuple(self._tensors),
            tuple(self._layers),
            tuple(self._inputs),
            tuple(outputs),
            self._name,
            self._format,
            signatures,
            self._description,
        )
