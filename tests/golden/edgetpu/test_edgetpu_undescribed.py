"""What no pair has shown: layers, constants and sources of unknown kinds are not provable, by name; they
neither crash the proof, nor make a true pair differ, nor let a false one pass."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from karat24.export.edgetpu import CompiledModel, compiled_from, read_compiled
from karat24.export.edgetpu.instructions import MAX_STAGES, InstructionStream
from karat24.export.tflite import read_tflite
from karat24.golden.edgetpu import Proof, lines, prove
from karat24.golden.edgetpu.records import factor_records, summand_records
from karat24.refimpl.builder import GraphBuilder
from karat24.refimpl.errors import ModelError
from karat24.refimpl.graph import Array, Graph, Layer, Quantization, Tensor
from tests.support.edgetpu_chain import chain
from tests.support.edgetpu_standin import compiled

WINDOW = {
    "padding": "SAME", "stride_w": 1, "stride_h": 1, "dilation_w_factor": 1, "dilation_h_factor": 1,
    "fused_activation_function": "NONE",
}  # fmt: skip
ONE_SCALE = Quantization.per_tensor(0.05)


def network(
    *middle: tuple, channels: int = 8, numbers: Quantization = ONE_SCALE, end: Quantization | None = None
) -> Graph:
    """A convolution, layers of (op, constants or numbers), and another convolution; all tensors have
    ``channels`` and, but for the last one's ``end``, the same numbers, so that nothing but their weights
    tells the convolutions apart."""
    rng = np.random.default_rng(5)
    builder = GraphBuilder()
    x = builder.input("x", (1, 4, 4, channels), "int8", numbers)

    def filtered(name: str, given: int, op: str = "CONV_2D", output: Quantization = numbers) -> int:
        values = rng.integers(-127, 128, (channels, 1, 1, channels)).astype(np.int8)
        scales = tuple(float(np.float32(s)) for s in rng.uniform(0.001, 0.01, channels))
        bias = builder.constant(f"{name}/bias", rng.integers(1, 900, channels).astype(np.int32))
        made = builder.tensor(name, (1, 4, 4, channels), "int8", output)
        inputs = [
            given,
            builder.constant(f"{name}/filter", values, Quantization(scales, (0,) * channels)),
            bias,
        ]
        if op == "TRANSPOSE_CONV":
            sizes = builder.constant(f"{name}/sizes", np.array([1, 4, 4, channels], np.int32))
            inputs = [sizes, inputs[1], given, bias]
        builder.layer(op, inputs, [made], **WINDOW)
        return made

    last = filtered("first", x)
    for number, (op, *more) in enumerate(middle):
        name = f"middle{number}"
        if op in ("CONV_2D", "TRANSPOSE_CONV"):
            last = filtered(name, last, op, more[0] if more else numbers)
            continue
        constants = [builder.constant(f"{name}/constant", c, Quantization.per_tensor(0.03, 2)) for c in more]
        made = builder.tensor(name, (1, 4, 4, channels), "int8", numbers)
        builder.layer(op, [last, *constants], [made], fused_activation_function="NONE")
        last = made
    return builder.build([filtered("last", last, output=end or numbers)])


def with_parameters(source: Graph, content: bytes, of: Graph | None = None) -> CompiledModel:
    """``of``, else the source, compiled, with more parameters at the end."""
    model = read_compiled(compiled(of or source))
    (op,) = model.ops
    main, cache = op.package.executables
    more = cache.parameters + content + bytes(-len(content) % 64)
    package = replace(op.package, executables=(main, replace(cache, parameters=more)))
    return replace(model, ops=(replace(op, package=package),))


def verdicts(proof: Proof) -> list[str]:
    return [layer.verdict for layer in proof.layers]


def changed(graph: Graph, **tensors: Tensor) -> Graph:
    named = {t.name: t for t in tensors.values()}
    return replace(graph, tensors=tuple(named.get(t.name, t) for t in graph.tensors))


# ---- sources of another kind


def test_a_float_source_is_another_source() -> None:
    """What users give by mistake: the model before it was quantized."""
    source = chain()
    tensors = tuple(
        replace(t, dtype="float32", quantization=None, data=None if t.data is None else t.data.astype("f4"))
        for t in source.tensors
    )
    proof = prove(replace(source, tensors=tensors), [read_compiled(compiled(source))])
    assert verdicts(proof) == ["not_provable"] * 4
    assert "is float32; the device computes with 8 bits" in proof.layers[0].reasons[0]
    assert proof.exit_code == 1
    assert ("type", "float32", "int8") in {(f.field, f.source, f.compiled) for f in proof.io}


def test_a_filter_without_scales_is_not_provable() -> None:
    source = chain()
    bare = replace(source.view(1).input(1), quantization=None)
    proof = prove(changed(source, filter=bare), [read_compiled(compiled(source))])
    assert verdicts(proof) == ["proved", "not_provable", "proved", "proved"]
    assert proof.exit_code == 3


@pytest.mark.parametrize("op", ["MAX_POOL_2D", "RESHAPE", "CONCATENATION", "ADD", "LOGISTIC", "SOFTMAX"])
def test_a_layer_whose_tensors_have_no_numbers_is_not_proved(op: str) -> None:
    """Nothing can be predicted of it, so nothing of it agrees."""
    whole = network((op,))
    source = changed(whole, t=replace(whole.view(1).output(), quantization=None))
    proof = prove(source, [read_compiled(compiled(whole))])
    assert proof.layers[1].verdict == "not_provable"
    assert proof.verdict != "proved"


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        ((8, 1, 8), "a filter of shape"),
        ((8, 1, 1, 4), "a filter of shape"),
        ((4, 1, 1, 8), "a filter of shape"),
    ],
)
def test_a_filter_of_another_form_is_not_provable(shape: tuple[int, ...], words: str) -> None:
    """Of another rank, grouped, of too few channels."""
    whole = network()
    odd = replace(whole.view(0).input(1), shape=shape, data=np.ones(shape, np.int8), quantization=ONE_SCALE)
    proof = prove(changed(whole, filter=odd), [read_compiled(compiled(whole))])
    assert proof.layers[0].verdict == "not_provable"
    assert words in proof.layers[0].reasons[0]


# ---- ops nobody has described


def test_parameters_of_an_undescribed_op_are_no_difference() -> None:
    """A transposed convolution's taps lie in an unknown order: the bytes left over may be its own."""
    source = network(("TRANSPOSE_CONV",))
    proof = prove(source, [with_parameters(source, b"", network(("CONV_2D",)))])
    assert verdicts(proof) == ["proved", "not_provable", "proved"]
    (part,) = proof.parameters
    assert part.unexplained == ()
    (run,) = part.undescribed
    assert run[1] - run[0] >= 8 * 8
    assert proof.exit_code == 3
    assert "may be those of a layer whose parameters are not described" in "\n".join(lines(proof))


def test_bytes_left_over_behind_known_layers_are_one() -> None:
    """The control: where every layer's form is known, bytes of nobody are a difference."""
    proof = prove(network(), [with_parameters(network(), b"\5" * 64)])
    assert [stop - start for start, stop in proof.parameters[0].unexplained] == [64]
    assert proof.exit_code == 1


def test_an_undescribed_op_s_own_stage_is_no_changed_copy_of_its_neighbour_s() -> None:
    """It differs from the convolution's in the upper clamp alone, since its output's scale is another."""
    numbers, end = Quantization.per_tensor(0.02352946251630783, -128), Quantization.per_tensor(0.1, 5)
    other = Quantization.per_tensor(0.05, -128)

    def clamped(graph: Graph) -> Graph:
        first = replace(graph.layers[0], attributes=WINDOW | {"fused_activation_function": "RELU6"})
        return replace(graph, layers=(first, *graph.layers[1:]))

    source, made = (
        clamped(network((op, other), numbers=numbers, end=end)) for op in ("TRANSPOSE_CONV", "CONV_2D")
    )
    proof = prove(source, [read_compiled(compiled(made))])
    assert [str(f) for layer in proof.layers for f in layer.findings] == []
    assert verdicts(proof) == ["proved", "not_provable", "proved"]


# ---- weights that changed places


def test_layers_of_one_form_that_changed_their_weights_are_told_apart() -> None:
    """Every block of both lies in the file, to the last bit; only the order tells."""
    source = network()
    first, last = source.view(0), source.view(1)
    layers = (
        replace(first.layer, inputs=(first.layer.inputs[0], *last.layer.inputs[1:])),
        replace(last.layer, inputs=(last.layer.inputs[0], *first.layer.inputs[1:])),
    )
    proof = prove(source, [read_compiled(compiled(replace(source, layers=layers)))])
    assert verdicts(proof) == ["proved", "differs"]
    (finding,) = proof.layers[1].findings
    assert (finding.field, finding.where) == ("order of parameters", "layer 0's must lie before it")
    assert verdicts(prove(source, [read_compiled(compiled(source))])) == ["proved", "proved"]


def test_layers_of_the_same_numbers_may_lie_in_one_place() -> None:
    """One set of weights for two layers, kept once; kept twice it is as well."""
    source = network()
    first, last = source.view(0), source.view(1)
    again = replace(last.layer, inputs=(last.layer.inputs[0], *first.layer.inputs[1:]))
    source = replace(source, layers=(first.layer, again))
    twice = read_compiled(compiled(source))
    assert prove(source, [twice]).verdict == "proved"
    (op,) = twice.ops
    main, cache = op.package.executables
    half = replace(cache, parameters=cache.parameters[: len(cache.parameters) // 2])
    once = replace(twice, ops=(replace(op, package=replace(op.package, executables=(main, half))),))
    proof = prove(source, [once])
    assert proof.verdict == "proved"
    assert proof.layers[0].parameters == proof.layers[1].parameters


# ---- constants


def constant(*values: int) -> Array:
    return np.array(values, np.int8)


@pytest.mark.parametrize("op", ["ADD", "MUL"])
def test_a_constant_per_channel_is_found_and_a_changed_one_located(op: str) -> None:
    """Found, its rounding is still not described; one changed lane is told by record and byte."""
    source = network((op, constant(-9, 4, 5, 6, 7, 8, 9, 10)))
    view = source.view(1)
    records = (
        factor_records(view, view.input(1), view.input(0))
        if op == "MUL"
        else summand_records(view.input(1), view.input(0), 1)
    )
    proof = prove(source, [with_parameters(source, records)])
    layer = proof.layers[1]
    assert (layer.verdict, dict(layer.proved)) == ("not_provable", {"constant": 8})
    assert proof.parameters[0].undescribed == proof.parameters[0].unexplained == ()
    assert "proved are 8 constant; how an operation with a constant" in "\n".join(lines(proof))
    wrong = bytearray(records)
    wrong[64 + 4 * 2] ^= 1
    proof = prove(source, [with_parameters(source, bytes(wrong))])
    assert proof.layers[1].verdict == "differs"
    (finding,) = proof.layers[1].findings
    assert finding.where.startswith("record 1, lane 2, byte ")
    assert finding.source != finding.compiled
    other = np.frombuffer(records, "<u4").copy()
    other.reshape(-1, 16)[:, :4] ^= 5
    proof = prove(source, [with_parameters(source, other.tobytes())])
    assert [f.where for f in proof.layers[1].findings] == ["nowhere in the parameters"]


def test_a_constant_image_is_found_as_bytes() -> None:
    image = np.random.default_rng(2).integers(-128, 128, (1, 4, 4, 8)).astype(np.int8)
    source = network(("ADD", image))
    stored = image.view(np.uint8) ^ np.uint8(0x80)
    proof = prove(source, [with_parameters(source, stored.tobytes())])
    assert dict(proof.layers[1].proved) == {"constant": 128}
    wrong = stored.reshape(-1).copy()
    wrong[77] ^= 2
    proof = prove(source, [with_parameters(source, wrong.tobytes())])
    (finding,) = proof.layers[1].findings
    assert finding.where.startswith("value 77, byte ")


@pytest.mark.parametrize("op", ["ADD", "MUL", "SUB"])
def test_a_single_constant_claims_no_byte_of_another_layer(op: str) -> None:
    """No pair shows how a scalar is stored; the next layer may well begin with its value."""
    _, cache = read_compiled(compiled(network((op,)))).ops[0].package.executables
    first = cache.parameters[len(cache.parameters) // 2]
    source = network((op, np.array(first, np.uint8).view(np.int8) ^ np.int8(-128)))
    proof = prove(source, [read_compiled(compiled(source))])
    assert verdicts(proof) == ["proved", "not_provable", "proved"]
    assert "in none of the forms that pairs show" in proof.layers[1].reasons[1]
    assert proof.exit_code == 3


def test_an_unknown_form_of_a_constant_is_no_difference() -> None:
    """As in a public pair: a subtraction whose 64 bytes are not what an addition's would be."""
    source = network(("SUB", constant(*range(8))))
    proof = prove(source, [with_parameters(source, b"\x80\xff\xff\xff" * 4)])
    assert verdicts(proof) == ["proved", "not_provable", "proved"]
    assert proof.exit_code == 3


# ---- what would be true of any file


def test_a_softmax_of_scale_1_or_another_beta_is_not_proved() -> None:
    """The immediate value 1 stands in many instructions; a beta is in no pair."""
    source = network(("SOFTMAX",), numbers=Quantization.per_tensor(1.0))
    reasons = prove(source, [read_compiled(compiled(source))]).layers[1].reasons
    assert reasons == ("its input's scale is 1, an immediate value that instructions hold anyway",)
    source = network(("SOFTMAX",))
    layers = [
        replace(layer, attributes={"beta": 0.5}) if layer.index == 1 else layer for layer in source.layers
    ]
    reasons = (
        prove(replace(source, layers=tuple(layers)), [read_compiled(compiled(source))]).layers[1].reasons
    )
    assert reasons == ("no pair has a beta but 1",)


def test_what_a_proof_does_not_cover_is_said() -> None:
    """Strides and windows are in no known field: a pool over other windows would be proved, too."""
    proof = prove(network(), [read_compiled(compiled(network()))])
    assert proof.verdict == "proved"
    assert "Not covered: what no known field of a compiled file shows, which is strides" in "\n".join(
        lines(proof)
    )
    assert "strides" in proof.as_dict()["not_covered"]


def test_an_executable_without_its_output_s_numbers_is_noticed() -> None:
    model = read_compiled(compiled(network()))
    (op,) = model.ops
    main, cache = op.package.executables
    outputs = tuple(replace(layer, scale=None, zero_point=None) for layer in main.outputs)
    package = replace(op.package, executables=(replace(main, outputs=outputs), cache))
    proof = prove(network(), [replace(model, ops=(replace(op, package=package),))])
    assert [(f.field, f.compiled) for f in proof.io] == [("scale", None), ("zero point", None)]


def left_on_the_cpu(*order: str) -> tuple[Graph, CompiledModel]:
    """Two convolutions of one image on the device, and the difference of the two on the CPU, in a compiled
    file that names its operands in ``order``."""
    whole = network()
    first, last = whole.views()
    x = whole.inputs[0]
    layers = (first.layer, replace(last.layer, inputs=(x, *last.layer.inputs[1:])))
    made = Tensor(len(whole.tensors), "difference", (1, 4, 4, 8), "int8", ONE_SCALE)
    operands = (first.layer.outputs[0], last.layer.outputs[0])
    difference = Layer(2, "SUB", operands, (made.index,), {"fused_activation_function": "NONE"})
    source = replace(
        whole,
        tensors=(*whole.tensors, made),
        layers=(*layers, difference),
        outputs=(made.index,),
        signatures=(),
    )
    graph = read_tflite(compiled(source, 0, 2))
    named = {tensor.name: tensor.index for tensor in graph.tensors}
    made = replace(made, index=len(graph.tensors))
    swapped = replace(difference, index=1, inputs=tuple(map(named.get, order)), outputs=(made.index,))
    model = replace(
        graph, tensors=(*graph.tensors, made), layers=(*graph.layers, swapped), outputs=(made.index,),
        signatures=(),
    )  # fmt: skip
    return source, compiled_from(model)


def test_operands_that_changed_places_on_the_cpu_are_noticed() -> None:
    """Both have one shape and the same numbers: only their names tell."""
    source, model = left_on_the_cpu("first", "last")
    assert verdicts(prove(source, [model])) == ["proved", "proved", "on_cpu"]
    source, model = left_on_the_cpu("last", "first")
    proof = prove(source, [model])
    assert verdicts(proof) == ["proved", "proved", "differs"]
    assert [(f.source, f.compiled) for f in proof.layers[2].findings] == [
        ("first", "last"),
        ("last", "first"),
    ]


def test_a_stream_of_nothing_but_stages_is_refused() -> None:
    pair = bytes(16) + (0x18 << 48).to_bytes(16, "little")
    stream = InstructionStream((pair * (MAX_STAGES + 4),))
    assert stream.stage_count() > MAX_STAGES
    with pytest.raises(ModelError, match="output stages in one executable"):
        stream.stages()
