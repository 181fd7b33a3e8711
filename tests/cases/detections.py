"""Cases of TFLite_Detection_PostProcess: equal scores, overlaps at the threshold, places nobody writes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from flatbuffers import flexbuffers

from karat24.refimpl.graph import Array
from tests.cases.case import Case
from tests.cases.quantized import seeded
from tests.cases.single_layer import Constant, Feed, Result, single_layer

HALVES = np.array([[0.5, 0.5, 1, 1], [0.25, 0.5, 0.5, 1], [0.5, 0.25, 1, 0.5]], np.float32)
"""Anchors: a square and its halves, each of which overlaps it by exactly 1/2."""

OPTIONS: dict[str, float] = {
    "max_detections": 5,
    "max_classes_per_detection": 1,
    "nms_score_threshold": 0.5,
    "nms_iou_threshold": 0.5,
    "y_scale": 10.0,
    "x_scale": 10.0,
    "h_scale": 5.0,
    "w_scale": 5.0,
}


def detections(
    edge: str, boxes: Feed, scores: Feed, anchors: Constant, classes: int = 0, **options: Any
) -> Case:
    """One layer; ``classes`` defaults to the width of ``scores``."""
    known = {**OPTIONS, "num_classes": classes or scores.values.shape[-1], **options}
    places = int(known["max_detections"] * known["max_classes_per_detection"])
    return single_layer(
        "detections",
        edge,
        "CUSTOM:TFLite_Detection_PostProcess",
        [boxes, scores, anchors],
        [
            Result((1, places, 4), "float32"),
            Result((1, places), "float32"),
            Result((1, places), "float32"),
            Result((1,), "float32"),
        ],
        custom_options=bytes(flexbuffers.Dumps(known)),
    )


def cases() -> list[Case]:
    """All cases."""
    return list(_cases())


def _cases() -> Iterator[Case]:
    still = Feed(np.zeros((1, 3, 4), np.float32))
    halves = Constant(HALVES)
    yield detections("overlap at the threshold", still, _scores([[0.9], [0.8], [0.7]]), halves)
    yield detections(
        "overlap above it", still, _scores([[0.9], [0.8], [0.7]]), halves, nms_iou_threshold=0.499
    )
    yield detections("score at the threshold", still, _scores([[0.5], [0.4999], [0.5]]), halves)
    yield detections("nothing found", still, _scores([[0.1], [0.2], [0.3]]), halves)
    ties = [[1, 2, 1, 1, 2, 2, 1, 1], [0, 2, 2, 0, 2, 1, 1, 0], [2, 0, 0, 2, 0, 2, 2, 2]]
    for count in (1, 2, 3, 8, 9):
        yield detections(
            f"{count} of equal classes", still, _scores(ties), halves, max_classes_per_detection=count
        )
    for name, options in (
        ("one of each class", {"detections_per_class": 1}),
        ("more than fit", {"max_detections": 4, "nms_iou_threshold": 1.0}),
        ("places left over", {"max_detections": 40, "max_classes_per_detection": 2}),
    ):
        yield detections(
            f"class by class, {name}",
            still,
            _scores(ties),
            halves,
            classes=7,
            use_regular_nms=True,
            **options,
        )
    rng = seeded("detections")
    for regular in (False, True):
        kind = "class by class" if regular else "best class"
        yield detections(
            f"many boxes, {kind}",
            Feed((rng.normal(size=(1, 60, 5)) * 4).astype(np.float32)),
            Feed(rng.uniform(0.3, 1, (1, 60, 4)).astype(np.float32)),
            Constant(rng.uniform(0.1, 0.9, (60, 4)).astype(np.float32)),
            classes=3,
            max_detections=20,
            use_regular_nms=regular,
        )
        yield detections(
            f"bytes, {kind}",
            Feed(_bytes(rng, (1, 40, 4)), 0.061, 123),
            Feed(_bytes(rng, (1, 40, 3)) // 16 * 16, 1 / 256, 0),
            Constant(_bytes(rng, (40, 4)) // 2 + 100, 1 / 255, 3),
            max_detections=10,
            use_regular_nms=regular,
        )


def _scores(rows: list[list[float]]) -> Feed:
    return Feed(np.array([rows], np.float32))


def _bytes(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    return rng.integers(0, 256, shape).astype(np.uint8)
