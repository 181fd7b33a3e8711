"""Profiles are complete, closed tables: every op has a rule in each, every word is explained."""

from __future__ import annotations

import pytest

from karat24.refimpl.builder import GraphBuilder
from karat24.refimpl.errors import UnsupportedOp, UsageError
from karat24.refimpl.graph import Quantization
from karat24.refimpl.ops import OPS
from karat24.refimpl.profiles import CANONICAL, METHODS, PROFILES, profile_named
from karat24.refimpl.profiles.tflite.table import (
    LITERT_2_3_BUILTIN,
    LITERT_2_3_REF,
    TFLITE_2_14_REF,
    TFLM_OTHERWISE,
)

TFLITE = [name for name in PROFILES if name.startswith(("litert", "tflite", "tflm"))]
TFLITE_OPS = [op for op in OPS if op.isupper() or "_" in op]


def test_canonical_profile_is_the_reference_kernels() -> None:
    assert CANONICAL == "litert-2.3-ref"
    assert profile_named(CANONICAL).table is LITERT_2_3_REF
    assert "default" not in PROFILES


@pytest.mark.parametrize("name", TFLITE)
def test_every_op_has_rules_in_every_profile(name: str) -> None:
    """Or the profile says why its runtime refuses the op, or leaves the op out by name."""
    profile = PROFILES[name]
    excused = frozenset().union(*(refusal.ops for refusal in profile.refuses))
    excused |= frozenset(TFLM_OTHERWISE) if name == "tflm" else frozenset()
    assert [op for op in TFLITE_OPS if op not in profile.table and op not in excused] == []


@pytest.mark.parametrize("name", list(PROFILES))
def test_every_word_of_every_rule_is_explained(name: str) -> None:
    profile = PROFILES[name]
    for table in (profile.table, profile.delegated or {}):
        for op, rules in table.items():
            assert rules, op
            for rule in rules.values():
                assert rule.method in METHODS
                assert rule.tail is None or rule.tail in METHODS
                assert (rule.block > 0) == (rule.block_axis != "none") == (rule.tail is not None), (op, rule)


def test_versions_of_a_runtime_are_told_apart() -> None:
    """FULLY_CONNECTED changed from gemmlowp to float64 between 2.14 and 2.3."""
    old, new = TFLITE_2_14_REF["FULLY_CONNECTED"], LITERT_2_3_REF["FULLY_CONNECTED"]
    assert old["int8_per_channel"].method == "gemmlowp"
    assert new["*"].method == "float64_half_away"


def test_a_layer_no_table_knows_is_refused_by_name() -> None:
    builder = GraphBuilder()
    given = builder.input("x", (1, 4), "int8", Quantization.per_tensor(0.5))
    output = builder.tensor("y", (1, 4), "int8", Quantization.per_tensor(0.5))
    builder.layer("CUMSUM", [given], [output])
    with pytest.raises(UnsupportedOp, match=r"litert-2\.3-ref has no rule for layer 0 \(CUMSUM, 'y'\)"):
        profile_named(CANONICAL).rule(builder.build([output]).view(0))


def test_unknown_profile_lists_the_known_ones() -> None:
    with pytest.raises(UsageError, match=r"no profile 'litert'; known: litert-2\.3-ref, litert-2\.3-builtin"):
        profile_named("litert")


def grouped_conv(groups: int) -> GraphBuilder:
    import numpy as np

    builder = GraphBuilder()
    given = builder.input("x", (1, 4, 4, 4), "int8", Quantization.per_tensor(0.5))
    filter_ = builder.constant(
        "w", np.ones((4, 1, 1, 4 // groups), np.int8), Quantization((0.5,) * 4, (0,) * 4, 0)
    )
    output = builder.tensor("y", (1, 4, 4, 4), "int8", Quantization.per_tensor(0.5))
    builder.layer("CONV_2D", [given, filter_], [output])
    return builder


@pytest.mark.parametrize(("groups", "method"), [(1, "ruy"), (2, "gemmlowp"), (4, "gemmlowp")])
def test_a_grouped_convolution_rounds_otherwise(groups: int, method: str) -> None:
    view = grouped_conv(groups).build([2]).view(0)
    assert PROFILES["litert-2.3-builtin"].rule(view).method == method
    assert LITERT_2_3_BUILTIN["CONV_2D"]["int8"].method == "ruy"
