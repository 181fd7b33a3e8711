"""A selective network on any runtime: a selector, then one of two dedicated networks.

The selector's two outputs are how clean and how distorted an image is; a tie counts as clean. Only the
network it chooses is run. All three read one image, so their inputs must be of one shape, type and
quantization: quantize the three with one ``given`` range for their inputs.

Source: "Selective Deep Convolutional Neural Network for Low Cost Distorted Image Classification".
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal, TypeAlias

from karat24.delegates.protocol import Delegate, DelegateRun, Model
from karat24.export import read_model
from karat24.refimpl.errors import ModelError
from karat24.refimpl.graph import Array, Graph, Tensor

Branch: TypeAlias = Literal["clean", "distorted"]
BRANCHES: tuple[Branch, ...] = ("clean", "distorted")
"""In the order of the selector's outputs."""


@dataclass(frozen=True)
class SelectiveNetwork:
    """Three model files of one format. ``graphs`` are their readings, by ``selector`` and branch.

    Raises ModelError when the inputs differ, the outputs of the dedicated networks differ in shape, or the
    selector does not give two values with one scale; and what reading a file raises.
    """

    selector: Model
    clean: Model
    distorted: Model
    graphs: Mapping[str, Graph] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        graphs = {name: read_model(self.model(name)) for name in ("selector", *BRANCHES)}
        object.__setattr__(self, "graphs", MappingProxyType(graphs))
        for name, graph in graphs.items():
            if len(graph.inputs) != 1 or len(graph.outputs) != 1:
                raise ModelError(f"the {name} network has other than one input and one output")
        image = _input(graphs["selector"])
        for branch in BRANCHES:
            other = _input(graphs[branch])
            if (other.shape, other.dtype, other.quantization) != (
                image.shape,
                image.dtype,
                image.quantization,
            ):
                raise ModelError(
                    f"the {branch} network reads {_said(other)}, the selector {_said(image)}: "
                    "one image must do for both; quantize them with one range for their inputs"
                )
        decision, (left, right) = _output(graphs["selector"]), (_output(graphs[b]) for b in BRANCHES)
        if math.prod(decision.shape) != 2:
            raise ModelError(
                f"the selector gives {list(decision.shape)}, not one value for clean and distorted"
            )
        if decision.quantization is not None and decision.quantization.per_channel:
            raise ModelError("the selector's two values have scales of their own and do not compare")
        if left.shape != right.shape:
            raise ModelError(f"the networks give {list(left.shape)} and {list(right.shape)}")

    def model(self, name: str) -> Model:
        """The file of ``selector``, ``clean`` or ``distorted``."""
        return {"selector": self.selector, "clean": self.clean, "distorted": self.distorted}[name]


@dataclass(frozen=True)
class SelectiveRun:
    """One image: the branch taken, what the selector and what the chosen network computed."""

    branch: Branch
    selector: DelegateRun
    chosen: DelegateRun

    @property
    def output(self) -> Array:
        """The chosen network's output."""
        return self.chosen.outputs[0]


def branch_of(decision: Array) -> Branch:
    """The branch for a selector's output of two values, quantized or real. A tie counts as clean."""
    clean, distorted = decision.reshape(-1)
    return "distorted" if distorted > clean else "clean"


def run_selective(
    network: SelectiveNetwork, delegate: Delegate, image: Array, threads: int | None = None
) -> SelectiveRun:
    """Runs one image, of the networks' input shape and type. Raises as ``Delegate.run`` does."""
    selected = delegate.run(network.selector, [image], tensors="outputs", threads=threads)
    branch = branch_of(selected.outputs[0])
    chosen = delegate.run(network.model(branch), [image], tensors="outputs", threads=threads)
    return SelectiveRun(branch, selected, chosen)


def _input(graph: Graph) -> Tensor:
    return graph.tensors[graph.inputs[0]]


def _output(graph: Graph) -> Tensor:
    return graph.tensors[graph.outputs[0]]


def _said(tensor: Tensor) -> str:
    parameters = tensor.quantization
    scale = "" if parameters is None else f", scale {parameters.scale[0]:g}, zero {parameters.zero_point[0]}"
    return f"{tensor.dtype} {list(tensor.shape)}{scale}"
