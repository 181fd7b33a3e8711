"""Float networks whose channels differ by orders of magnitude: what equalization is for."""

from __future__ import annotations

import numpy as np

from karat24.refimpl.builder import GraphBuilder
from karat24.refimpl.graph import Array, Graph

STRIDE_1 = {"padding": "SAME", "stride_w": 1, "stride_h": 1}


class Chain:
    """A small float network of layers with random filters, drawn one behind the other."""

    def __init__(self, channels: int = 3, seed: int = 0) -> None:
        self._random = np.random.default_rng(seed)
        self.builder = GraphBuilder("chain")
        self.x = self.builder.input("x", (1, 4, 4, channels), "float32")

    def conv(
        self,
        name: str,
        channels: int,
        activation: str = "RELU",
        rows: Array | None = None,
        columns: Array | float = 1.0,
        groups: int = 1,
        op: str = "CONV_2D",
    ) -> int:
        """A 3×3 convolution; ``rows`` multiplies what makes each output channel, ``columns`` what reads each
        input channel."""
        inputs = self.builder.shape(self.x)[3]
        depthwise = op == "DEPTHWISE_CONV_2D"
        shape = (1, 3, 3, channels) if depthwise else (channels, 3, 3, inputs // groups)
        weights = self._random.standard_normal(shape) * columns
        factors = np.ones(channels) if rows is None else rows
        weights *= factors if depthwise else factors[:, None, None, None]
        bias = self._random.standard_normal(channels) * factors
        constants = [
            self.builder.constant(f"{name}/w", weights.astype(np.float32)),
            self.builder.constant(f"{name}/b", bias.astype(np.float32)),
        ]
        extra = {"depth_multiplier": channels // inputs} if depthwise else {}
        return self._append(op, name, [self.x, *constants], channels, activation, extra)

    def _append(
        self, op: str, name: str, inputs: list[int], channels: int, activation: str, extra: dict[str, int]
    ) -> int:
        y = self.builder.tensor(name, (1, 4, 4, channels), "float32")
        self.x = self.builder.layer(
            op, inputs, (y,), **STRIDE_1, **extra, fused_activation_function=activation
        )
        return self.x

    def concat(self, first: int, second: int, name: str) -> int:
        channels = self.builder.shape(first)[3] + self.builder.shape(second)[3]
        y = self.builder.tensor(name, (1, 4, 4, channels), "float32")
        self.x = self.builder.layer(
            "CONCATENATION", (first, second), (y,), axis=3, fused_activation_function="NONE"
        )
        return self.x

    def end(self, *more: int) -> Graph:
        return self.builder.build((self.x, *more))


SPREAD = np.array([1e-3, 1.0, 300.0, 0.05, 8.0, 0.3])


def two_convs() -> Graph:
    """Channels 3·10⁵ apart that matter alike: what makes one small, the reader makes up for."""
    chain = Chain()
    chain.conv("a", 6, rows=SPREAD)
    chain.conv("y", 2, "NONE", columns=1 / SPREAD)
    return chain.end()


def mobile_block() -> Graph:
    """Convolution, depthwise one with two outputs for each channel, pointwise one."""
    chain = Chain()
    chain.conv("a", 6, rows=SPREAD)
    chain.conv("d", 12, rows=np.repeat(SPREAD[::-1] / SPREAD, 2), op="DEPTHWISE_CONV_2D")
    chain.conv("y", 2, "NONE", columns=np.repeat(1 / SPREAD[::-1], 2))
    return chain.end()
