"""Layers of int16 activations without weights: sums, products, tables, softmax, pools, moves."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from karat24.refimpl.graph import Array
from karat24.refimpl.profiles.rules import Rule
from karat24.refimpl.spec.tflite import add
from tests.cases.case import Case
from tests.cases.quantized import every_value, f32, seeded, some_values
from tests.cases.single_layer import Constant, Feed, Result, indices, single_layer

ACTIVATIONS = ("RELU", "RELU6", "RELU_N1_TO_1")
OLD = ("tflite-2.14-ref", "tflite-2.14-builtin")
EVERY_LANE = ("litert-ref", "litert-builtin", "litert-xnnpack", *OLD)

SUMS = {
    "power_left": (2.0**-12, 2.0**-15, 2.0**-12),
    "power_right": (2.0**-16, 2.0**-11, 2.0**-11),
    "power_equal": (2.0**-12, 2.0**-12, 2.0**-12),
    "nearly_power": (1 / 32767, 1 / 65534, 1 / 32767),
    "equal": (3.1e-4, 3.1e-4, 3.1e-4),
    "usual": (2.35e-4, 4.72e-4, 5.11e-4),
    "fine_output": (2.35e-4, 4.72e-4, 4.3e-5),
    "far_apart": (7e-4, 9e-7, 6.9e-4),
    "third": (0.1, 0.3, 0.2),
    "vanishing": (1e-3, 2e-12, 1e-3),
}
"""``(left, right, output)`` of ADD and SUB. Powers of two are shifted where the file allows it, and so are
scales within 0.07 % of them; others are multiplied, 15 bits wider."""

PRODUCTS = {
    "power": (2.0**-12, 2.0**-13, 2.0**-16),
    "usual": (2.35e-4, 4.72e-4, 9.1e-4),
    "coarse_output": (0.011, 0.013, 1.91),
    "fine_output": (2.35e-4, 4.72e-4, 1.3e-7),
    "left_shift": (1.5, 1.25, 0.61),
}

INPUT_SCALES = {
    "shifted": 2.0**-12,
    "shifted_twice": 2.0**-11,
    "nearly_shifted": 1 / 4095,
    "power_finer": 2.0**-15,
    "power_coarser": 2.0**-9,
    "usual": 1.9e-4,
    "coarse": 0.0123,
    "fine": 7e-8,
    "steep": 1.7,
}
"""Input scales of LOGISTIC and TANH: those both kinds of kernel shift, those only tables take, and ends."""


def cases() -> list[Case]:
    """All of them, names unique."""
    return [
        *_sums(),
        *_blocks(),
        *_products(),
        *_broadcasts(),
        *_tables(),
        *_softmaxes(),
        *_rectifiers(),
        *_leaky(),
        *_pools(),
        *_means(),
        *_quantize(),
        *_resizes(),
        *_moves(),
    ]


def _beside(values: Array, count: int = 40000) -> Array:
    """``values`` repeated or cut to ``count``."""
    return np.resize(values, count)


def _operands(name: str, scales: tuple[float, float, float]) -> tuple[Array, Array]:
    """Random pairs, and a left operand that runs through every value beside a right one near the ends."""
    rng = seeded(name)
    left = np.concatenate([every_value("int16"), some_values(rng, "int16", (9000,))])
    right = some_values(rng, "int16", left.shape)
    right[:64] = np.tile([-32768, 32767, 0, 1], 16)
    if scales[0] < scales[1]:
        left, right = right, left
    return left.reshape(1, -1, 2, 2), right.reshape(1, -1, 2, 2)


def _binary(
    op: str,
    label: str,
    edge: str,
    operands: tuple[Array, Array],
    scales: tuple[float, float, float],
    activation: str = "NONE",
    may_shift: bool = True,
) -> Case:
    left, right = operands
    attributes: dict[str, str | bool] = {"fused_activation_function": activation}
    if op in ("ADD", "SUB"):
        attributes["pot_scale_int16"] = may_shift
    return single_layer(
        f"{op.lower()}_int16_{label}", edge, op,
        [Feed(left, f32(scales[0])), Feed(right, f32(scales[1]))],
        [Result(np.broadcast_shapes(left.shape, right.shape), "int16", f32(scales[2]))],
        **attributes,
    )  # fmt: skip


def _sums() -> Iterator[Case]:
    for op, (label, scales), may_shift in itertools.product(("ADD", "SUB"), SUMS.items(), (True, False)):
        if not may_shift and "power" not in label:
            continue  # multiplied whatever the file allows
        name = f"{label}_{'may_shift' if may_shift else 'multiplied'}"
        operands = _operands(f"{op}{name}", scales)
        yield _binary(op, name, "every value of one operand", operands, scales, may_shift=may_shift)
    for op, activation in itertools.product(("ADD", "SUB"), ACTIVATIONS):
        for label, scales in {"shifted": (4.0, 2.0, 4.0), "multiplied": (3.0, 0.7, 4.0)}.items():
            operands = _operands(f"{op}{activation}{label}", scales)
            operands = operands[0] // 4096, operands[1] // 4096
            yield _binary(op, f"{activation.lower()}_{label}", "bound on a tie", operands, scales, activation)


def _parting(scales: tuple[float, float, float]) -> tuple[Array, Array]:
    """Pairs whose sum comes out differently when the operands are rounded once instead of twice."""
    rng = seeded("parting")
    left, right = some_values(rng, "int16", (60000,)), some_values(rng, "int16", (60000,))
    view = _binary("ADD", "parting", "", (left, right), scales, may_shift=False).graph.view(0)
    twice, once = (
        add.add(view, [left, right], Rule(method, "float64")).outputs[0] for method in ("gemmlowp", "sse")
    )
    return left[twice != once], right[twice != once]


def _blocks() -> Iterator[Case]:
    """Sizes around blocks of 8 and 16, and broadcasts, of pairs that rounding once or twice tells apart."""
    scales = SUMS["third"]
    left, right = _parting(scales)
    for op, size in itertools.product(("ADD", "SUB"), (1, 7, 8, 9, 15, 16, 17, 31, 33)):
        operands = left[None, :size], right[None, :size]
        yield _binary(op, f"size{size}", "block and tail", operands, scales, may_shift=False)
    for op, position in itertools.product(("ADD", "SUB"), range(4)):
        lefts, rights = np.resize(left[position], (4, 1, 33)), np.resize(right[position], (33,))
        yield _binary(op, f"channel{position}", "broadcast", (lefts, rights), scales, may_shift=False)
        yield _binary(op, f"scalar{position}", "broadcast", (lefts, rights[:1]), scales, may_shift=False)
        tall = np.resize(rights, (2, 3, 17))
        yield _binary(op, f"scalar_left{position}", "broadcast", (lefts[:1, 0, :1], tall), scales,
                      may_shift=False)  # fmt: skip


def _products() -> Iterator[Case]:
    for label, scales in PRODUCTS.items():
        yield _binary("MUL", label, "every value of one operand", _operands(f"MUL{label}", scales), scales)
    for activation in ACTIVATIONS:
        operands = _operands(f"MUL{activation}", (1.0, 1.0, 1.0))
        yield _binary(
            "MUL", activation.lower(), "bound on a tie", (operands[0] // 4096, operands[1] // 4096),
            (0.5, 0.25, 4.0), activation,
        )  # fmt: skip


def _broadcasts() -> Iterator[Case]:
    shapes = {
        "scalar": ((2, 3, 5, 17), (1,)),
        "channel": ((1, 4, 3, 33), (33,)),
        "channel_left": ((33,), (1, 4, 3, 33)),
        "row": ((2, 3, 5, 18), (1, 1, 5, 18)),
        "both_ways": ((2, 1, 5, 17), (1, 4, 5, 1)),
    }
    for op, (label, (left, right)) in itertools.product(("ADD", "SUB", "MUL"), shapes.items()):
        for kind, scales in {"power": (2.0**-12, 2.0**-14, 2.0**-12), "usual": SUMS["usual"]}.items():
            rng = seeded(f"{op}{label}{kind}")
            operands = some_values(rng, "int16", left), some_values(rng, "int16", right)
            if op == "MUL":
                scales = (2.0**-12, 2.0**-13, 2.0**-12) if kind == "power" else PRODUCTS["usual"]
            broken = op == "ADD" and kind == "power"
            yield replace(
                _binary(op, f"broadcast_{label}_{kind}", "broadcast", operands, scales),
                broken_in=dict.fromkeys(EVERY_LANE, "shifted operands of two shapes end it")
                if broken
                else {},
            )


def _tables() -> Iterator[Case]:
    """All 65,536 inputs."""
    values = every_value("int16").reshape(1, 256, 256)
    for op, (label, scale) in itertools.product(("LOGISTIC", "TANH"), INPUT_SCALES.items()):
        yield single_layer(
            f"{op.lower()}_int16_{label}", "every value", op, [Feed(values, f32(scale))],
            [Result(values.shape, "int16", 2.0**-15)],
        )  # fmt: skip
    yield single_layer(
        "tanh_int16_output_nearly_power", "output scale 1/32767", "TANH", [Feed(values, 2.0**-12)],
        [Result(values.shape, "int16", f32(1 / 32767))],
    )  # fmt: skip


def _softmaxes() -> Iterator[Case]:
    for depth, scale in itertools.product((1, 2, 3, 10, 17, 100), (1e-4, 7.91e-4, 0.01, 0.3)):
        rng = seeded(f"softmax{depth}{scale}")
        data = some_values(rng, "int16", (40, depth))
        yield _softmax(data, scale, 1.0, f"{depth} classes")
        narrow = rng.integers(-2000, 2000, (40, depth)).astype(np.int16)
        yield _softmax(narrow, scale, 1.0, f"{depth} classes near one another")
    pairs = np.stack([np.zeros(65536), every_value("int16")], 1).astype(np.int16)
    for beta in (1.0, 0.5, 2.7):
        yield _softmax(pairs[::3], 2.0**-11, beta, "differences of two classes")
    yield _softmax(np.full((1, 4000), 77, np.int16), 0.1, 1.0, "4000 equal classes")
    yield _softmax(some_values(seeded("softmax4"), "int16", (2, 3, 4, 5)), 1e-3, 1.0, "four dimensions")


def _softmax(data: Array, scale: float, beta: float, edge: str) -> Case:
    return single_layer(
        "softmax-int16", f"{edge}, scale {scale}, beta {beta}", "SOFTMAX", [Feed(data, f32(scale))],
        [Result(data.shape, "int16", 2.0**-15)], beta=beta,
    )  # fmt: skip


RATIOS = {"same": 1.0, "half": 0.5, "quarter": 0.25, "double": 2.0, "shrink": 0.3717, "grow": 1.6183,
          "tiny": 0.0101, "saturating": 130.7}  # fmt: skip
"""``s_in / s_out``; powers of two put every odd value on a tie."""


def _rectifiers() -> Iterator[Case]:
    values = every_value("int16")[:, None]
    for op, (label, ratio) in itertools.product(ACTIVATIONS, RATIOS.items()):
        broken = dict.fromkeys(EVERY_LANE, "its kernel lacks int16") if op == "RELU_N1_TO_1" else {}
        yield single_layer(
            f"{op.lower()}_int16_{label}", "every value", op, [Feed(values, 2.0**-12)],
            [Result(values.shape, "int16", f32(2.0**-12 / ratio))], broken_in=broken,
        )  # fmt: skip


def _leaky() -> Iterator[Case]:
    values = every_value("int16")[:, None]
    for (label, ratio), alpha in itertools.product(RATIOS.items(), (0.25, 0.3, 0.01, -0.5, 1.7)):
        yield single_layer(
            f"leaky_relu_int16_{label}_{alpha}", "every value", "LEAKY_RELU", [Feed(values, 2.0**-12)],
            [Result(values.shape, "int16", f32(2.0**-12 / ratio))], alpha=alpha,
        )  # fmt: skip


def _pools() -> Iterator[Case]:
    windows = {"2x2": (2, 2, 2), "3x3": (3, 3, 1), "1x5": (1, 5, 2), "global": (8, 9, 1)}
    for op, (label, (rows, columns, stride)) in itertools.product(
        ("AVERAGE_POOL_2D", "MAX_POOL_2D"), windows.items()
    ):
        for padding, activation in (("VALID", "NONE"), ("SAME", "NONE"), ("SAME", "RELU6")):
            rng = seeded(f"{op}{label}{padding}{activation}")
            data = some_values(rng, "int16", (2, 8, 9, 17))
            if padding == "VALID":
                sizes = [(size - taps) // stride + 1 for size, taps in ((8, rows), (9, columns))]
            else:
                sizes = [-(-size // stride) for size in (8, 9)]
            yield single_layer(
                f"{op.lower()}_int16_{label}_{padding.lower()}_{activation.lower()}", "halves, tails", op,
                [Feed(data, f32(3e-4), 0)], [Result((2, *sizes, 17), "int16", f32(3e-4), 0)],
                padding=padding, stride_h=stride, stride_w=stride, filter_height=rows, filter_width=columns,
                fused_activation_function=activation,
            )  # fmt: skip


def _means() -> Iterator[Case]:
    for op in ("MEAN", "REDUCE_MAX", "REDUCE_MIN"):
        for axes, keep, ratio in itertools.product(
            ((1, 2), (1,), (3,), (0, 1, 2, 3)), (True, False), (1.0, 0.37)
        ):
            if op != "MEAN" and ratio != 1.0:
                continue
            data = some_values(seeded(f"{op}{axes}{keep}{ratio}"), "int16", (3, 4, 5, 19))
            left = [size for axis, size in enumerate(data.shape) if axis not in axes]
            shape = [1 if axis in axes else size for axis, size in enumerate(data.shape)] if keep else left
            yield single_layer(
                f"{op.lower()}_int16_{'_'.join(map(str, axes))}_{keep}_{ratio}", "random values", op,
                [Feed(data, 2.0**-12), indices(*axes)],
                [Result(tuple(shape), "int16", f32(2.0**-12 / ratio))], keep_dims=keep,
            )  # fmt: skip
    ties = np.arange(-3000, 3000).reshape(1, 2, 1, 3000).astype(np.int16)
    yield single_layer(
        "mean_int16_ties", "halves of both signs", "MEAN", [Feed(ties, 0.5), indices(1, 2)],
        [Result((1, 1, 1, 3000), "int16", 0.5)], keep_dims=True,
    )  # fmt: skip


def _quantize() -> Iterator[Case]:
    for scale in (2.0**-12, 1 / 3, 3.05e-5):
        halves = (np.arange(-33000, 33000) + 0.5).astype(np.float64) * f32(scale)
        ties = halves.astype(np.float32)
        values = np.concatenate(
            [ties, np.nextafter(ties, np.float32(np.inf)), np.float32([1e30, -1e30, 0, -0.0])]
        )
        for zero_point in (0, 5):
            yield single_layer(
                f"quantize_float_to_int16_{scale:.3g}_zp{zero_point}", "ties, and floats one beside them",
                "QUANTIZE", [Feed(values)], [Result(values.shape, "int16", f32(scale), zero_point)],
            )  # fmt: skip
    for source, target in (("int16", "int16"), ("int16", "int8"), ("int8", "int16"), ("uint8", "int16"),
                           ("int16", "uint8")):  # fmt: skip
        for label, ratio in RATIOS.items():
            wider = 256.0 if source == "int16" != target else 1.0
            values = every_value(source)
            values = np.concatenate([values, values[:13]])
            zero_points = (0, 0) if source == target else (3, -5 if target != "uint8" else 5)
            broken = {}
            if target == "uint8":
                broken = dict.fromkeys(EVERY_LANE, "it quantizes int16 to int8, int16 and int32 only")
            elif source != "int16":
                broken = dict.fromkeys(OLD, "it quantizes 8-bit values to 8 bits only")
            yield single_layer(
                f"quantize_{source}_to_{target}_{label}", "every value; a tail of 13", "QUANTIZE",
                [Feed(values, 2.0**-8, zero_points[0])],
                [Result(values.shape, target, f32(2.0**-8 * wider / ratio), zero_points[1])],
                broken_in=broken,
            )  # fmt: skip


def _resizes() -> Iterator[Case]:
    modes = {"plain": (False, False), "corners": (True, False), "centers": (False, True)}
    for op in ("RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR"):
        for (label, (corners, centers)), size in itertools.product(
            modes.items(), ((7, 7), (3, 10), (12, 16))
        ):
            data = some_values(seeded(f"{op}{label}{size}"), "int16", (2, 6, 8, 5))
            yield single_layer(
                f"{op.lower()}_int16_{label}_{size[0]}x{size[1]}", "random values", op,
                [Feed(data, 2.0**-12), indices(*size)], [Result((2, *size, 5), "int16", 2.0**-12)],
                align_corners=corners, half_pixel_centers=centers,
            )  # fmt: skip


def _moves() -> Iterator[Case]:
    """Two bytes travel together; borders are the zero point."""
    data = some_values(seeded("moves"), "int16", (2, 4, 6, 5))
    feed = Feed(data, 2.0**-12)

    def case(op: str, inputs: list[Feed | Constant], *shapes: tuple[int, ...], **attributes: object) -> Case:
        results = [Result(shape, "int16", 2.0**-12) for shape in shapes]
        broken = dict.fromkeys(OLD, "its kernel lacks int16") if op == "TILE" else {}
        return single_layer(
            f"{op.lower()}_int16", "moves pairs of bytes", op, inputs, results, broken_in=broken, **attributes  # type: ignore[arg-type]
        )  # fmt: skip

    border = Constant(np.array([[0, 0], [1, 2], [2, 1], [0, 0]], np.int32))
    yield case("PAD", [feed, border], (2, 7, 9, 5))
    yield case("PADV2", [feed, border, Constant(np.array(-777, np.int16), 2.0**-12)], (2, 7, 9, 5))
    yield case("MIRROR_PAD", [feed, border], (2, 7, 9, 5), mode="REFLECT")
    yield case("RESHAPE", [feed, indices(8, 30)], (8, 30), new_shape=(8, 30))
    yield case("TRANSPOSE", [feed, indices(0, 3, 1, 2)], (2, 5, 4, 6))
    yield case("SLICE", [feed, indices(0, 1, 2, 0), indices(2, 2, 3, 5)], (2, 2, 3, 5))
    yield case(
        "STRIDED_SLICE", [feed, indices(0, 0, 5, 0), indices(2, 4, 0, 5), indices(1, 2, -2, 1)], (2, 2, 3, 5)
    )
    yield case("SPLIT", [Constant(np.array(2, np.int32)), feed], (2, 4, 3, 5), (2, 4, 3, 5), num_splits=2)
    yield case("PACK", [feed, feed_of(data)], (2, 2, 4, 6, 5), values_count=2, axis=1)
    yield case("UNPACK", [feed], (4, 6, 5), (4, 6, 5), num=2, axis=0)
    yield case("TILE", [feed, indices(1, 2, 1, 1)], (2, 8, 6, 5))
    yield case("GATHER", [feed, indices(3, 0, 3)], (2, 3, 6, 5), axis=1)
    yield case("SQUEEZE", [Feed(data[:, :1], 2.0**-12)], (2, 6, 5), squeeze_dims=(1,))
    yield case("EXPAND_DIMS", [feed, indices(1)], (2, 1, 4, 6, 5))
    yield case("REVERSE_V2", [feed, indices(2)], (2, 4, 6, 5))
    yield case("SPACE_TO_BATCH_ND", [feed, indices(2, 2), Constant(np.zeros((2, 2), np.int32))], (8, 2, 3, 5))
    yield case(
        "BATCH_TO_SPACE_ND", [Feed(data.reshape(4, 2, 6, 5), 2.0**-12), indices(2, 2),
                              Constant(np.zeros((2, 2), np.int32))], (1, 4, 12, 5),
    )  # fmt: skip
    yield case("BROADCAST_TO", [Feed(data[:1], 2.0**-12), indices(3, 4, 6, 5)], (3, 4, 6, 5))
    for op in ("MINIMUM", "MAXIMUM"):
        yield case(op, [feed, feed_of(data[::-1])], (2, 4, 6, 5))
    yield case(
        "CONCATENATION", [feed, feed_of(data[:, :, :, :2])], (2, 4, 6, 7), axis=3,
        fused_activation_function="NONE",
    )  # fmt: skip


def feed_of(values: Array) -> Feed:
    """``values`` at the scale of every move."""
    return Feed(np.ascontiguousarray(values), 2.0**-12)
