"""What prepared convolutions of every kind have in common: sums of products, requantized by an epilogue."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
from numpy.typing import NDArray

from refimpl.contract import Values
from refimpl.graph import Array
from refimpl.kernels.jit.packed_call import TaskLoop
from refimpl.kernels.rounding.requantize import Epilogue
from refimpl.kernels.threads.layer_sequence import BoundLayer


@dataclass(frozen=True)
class AccumulatingKernel(ABC):
    """A prepared layer; ``loop`` runs its tasks."""

    loop: TaskLoop
    epilogue: Epilogue

    def __call__(self, inputs: Values, outputs: Sequence[Array], accumulator: Array | None) -> None:
        """Runs the layer."""
        self.stage(inputs, outputs, accumulator)()

    def bind(self, inputs: Values, outputs: Sequence[Array]) -> BoundLayer:
        """The layer on these arrays, to be run again and again."""
        return self.stage(inputs, outputs, None)

    def then(self, table: NDArray[np.uint8]) -> Self:
        """The same, every result looked up in ``table``, [256], before it leaves the cache."""
        return replace(self, epilogue=self.epilogue.then(table))

    @abstractmethod
    def stage(self, inputs: Values, outputs: Sequence[Array], accumulator: Array | None) -> BoundLayer:
        """The layer on these arrays, and on ``accumulator`` unless it is None."""
