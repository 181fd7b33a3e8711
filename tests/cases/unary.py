"""Cases of ABS, NEG, SQRT, RSQRT, EXP, LOG, ELU and GELU on 8-bit values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from tests.cases.case import Case
from tests.cases.quantized import every_value, f32, seeded
from tests.cases.single_layer import Feed, Result, single_layer

OLD = ("tflite-2.14-ref", "tflite-2.14-builtin")

BROKEN: Mapping[str, Mapping[str, str]] = {
    "ELU": dict.fromkeys(("litert-ref", "tflite-2.14-ref"), "its reference kernels have no ELU"),
    "LOG": dict.fromkeys(OLD, "it has float32 only"),
    "NEG": dict.fromkeys(OLD, "it has no 8-bit types"),
    "SQRT": dict.fromkeys(OLD, "it has float32 only"),
}

SCALES = {
    "same": (0.25, 0.25),
    "halved": (0.25, 0.5),
    "eighth": (0.125, 1.0),
    "usual": (0.0471, 0.0294),
    "grown": (2.0, 0.013),
    "shrunk": (0.021, 0.11),
    "steep": (0.9, 0.001),
    "flat": (0.0004, 0.02),
    "beyond int32": (0.11, 1e-10),
}
"""``(input, output)``: ratios of 1/2 and 1/8 put ABS and the linear half of ELU on ties."""

ROOT_TIES = (
    (0.014430128, 0.0067022857), (0.0081739, 0.0018077), (0.25, 0.125), (1.0, 0.0625), (1.0, 0.25),
    (0.01, 0.1), (0.09, 0.1), (0.0049, 0.07), (0.0121, 0.0011), (2.25, 0.5), (0.36, 0.2),
)  # fmt: skip
"""Scales under which roots of stored values are whole numbers of steps, or one float32 step from it."""


def cases() -> list[Case]:
    """All of them, names unique."""
    return [*_everywhere(), *_roots(), *_shifted_by_31(), *_steep_gelu()]


def _everywhere() -> Iterator[Case]:
    """Every value, at random and at extreme zero points. Roots are fed from their zero point up."""
    variants: list[tuple[str, str, dict[str, bool]]] = [
        *((op, "int8", {}) for op in ("ABS", "NEG", "EXP", "LOG", "ELU", "SQRT", "RSQRT")),
        *(("GELU", dtype, {"approximate": flag}) for dtype in ("int8", "uint8") for flag in (True, False)),
    ]
    for op, dtype, attributes in variants:
        kind = "_approximate" if attributes.get("approximate") else ""
        for label, scales in SCALES.items():
            if label == "beyond int32" and op in ("ABS", "SQRT", "RSQRT"):
                continue
            for turn in (0, 3) if label == "usual" else (1, 2):
                name = f"{op.lower()}{kind}_{dtype}_{label}_{turn}"
                rng = seeded(name)
                low = -128 if dtype == "int8" else 0
                zero_in = low + (0, 128, 255, int(rng.integers(256)))[turn]
                zero_out = low + (128, 0, int(rng.integers(256)), 255)[turn]
                values = every_value(dtype)
                if op in ("SQRT", "RSQRT"):
                    values = values[values >= zero_in]
                yield single_layer(
                    name, "every value", op,
                    [Feed(values, f32(scales[0]), zero_in)],
                    [Result(values.shape, dtype, f32(scales[1]), zero_out)],
                    broken_in=BROKEN.get(op), **attributes,
                )  # fmt: skip


def _roots() -> Iterator[Case]:
    """Roots on and beside whole steps, from zero points that a float32 sum would absorb."""
    for number, (scale_in, scale_out) in enumerate(ROOT_TIES):
        for op in ("SQRT", "RSQRT"):
            for zero_out in (-128, 100):
                yield single_layer(
                    f"{op.lower()}_int8_ties_{number}_{zero_out}", "roots of whole steps", op,
                    [Feed(every_value("int8"), f32(scale_in), -128)],
                    [Result((256,), "int8", f32(scale_out), zero_out)], broken_in=BROKEN.get(op),
                )  # fmt: skip


def _shifted_by_31() -> Iterator[Case]:
    """The largest right shift that C defines: 11 for 1 / (512 * 8), and the reciprocal root's 20."""
    yield single_layer(
        "rsqrt_int8_shifted_by_31", "the largest right shift", "RSQRT",
        [Feed(every_value("int8"), 2.0**18, -128)], [Result((256,), "int8", 8.0, 60)],
        broken_in=BROKEN.get("RSQRT"),
    )  # fmt: skip


def _steep_gelu() -> Iterator[Case]:
    """Output scales so fine that 1 + erf and erfc, which cancel differently, part far below 0."""
    for scale_in, scale_out in ((0.05, 1e-6), (0.06, 1e-8), (0.08, 1e-7)):
        for approximate in (True, False):
            yield single_layer(
                f"gelu_int8_fine_{scale_out}_{approximate}", "far below 0", "GELU",
                [Feed(every_value("int8"), f32(scale_in), 20)],
                [Result((256,), "int8", f32(scale_out), 100)], approximate=approximate,
            )  # fmt: skip
