"""int16 activations and int4 filters through the whole chain: file, oracle, runtime, verdict."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from karat24.cli import main
from karat24.export.tflite import read_tflite, write_tflite
from karat24.refimpl.engine import compile_graph
from karat24.refimpl.errors import ModelError, RefusedByRuntime
from karat24.refimpl.graph import Graph
from karat24.refimpl.profiles import profile_named
from karat24.refimpl.spec.shared.packed import unpacked
from karat24.refimpl.step import check_layer
from tests.cases import int4_filters, int16_layers, int16_weighted
from tests.cases.case import Case
from tests.shared_models import require_case

LANES = ("litert-ref", "litert-builtin", "litert-xnnpack")

REPORTED = (
    "tf48959_fc_int16x8_rank3_keep0",
    "tinynn385_tanh_int16_good",
    "op_add_int16",
    "op_mul_int16",
    "tf60125_conv_int4_weights",
)
"""Files built after public reports, all of which LiteRT runs."""


def _case(cases: list[Case], name: str) -> Case:
    return next(case for case in cases if case.name == name)


@pytest.mark.parametrize("lane", LANES)
@pytest.mark.parametrize("name", REPORTED)
def test_reported_files_are_bit_exact(name: str, lane: str, capsys: pytest.CaptureFixture[str]) -> None:
    model = require_case(f"tflite/{name}.tflite")
    assert main(["verify", str(model), "--delegate", lane, "--samples", "2"]) == 0
    assert "BIT_EXACT" in capsys.readouterr().out


@pytest.mark.parametrize("profile", ["litert-2.3-ref", "litert-2.3-builtin", "tflite-2.14-ref"])
def test_a_scale_that_is_no_power_of_two_is_the_runtimes_refusal(profile: str) -> None:
    graph = read_tflite(require_case("tflite/tinynn385_tanh_int16_scale_not_power_of_two.tflite"))
    with pytest.raises(RefusedByRuntime, match="2\\^-15"):
        check_layer(graph.view(0), profile_named(profile))


def test_a_bias_that_the_reference_kernel_reads_wrongly_is_refused_with_the_remedy() -> None:
    case = _case(int16_weighted.cases(), "fully_connected_int16_rows_int32")
    view = case.graph.view(0)
    with pytest.raises(RefusedByRuntime, match="set quantized_bias_type to int32, or store"):
        check_layer(view, profile_named("litert-2.3-ref"))
    for profile in ("litert-2.3-builtin", "litert-2.3-xnnpack", "tflite-2.14-ref"):
        check_layer(view, profile_named(profile))


def test_accumulators_of_int16_have_64_bits() -> None:
    case = _case(int16_weighted.cases(), "conv_2d_int16_wide_beyond_int32_fine")
    result = compile_graph(case.graph).run(case.feeds, accumulators=True)
    assert result.trace is not None
    accumulator = result.trace.accumulators[0]
    assert accumulator.dtype == np.int64
    assert np.abs(accumulator).max() > 2**31


@pytest.mark.parametrize("name", ["tanh_int16_shifted", "logistic_int16_shifted"])
def test_reference_and_optimised_kernels_part_where_inputs_are_shifted(name: str) -> None:
    """By several steps: 7 of a logistic, more of a tanh."""
    case = _case(int16_layers.cases(), name)
    outputs = [
        compile_graph(case.graph, profile).run(case.feeds).outputs[0].astype(int)
        for profile in ("litert-2.3-ref", "litert-2.3-builtin")
    ]
    assert 7 <= np.abs(outputs[0] - outputs[1]).max() < 200


def _int4_graph() -> Graph:
    return _case(int4_filters.cases(), "conv_2d_int8_per_channel_power_of_two_33_zp3_g1_int4").graph


def test_an_int4_filter_survives_writing_and_reading() -> None:
    graph = _int4_graph()
    assert read_tflite(write_tflite(graph)).tensors == graph.tensors


def test_the_lower_half_of_a_byte_comes_first() -> None:
    filter_ = replace(_int4_graph().view(0).input(1), shape=(1, 1, 1, 3), quantization=None)
    assert unpacked(filter_, np.array([0x8F, 0x07], np.uint8)).tolist() == [[[[-1, -8, 7]]]]


@pytest.mark.parametrize("bytes_", [0, 1, 65, 67, 1000])
def test_an_int4_filter_of_another_size_is_malformed(bytes_: int) -> None:
    graph = _int4_graph()
    filter_ = graph.view(0).input(1)
    assert filter_.data is not None
    assert filter_.data.size == 66
    tensors = list(graph.tensors)
    tensors[filter_.index] = replace(filter_, data=np.zeros(bytes_, np.uint8))
    with pytest.raises(ModelError, match="bytes, not 66"):
        check_layer(replace(graph, tensors=tuple(tensors)).view(0), profile_named("litert-2.3-ref"))


def test_xnnpacks_int4_products_are_not_claimed() -> None:
    case = next(case for case in int4_filters.cases() if case.graph.view(0).op == "FULLY_CONNECTED")
    assert profile_named("litert-2.3-xnnpack").known_rule(case.graph.view(0)) is None
    assert profile_named("litert-2.3-builtin").known_rule(case.graph.view(0)) is not None
