"""Layers large enough to be shared out: any number of threads gives the spec's bits, across every seam."""

from __future__ import annotations

import numpy as np
import pytest

from karat24.refimpl.engine import compile_graph
from karat24.refimpl.graph import Array
from karat24.refimpl.kernels.threads import thread_count as sharing
from tests.cases.case import Case
from tests.cases.single_layer import Constant, Feed, Result, noise, single_layer

PIXELS = (1, 61, 67, 33)  # 134,871 values: several chunks, none of them whole, odd tails everywhere


def _one(op: str, result: Result, values: Array, scale: float | None, **attributes: object) -> Case:
    feed = Feed(values, scale, 3 if values.dtype == np.int8 else 121)
    return single_layer(op.lower(), "several chunks", op, [feed], [result], **attributes)  # type: ignore[arg-type]


def large_cases() -> list[tuple[str, Case]]:
    image, bytes_ = noise(PIXELS, "int8", 1), noise(PIXELS, "uint8", 2)
    doubled = Constant(np.array([122, 134], np.int32))
    pool = {
        "padding": "SAME", "stride_w": 1, "stride_h": 2, "filter_width": 3, "filter_height": 2,
        "fused_activation_function": "RELU6",
    }  # fmt: skip
    resized = (1, 122, 134, 33)
    half = {"align_corners": False, "half_pixel_centers": True}
    sums = {"fused_activation_function": "NONE"}
    reals = np.random.default_rng(3).normal(0, 2, PIXELS).astype(np.float32)
    wide = noise((151, 1001), "int8", 4)
    probabilities = Result(wide.shape, "int8", 1 / 256, -128)

    def resize(values: Array) -> Case:
        dtype = values.dtype.name
        return single_layer(
            "resize_bilinear", "several chunks", "RESIZE_BILINEAR", [Feed(values, 0.5, 3), doubled],
            [Result(resized, dtype, 0.5, 3)], **half,
        )  # fmt: skip

    def add(shape: tuple[int, ...]) -> Case:
        operands = [Feed(image, 0.3, 3), Feed(noise(shape, "int8", 5), 0.45, -7)]
        return single_layer(
            "add", "several chunks", "ADD", operands, [Result(PIXELS, "int8", 0.9, 1)], **sums
        )

    def concatenation(second: float) -> Case:
        parts = [Feed(bytes_, 0.5, 121), Feed(noise((1, 61, 67, 5), "uint8", 6), second, 99)]
        result = Result((1, 61, 67, 38), "uint8", 0.5, 121)
        return single_layer("concat", "rows of 38", "CONCATENATION", parts, [result], axis=3, **sums)

    same = Result(PIXELS, "int8", 0.07, -5)
    ref, builtin, xnnpack = "litert-2.3-ref", "litert-2.3-builtin", "litert-2.3-xnnpack"
    return [
        (ref, _one("HARD_SWISH", same, image, 0.05)),
        (builtin, _one("QUANTIZE", same, image, 0.05)),
        (builtin, _one("DEQUANTIZE", Result(PIXELS, "float32"), image, 0.05)),
        (builtin, _one("QUANTIZE", same, reals, None)),
        (ref, add(PIXELS)),
        (builtin, add((33,))),
        (builtin, add((1, 61, 67, 1))),
        (ref, _one("MAX_POOL_2D", Result((1, 31, 67, 33), "int8", 0.05, 3), image, 0.05, **pool)),
        (ref, _one("AVERAGE_POOL_2D", Result((1, 31, 67, 33), "uint8", 0.05, 121), bytes_, 0.05, **pool)),
        (ref, resize(image)),
        (ref, resize(bytes_)),
        (builtin, resize(bytes_)),
        (xnnpack, resize(image)),
        (ref, concatenation(0.5)),
        (ref, concatenation(0.25)),
        (ref, _one("SOFTMAX", probabilities, wide, 0.2, beta=1.0)),
        (builtin, _one("SOFTMAX", probabilities, wide, 0.2, beta=1.0)),
    ]


@pytest.mark.parametrize(("profile", "case"), large_cases(), ids=str)
def test_threads_do_not_change_a_bit(profile: str, case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = compile_graph(case.graph, profile, implementation="spec").run(case.feeds).outputs[0]
    assert expected.size > sharing.SMALL_WORK  # shared out, in large chunks and in small ones
    for small in (sharing.CHUNK_WORK, 0):
        monkeypatch.setattr(sharing, "CHUNK_WORK", small)
        for count in (1, 2):
            result = compile_graph(case.graph, profile, threads=count).run(case.feeds).outputs[0]
            assert result.tobytes() == expected.tobytes(), f"{count} threads"
