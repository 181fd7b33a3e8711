"""SHAPE and RANK: the input's sizes, or their number, as a tensor."""

from __future__ import annotations

import numpy as np

from karat24.refimpl.contract import SpecResult, Values
from karat24.refimpl.graph import DTYPES, LayerView
from karat24.refimpl.profiles.rules import Rule
from karat24.refimpl.spec.shared.requirements import (
    INDEX,
    require,
    require_arity,
    require_dtype,
    require_shape,
)


def check_shape(view: LayerView) -> None:
    """Attribute ``out_type``: int32 or int64."""
    require_arity(view, 1)
    output = view.output()
    require_dtype(view, output, INDEX)
    wanted = view.text("out_type")
    require(view, output.dtype == wanted, f"the output is {output.dtype}, out_type says {wanted}")
    require_shape(view, output, (len(view.input(0).shape),))


def shape(view: LayerView, values: Values, rule: Rule) -> SpecResult:  # noqa: ARG001 - known beforehand
    """SHAPE."""
    return SpecResult((np.array(view.input(0).shape, DTYPES[view.output().dtype]),))


def check_rank(view: LayerView) -> None:
    """One input, one int32 scalar out."""
    require_arity(view, 1)
    require_dtype(view, view.output(), ("int32",))
    require_shape(view, view.output(), ())


def rank(view: LayerView, values: Values, rule: Rule) -> SpecResult:  # noqa: ARG001 - known beforehand
    """RANK."""
    return SpecResult((np.array(len(view.input(0).shape), np.int32),))
