"""Making a golden of what a run showed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from karat24.golden.explain import real_results
from karat24.golden.goldens.manifest import Golden, GoldenTensor, InputReference, ModelReference
from karat24.golden.goldens.observe import Observed
from karat24.refimpl import __version__
from karat24.refimpl.errors import CannotCompare
from karat24.refimpl.graph import QUANTIZED_RANGE, Array, LayerView, Tensor

Keep = Literal["none", "outputs", "all"]
"""Which values to keep beside the hashes: those of the model's outputs, of every tensor, or of none."""

SATURATING = ("int8", "uint8", "int16", "uint16")


@dataclass(frozen=True)
class Captured:
    """A golden that is not written yet, and the arrays to go beside it, by tensor index."""

    golden: Golden
    arrays: Mapping[int, Array]


def capture(model: ModelReference, fed: InputReference, observed: Observed, keep: Keep = "none") -> Captured:
    """The golden of one run. Ties are counted where the run has accumulators.

    Raises CannotCompare where the run shows none of the model's outputs.
    """
    if not observed.outputs:
        raise CannotCompare(
            f"{observed.producer.name} shows no output of {model.path}: there is nothing to keep"
        )
    tensors = tuple(
        _tensor(observed, view, tensor) for view in observed.graph.views() for tensor in view.outputs
    )
    golden = Golden(
        model=model,
        input=fed,
        profile=observed.profile,
        producer=observed.producer,
        tensors=tensors,
        outputs=observed.output_digests,
        recorded_by=__version__,
    )
    kept = {"none": {}, "outputs": observed.outputs, "all": {**observed.tensors, **observed.outputs}}[keep]
    # Outputs of an undisturbed run may differ from the tensor that was read; the golden's hash decides.
    shown = {tensor.tensor: tensor.sha256 for tensor in tensors}
    return Captured(
        golden,
        {index: values for index, values in kept.items() if shown.get(index) == _digest(observed, index)},
    )


def _digest(observed: Observed, index: int) -> str | None:
    return observed.output_digests.get(index) or observed.digests.get(index)


def _tensor(observed: Observed, view: LayerView, tensor: Tensor) -> GoldenTensor:
    values = observed.tensors.get(tensor.index)
    quantization = tensor.quantization
    accumulator = observed.accumulators.get(view.layer.index)
    return GoldenTensor(
        layer=view.layer.index,
        op=view.op,
        tensor=tensor.index,
        name=tensor.name,
        dtype=tensor.dtype if values is None else str(values.dtype),
        shape=tensor.shape if values is None else values.shape,
        scale=() if quantization is None else quantization.scale,
        zero_point=() if quantization is None else quantization.zero_point,
        sha256=observed.digests.get(tensor.index, ""),
        saturated=None if values is None else _saturated(values),
        ties=None if accumulator is None else count_ties(view, accumulator),
        fixed=tensor.index not in observed.loose,
        note=observed.unreadable.get(tensor.index, ""),
    )


def _saturated(values: Array) -> tuple[int, int] | None:
    """How many values are the lowest and the highest of their type."""
    if str(values.dtype) not in SATURATING:
        return None
    low, high = QUANTIZED_RANGE[str(values.dtype)]
    return int(np.count_nonzero(values == low)), int(np.count_nonzero(values == high))


def count_ties(view: LayerView, accumulator: Array) -> int | None:
    """How many accumulators have a real result, in float64, exactly between two integers."""
    if view.output().dtype not in SATURATING:
        return None
    real = real_results(view, accumulator)
    return None if real is None else int(np.count_nonzero(real - np.floor(real) == 0.5))
