"""The Edge TPU's partial profile: its numbers are those of public compiled files, what nobody knows is
refused by name, and its kernels give the spec's bits."""

from __future__ import annotations

import itertools
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from karat24.cli import main
from karat24.export.edgetpu.instructions import InstructionStream
from karat24.export.tflite import write_tflite
from karat24.golden.edgetpu import prove
from karat24.golden.edgetpu.arithmetic import bits, from_bits, unsigned_zero_point
from karat24.golden.explain import Explainer
from karat24.refimpl.builder import GraphBuilder
from karat24.refimpl.contract import Target
from karat24.refimpl.engine import compile_graph
from karat24.refimpl.errors import UnsupportedOp
from karat24.refimpl.graph import Array, Graph, LayerView, Quantization
from karat24.refimpl.kernels import KERNELS
from karat24.refimpl.kernels.elementwise.binary import _nearest_fraction
from karat24.refimpl.kernels.rounding.multipliers import combined_scales
from karat24.refimpl.ops import OPS
from karat24.refimpl.profiles import PROFILES, caveat_of, profile_named
from karat24.refimpl.profiles.tflite.edgetpu import SILENT
from karat24.refimpl.spec.shared.primitives import activation_range, effective_multiplier
from karat24.refimpl.spec.tflite.rational_sum import operand_factors
from tests.support.edgetpu_chain import chain
from tests.support.edgetpu_pairs import PAIRS, pair

PROFILE = PROFILES["edgetpu"]
CLAMPED = ("CONV_2D", "DEPTHWISE_CONV_2D", "ADD")


def one(op: str, inputs: list[tuple], output: tuple, **attributes) -> Graph:
    """A layer; tensors are (shape, scale, zero point[, constant])."""
    builder = GraphBuilder()
    given = []
    for shape, scale, zero_point, *constant in inputs:
        parameters, name = Quantization.per_tensor(scale, zero_point), f"t{len(given)}"
        if constant:
            values = np.full(shape, constant[0], np.uint8)
            given.append(builder.constant(name, values, parameters))
        else:
            given.append(builder.input(name, shape, "uint8", parameters))
    for name in ("axes", "sizes"):
        if name in attributes:
            given.append(builder.constant(name, np.array(attributes.pop(name), np.int32)))
    shape, scale, zero_point = output
    y = builder.tensor("y", shape, "uint8", Quantization.per_tensor(scale, zero_point))
    return builder.build((builder.layer(op, given, (y,), **attributes),))


def computed(graph: Graph, *feeds: Array) -> list[int]:
    """By the kernel and by the spec, which must agree."""
    results = [
        compile_graph(graph, PROFILE, 1, way).run(list(feeds)).outputs[0] for way in ("spec", "kernels")
    ]
    assert results[0].tobytes() == results[1].tobytes()
    return results[0].reshape(-1).tolist()


# ---- the numbers of compiled files


@pytest.mark.parametrize("name", PAIRS)
def test_multipliers_and_clamps_are_those_of_public_compiled_files(name: str) -> None:
    """Read from the instructions themselves: each layer's multiplier to the last bit, its clamps rounded."""
    source, compiled = pair(name)
    (op,) = compiled.ops
    stages = {stage.instruction: stage for stage in InstructionStream(op.package.main.instructions).stages()}
    seen: set[str] = set()
    for layer in prove(source, [compiled]).layers:
        view = source.view(layer.layer)
        if layer.verdict != "proved" or not layer.stages or view.op not in PROFILE.table:
            continue
        rule, output, stage = PROFILE.rule(view), view.output(), stages[layer.stages[0]]
        if view.op in (*CLAMPED, "MUL", "AVERAGE_POOL_2D") and not stage.per_channel:
            assert stage.multiplier == multiplier(view), str(view)
            seen.add(view.op)
        if view.op in CLAMPED:
            activation = view.text("fused_activation_function", "NONE")
            numbers = output.scale, output.zero_point
            low, high = activation_range(activation, *numbers, output.dtype, rule.clamp)
            offset = unsigned_zero_point(output) - output.zero_point
            clamps = [round(from_bits(word)) + stage.output_zero_point for word in (stage.lower, stage.upper)]
            assert clamps == [low + offset, high + offset], str(view)
    assert seen or name == PAIRS[1]  # whose layers all have one multiplier per channel


def multiplier(view: LayerView) -> int:
    """The bits of the multiplier that the profile's rule means."""
    scale, out = view.input(0).scale, view.output().scale
    if view.op == "ADD":
        first, _ = operand_factors(scale, view.input(1).scale)
        return bits(np.float32(scale) / np.float32(first) * (np.float32(1) / np.float32(out)))
    if view.op == "AVERAGE_POOL_2D":
        other = np.float32(1) / np.float32(view.integer("filter_height") * view.integer("filter_width"))
    else:
        other = view.input(1).scale
    return bits(effective_multiplier(PROFILE.rule(view).multiplier, scale, np.float32(other), out))


def test_a_reciprocal_is_not_a_division() -> None:
    """Scales at which the two float32 orders part; spec and kernel take the reciprocal."""
    rng = np.random.default_rng(1)
    scales = rng.uniform(0.001, 0.1, (200, 3)).astype(np.float32)
    parted = 0
    for scale, weight, out in scales:
        divided, spec = (
            float(effective_multiplier(how, float(scale), weight, float(out)))
            for how in ("float32", "float32_reciprocal")
        )
        (kernel,) = combined_scales(float(scale), [float(weight)], float(out), "float32_reciprocal")
        assert spec == kernel == float(np.float32(np.float32(scale * weight) * np.float32(1 / out)))
        parted += spec != divided
    assert 20 < parted < 160


def test_bounds_are_multiplied_by_the_reciprocal() -> None:
    """6 / s is 9.5 steps: TFLite rounds away from zero, XNNPACK to even with the zero point, this without."""
    scale = float(np.float32(6 / 9.5))
    highs = [
        activation_range("RELU6", scale, 1, "uint8", clamp)[1]
        for clamp in ("half_away", "half_even", "reciprocal")
    ]
    steps = np.float32(6) * (np.float32(1) / np.float32(scale))
    assert highs == [11, 10, 1 + round(float(steps))]


# ---- additions


def test_operand_factors_are_the_nearest_fraction() -> None:
    """Spec and kernel, which share no code, and values written out of public files."""
    assert operand_factors(0.5746461749076843, 0.35531607270240784) == (17575, 10867)
    assert operand_factors(0.1374264657497406, 0.17704160511493683) == (22129, 28508)
    rng = np.random.default_rng(2)
    ratios = [*np.exp2(rng.uniform(-17, 0, 300)), 1.0, 0.5, 1 / 3, 32767 / 32768, 1 / 65533.0, 1 / 65536.0]
    for ratio in ratios:
        large = float(np.float32(rng.uniform(0.001, 3)))
        small = float(np.float32(large * ratio))
        found = operand_factors(small, large)
        assert found == _nearest_fraction(small, large, 32767)
        assert found == operand_factors(large, small)[::-1]
        wanted = Fraction(small) / Fraction(large)
        for more in (-1, 1):
            if found[1] > 1:
                assert abs(Fraction(*found) - wanted) <= abs(Fraction(found[0] + more, found[1]) - wanted)


def test_a_sum_is_rounded_once_half_to_even() -> None:
    """Equal scales: factors 1 and 1, multiplier 1/2, so every odd sum is a tie."""
    graph = one("ADD", [((1, 6), 0.5, 10), ((1, 6), 0.5, 20)], ((1, 6), 1.0, 100))
    left = np.array([[11, 13, 10, 7, 255, 0]], np.uint8)
    right = np.array([[20, 20, 21, 20, 255, 0]], np.uint8)
    assert computed(graph, left, right) == [100, 102, 100, 98, 255, 85]


def test_sums_of_every_pair_agree_between_spec_and_kernel() -> None:
    pairs = np.indices((256, 256)).reshape(2, 1, -1).astype(np.uint8)
    for scales in ((0.0471, 0.0094, 0.061), (0.5, 1 / 40000, 0.25), (0.003, 0.003, 0.0041)):
        first, second, out = (float(np.float32(scale)) for scale in scales)
        shape = (1, pairs.shape[2])
        graph = one("ADD", [(shape, first, 3), (shape, second, 250)], (shape, out, 77))
        assert len(set(computed(graph, *pairs))) > 50


def test_operands_too_far_apart_are_refused() -> None:
    """Where the nearest fraction is 0 the profile is silent; spec and kernel by themselves refuse, too."""
    for exponent, fits in ((-15.9, True), (-16.1, False)):
        graph = one("ADD", [((1, 6), 1.0, 0), ((1, 6), 2.0**exponent, 0)], ((1, 6), 1.0, 0))
        view, values = graph.view(0), [np.zeros((1, 6), np.uint8)] * 2
        rule = PROFILE.table["ADD"]["uint8"]
        if fits:
            assert PROFILE.rule(view) is rule
            continue
        with pytest.raises(UnsupportedOp, match="says nothing of layer 0"):
            compile_graph(graph, PROFILE, 1)
        with pytest.raises(UnsupportedOp, match="further apart"):
            OPS["ADD"].spec(view, values, rule)
        with pytest.raises(UnsupportedOp, match="too far apart"):
            KERNELS["ADD"](view, rule, Target())


# ---- means


@pytest.mark.parametrize("op", ["AVERAGE_POOL_2D", "MEAN"])
def test_a_mean_is_one_float32_product(op: str) -> None:
    """Every total of 4 values around ties; another scale and zero point at the output."""
    totals = np.arange(0, 4 * 255 + 1)
    image = np.stack([np.clip(totals - 255 * n, 0, 255) for n in range(4)]).reshape(1, 2, 2, -1)
    shape, channels = image.shape, image.shape[3]
    attributes = {"axes": [1, 2], "keep_dims": True}
    if op == "AVERAGE_POOL_2D":
        attributes = dict.fromkeys(("filter_height", "filter_width", "stride_h", "stride_w"), 2)
        attributes |= {"padding": "VALID", "fused_activation_function": "NONE"}
    for scale_in, scale_out in ((0.5, 1.0), (0.0471, 0.031)):
        graph = one(op, [(shape, scale_in, 13)], ((1, 1, 1, channels), scale_out, 7), **attributes)
        share = np.float32(scale_in) * np.float32(0.25) * (np.float32(1) / np.float32(scale_out))
        steps = (totals - 4 * 13).astype(np.float32) * share
        wanted = np.clip(np.rint(steps).astype(int) + 7, 0, 255).tolist()
        assert computed(graph, image.astype(np.uint8)) == wanted


# ---- moves with other numbers


def test_inputs_of_a_concatenation_are_requantized() -> None:
    values = np.arange(256, dtype=np.uint8).reshape(1, 256)
    graph = one("CONCATENATION", [((1, 256), 0.5, 0), ((1, 256), 1.0, 9)], ((1, 512), 1.0, 9), axis=1)
    wanted = [*np.clip(np.rint(values[0] * 0.5) + 9, 0, 255).astype(int), *range(256)]
    assert computed(graph, values, values) == wanted


def test_quantize_rounds_half_to_even() -> None:
    values = np.arange(256, dtype=np.uint8).reshape(1, 256)
    graph = one("QUANTIZE", [((1, 256), 0.5, 100)], ((1, 256), 1.0, 3))
    wanted = np.clip(np.rint((values[0].astype(int) - 100) * 0.5) + 3, 0, 255).astype(int).tolist()
    assert computed(graph, values) == wanted


# ---- whole networks


@pytest.mark.parametrize(("dtype", "per_channel"), [("int8", True), ("int8", False), ("uint8", False)])
def test_kernels_give_the_spec_s_bits(dtype: str, per_channel: bool) -> None:
    graph = chain(dtype=dtype, per_channel=per_channel)
    rng = np.random.default_rng(6)
    low, high = (-128, 128) if dtype == "int8" else (0, 256)
    programs = [compile_graph(graph, PROFILE, 1, way) for way in ("spec", "kernels")]
    for _ in range(4):
        image = rng.integers(low, high, (1, 4, 4, 3)).astype(dtype)
        spec, kernels = (program.run([image], True).trace for program in programs)
        assert spec is not None
        assert kernels is not None
        for index, values in spec.tensors.items():
            assert values.tobytes() == kernels.tensors[index].tobytes(), graph.label(index)


def half_of_a_byte() -> Graph:
    """A convolution whose odd inputs are exact ties."""
    builder = GraphBuilder()
    x = builder.input("x", (1, 1, 1, 1), "uint8", Quantization.per_tensor(0.5, 0))
    w = builder.constant("w", np.ones((1, 1, 1, 1), np.uint8), Quantization.per_tensor(1.0, 0))
    y = builder.tensor("y", (1, 1, 1, 1), "uint8", Quantization.per_tensor(1.0, 0))
    strides = {"stride_h": 1, "stride_w": 1, "dilation_h_factor": 1, "dilation_w_factor": 1}
    builder.layer("CONV_2D", [x, w, -1], [y], padding="SAME", fused_activation_function="NONE", **strides)
    return builder.build([y])


def test_it_is_not_tflite_s_arithmetic() -> None:
    """TFLite rounds ties away from zero."""
    graph, image = half_of_a_byte(), np.full((1, 1, 1, 1), 5, np.uint8)
    assert computed(graph, image) == [2]
    assert compile_graph(graph, "litert-2.3-ref", 1).run([image]).outputs[0].item() == 3


def test_it_explains_no_runtime_s_difference() -> None:
    """Under its own profile a device may be explained by TFLite's, not the other way round."""
    names = {
        profile: [name for name, _ in Explainer(compile_graph(half_of_a_byte(), profile, 1), 0).alternatives]
        for profile in ("litert-2.3-ref", "edgetpu")
    }
    assert "edgetpu" not in names["litert-2.3-ref"]
    assert "litert-2.3-builtin" in names["litert-2.3-ref"]
    assert "litert-2.3-ref" in names["edgetpu"]


# ---- what it says nothing of


def silent_layers() -> dict[str, Graph]:
    image, same = ((1, 4, 4, 2), 0.5, 3), ((1, 4, 4, 2), 0.5, 3)
    window = {"padding": "SAME", "stride_h": 2, "stride_w": 2, "fused_activation_function": "NONE"}
    return {
        "not how their result is rounded": one("ADD", [image, (*image, 7)], same),
        "no pair repeats an operand": one("MUL", [image, ((1, 1, 1, 2), 0.5, 3)], same),
        "input and output have other scales": one("RESHAPE", [image], ((1, 32), 0.25, 3), new_shape=(1, 32)),
        "windows at the border hold fewer": one(
            "AVERAGE_POOL_2D", [image], ((1, 2, 2, 2), 0.5, 3), filter_height=3, filter_width=3, **window
        ),
        "no pair takes a mean but": one("MEAN", [image], ((1, 4, 4), 0.5, 3), axes=[3], keep_dims=False),
        "function is in no compiled file": one("LOGISTIC", [image], ((1, 4, 4, 2), 1 / 256, 0)),
        "between pixels": one(
            "RESIZE_BILINEAR", [image], ((1, 8, 8, 2), 0.5, 3), sizes=[8, 8], half_pixel_centers=True
        ),
        "nobody described how its runtime computes variant": one("SUB", [image] * 2, same),
        "further apart": one("ADD", [image, ((1, 4, 4, 2), 2.0**-17, 3)], same),
    }  # fmt: skip


@pytest.mark.parametrize("reason", silent_layers())
def test_what_nobody_knows_is_refused_by_name(reason: str) -> None:
    view = silent_layers()[reason].view(0)
    OPS[view.op].check(view)
    with pytest.raises(UnsupportedOp, match=rf"says nothing of layer 0 \({view.op}, 'y'\): .*{reason}"):
        PROFILE.rule(view)
    assert profile_named("litert-2.3-ref").rule(view)


def test_every_reason_completes_a_sentence_and_no_rule_hides_behind_one() -> None:
    for silence in SILENT:
        assert silence.ops
        assert silence.reason[0].islower()
        assert not silence.reason.endswith(".")
    ops = set(itertools.chain.from_iterable(silence.ops for silence in SILENT))
    assert {"TRANSPOSE_CONV", "SOFTMAX", "RESIZE_BILINEAR"} <= ops - set(PROFILE.table)


def test_no_other_profile_sends_a_user_here() -> None:
    """What TFLM refuses, profiles that were held against a runtime run; this one is none of them."""
    view = one("ADD", [((1, 6), 0.5, 10)] * 2, ((1, 6), 1.0, 100)).view(0)
    assert PROFILE.rule(view)
    assert "edgetpu" not in profile_named("onnx-spec")._elsewhere(view)
    assert "edgetpu" not in profile_named("tflm")._elsewhere(view)


# ---- the command line


def test_a_run_says_what_the_profile_rests_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "chain.tflite"
    path.write_bytes(write_tflite(chain()))
    assert main(["run", str(path), "--profile", "edgetpu"]) == 0
    out = capsys.readouterr().out
    assert f"note: {PROFILE.caveat}" in out
    assert main(["profiles", "edgetpu"]) == 0
    out = capsys.readouterr().out
    assert PROFILE.caveat in out
    assert "says nothing of some or all TRANSPOSE_CONV: it is compiled to several convolutions" in out
    assert main(["diverge", str(path), "--profiles", "edgetpu", "litert-2.3-ref"]) == 1
    assert f"note: {PROFILE.caveat}" in capsys.readouterr().out


def test_a_network_with_a_layer_nobody_knows_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "logistic.tflite"
    path.write_bytes(write_tflite(silent_layers()["function is in no compiled file"]))
    assert main(["run", str(path), "--profile", "edgetpu"]) == 2
    assert "profile edgetpu says nothing of layer 0 (LOGISTIC, 'y')" in capsys.readouterr().err


def test_only_this_profile_has_a_caveat() -> None:
    assert [name for name in PROFILES if caveat_of(name)] == ["edgetpu"]
    assert caveat_of("") == caveat_of("what litert-ref gave") == ""
