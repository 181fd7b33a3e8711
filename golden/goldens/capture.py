"""Making a golden of what a run showed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from karat24.golden.goldens.manifest import Golden, GoldenTensor, InputReference, ModelReference
from karat24.golden.goldens.observe import Keep, Observed
from karat24.refimpl import __version__
from karat24.refimpl.errors import CannotCompare
from karat24.refimpl.graph import Array, LayerView, Tensor


@dataclass(frozen=True)
class Captured:
    """A golden that is not written yet, and the arrays to go beside it, by tensor index."""

    golden: Golden
    arrays: Mapping[int, Array]


def capture(model: ModelReference, fed: InputReference, observed: Observed, keep: Keep = "none") -> Captured:
    """The golden of one run, with the counts that the run was asked for.

    Raises CannotCompare where the run shows none of the model's outputs.
    """
    if not observed.shown_outputs:
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
        outputs={index: shown.sha256 for index, shown in observed.shown_outputs.items()},
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
    shown = observed.shown_outputs.get(index) or observed.shown.get(index)
    return None if shown is None else shown.sha256


def _tensor(observed: Observed, view: LayerView, tensor: Tensor) -> GoldenTensor:
    shown = observed.shown.get(tensor.index)
    quantization = tensor.quantization
    return GoldenTensor(
        layer=view.layer.index,
        op=view.op,
        tensor=tensor.index,
        name=tensor.name,
        dtype=tensor.dtype if shown is None else shown.dtype,
        shape=tensor.shape if shown is None else shown.shape,
        scale=() if quantization is None else quantization.scale,
        zero_point=() if quantization is None else quantization.zero_point,
        sha256="" if shown is None else shown.sha256,
        saturated=None if shown is None else shown.saturated,
        ties=None if shown is None else shown.ties,
        fixed=tensor.index not in observed.loose,
        note=observed.unreadable.get(tensor.index, ""),
    )
