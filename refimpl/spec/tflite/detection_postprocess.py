"""TFLite_Detection_PostProcess: boxes decoded from anchors, and the best of them that do not overlap.

Source: LiteRT 2.3.0 ``tflite/kernels/detection_postprocess.cc``; TensorFlow Lite Micro's
``micro/kernels/detection_postprocess.cc`` gives the same values. The options are a FlexBuffer map.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from decimal import Context, Decimal

import numpy as np

from karat24.refimpl.contract import SpecResult, Values
from karat24.refimpl.errors import ModelError
from karat24.refimpl.graph import Array, LayerView, Tensor
from karat24.refimpl.profiles.rules import Rule
from karat24.refimpl.profiles.tflite.detection_options import Options, options_of
from karat24.refimpl.spec.shared.requirements import (
    operand,
    require,
    require_arity,
    require_dtype,
    require_elements,
    require_quantized,
    require_rank,
    require_same_dtype,
    require_shape,
)
from karat24.refimpl.spec.tflite.partial_order import largest_first

EXPONENTIAL = Context(prec=40)
"""Enough decimal digits to round an exponential to float64."""

MAX_VALUES = 2**20
"""The most values in each output; real models have some hundred."""


def check_detection_postprocess(view: LayerView) -> None:
    """Inputs: encoded boxes ``[1, boxes, 4 or more]``, scores ``[1, boxes, classes]`` or with one class more
    in front (the background), anchors ``[boxes, 4]``; float32, or uint8 with parameters.

    Outputs, float32, of ``max_detections * max_classes_per_detection`` places: boxes ``[1, places, 4]`` as
    (ymin, xmin, ymax, xmax), classes, scores, and how many detections there are.
    """
    require_arity(view, 3, outputs=4)
    boxes, scores, anchors = (view.input(position) for position in range(3))
    options = options_of(view)
    for tensor, rank in ((boxes, 3), (scores, 3), (anchors, 2)):
        require_dtype(view, tensor, ("float32", "uint8"))
        require_rank(view, tensor, rank)
        require_elements(view, tensor)
        if tensor.dtype == "uint8":
            require_quantized(view, tensor)
    require_same_dtype(view, boxes, anchors)
    require(view, boxes.shape[0] == 1 and boxes.shape[2] >= 4, f"boxes of shape {boxes.shape}")
    require_shape(view, anchors, (boxes.shape[1], 4))
    require(
        view,
        scores.shape[:2] == boxes.shape[:2] and scores.shape[2] - options.classes in (0, 1),
        f"scores of shape {scores.shape} for {boxes.shape[1]} boxes and {options.classes} classes",
    )
    require(
        view,
        options.detections > 0
        and options.per_box > 0
        and options.per_class > 0
        and options.classes > 0
        and options.places <= MAX_VALUES,
        f"{options.detections} detections of {options.per_box} classes, {options.per_class} per class",
    )
    require(view, 0 < options.overlap <= 1, f"nms_iou_threshold is {options.overlap}, not in (0, 1]")
    require(view, min(options.scales) > 0, f"the scales of boxes are {options.scales}")
    shapes = (1, options.places, 4), (1, options.places), (1, options.places), (1,)
    for tensor, shape in zip(view.outputs, shapes, strict=True):
        require_dtype(view, tensor, ("float32",))
        require_shape(view, tensor, shape)


def defined(view: LayerView, outputs: Sequence[Array]) -> tuple[Array, ...]:
    """Which values of the outputs the kernel writes; the others are as memory was before.

    Regular suppression fills ``max_detections`` places, with zeros after the detections; fast suppression
    only writes the detections.
    """
    options = options_of(view)
    place = np.arange(options.places)
    if options.regular:
        written = place < options.detections
    else:
        found, position = np.divmod(place, options.per_box)
        written = (found < outputs[3][0]) & (position < options.per_box_written)
    rows = written[np.newaxis]
    return np.repeat(rows[..., np.newaxis], 4, axis=2), rows, rows, np.ones(1, np.bool_)


def detection_postprocess(view: LayerView, values: Values, rule: Rule) -> SpecResult:
    """TFLite_Detection_PostProcess; places that are not written hold zeros.

    Raises ModelError for an empty box, at which runtimes stop, and for scores of NaN, which have no order.
    """
    options = options_of(view)
    encoded, scores, anchors = (
        _real(tensor, operand(values, position)) for position, tensor in enumerate(view.inputs)
    )
    boxes = _decoded(encoded[0], anchors, options.scales)
    empty = (boxes[:, 0] >= boxes[:, 2]) | (boxes[:, 1] >= boxes[:, 3])
    if empty.any():
        raise ModelError(f"{view}: box {int(np.argmax(empty))} is empty, at which runtimes stop")
    if np.isnan(scores).any():
        raise ModelError(f"{view}: a score is not a number, and runtimes have no order for it")
    of_classes = scores[0, :, scores.shape[2] - options.classes :]
    if rule.method not in ("reference", "later_class_first"):
        raise ModelError(f"{view}: TFLite_Detection_PostProcess by {rule.method!r} is not defined")
    if options.regular:
        found, count = _regular(boxes, of_classes, options, rule.method == "later_class_first")
    else:
        found, count = _fast(boxes, of_classes, options)
    results = [np.zeros(tensor.shape, np.float32) for tensor in view.outputs]
    for place, (box, class_) in found.items():
        results[0][0, place] = boxes[box]
        results[1][0, place] = class_
        results[2][0, place] = of_classes[box, class_]
    results[3][0] = count
    return SpecResult(tuple(results))


def _real(tensor: Tensor | None, stored: Array) -> Array:
    """The input's float32 values, ``scale * (q - zero_point)`` for uint8."""
    if tensor is None or tensor.dtype == "float32":
        return stored
    return np.float32(tensor.scale) * (stored.astype(np.float32) - np.float32(tensor.zero_point))


def _decoded(encoded: Array, anchors: Array, scales: tuple[float, ...]) -> Array:
    """Corners ``[boxes, (ymin, xmin, ymax, xmax)]``. Centres and half sizes are computed in float64 and
    rounded to float32, corners from these in float32."""
    corners = np.empty((len(encoded), 4), np.float32)
    for axis in (0, 1):
        code, size = encoded[:, axis].astype(np.float64), encoded[:, axis + 2].astype(np.float64)
        length = anchors[:, axis + 2].astype(np.float64)
        with np.errstate(over="ignore", invalid="ignore"):
            centre = code / scales[axis] * length + anchors[:, axis].astype(np.float64)
            grown = np.array([_exp(value) for value in (size / scales[axis + 2]).tolist()])
            half = (0.5 * grown * length).astype(np.float32)
            corners[:, axis] = centre.astype(np.float32) - half
            corners[:, axis + 2] = centre.astype(np.float32) + half
    return corners


def _exp(value: float) -> float:
    """e to the power of ``value``, rounded to float64. A C library's result is less than one unit in the last
    place away, which changes the float32 result of about one in 2^28 values."""
    if math.isnan(value) or abs(value) > 750:
        return math.nan if math.isnan(value) else math.inf if value > 0 else 0.0
    return float(EXPONENTIAL.exp(Decimal(value)))


def _fast(boxes: Array, scores: Array, options: Options) -> tuple[dict[int, tuple[int, int]], int]:
    """Fast suppression: (box, class) of each place, and the number of boxes. Boxes are chosen by their best
    score; each gives its ``per_box`` best classes."""
    selected = _not_suppressed(boxes, scores.max(axis=1), options, options.detections)
    found = {}
    for number, box in enumerate(selected):
        for position, class_ in enumerate(_best_classes(scores[box].tolist(), options.per_box_written)):
            found[number * options.per_box + position] = box, class_
    return found, len(selected)


def _best_classes(scores: list[float], count: int) -> list[int]:
    """The classes of the ``count`` highest scores: the first maximum for one, else by a partial sort."""
    return [scores.index(max(scores))] if count == 1 else largest_first(scores, count)


def _regular(
    boxes: Array, scores: Array, options: Options, later_first: bool
) -> tuple[dict[int, tuple[int, int]], int]:
    """Regular suppression: (box, class) of each place, and their number. Each class is suppressed by itself,
    and the best of all classes are kept. Of equal scores those of earlier classes come first, or those of
    later ones."""
    best: list[tuple[int, int]] = []
    for class_ in range(options.classes):
        limit = min(options.per_class, options.detections)
        selected = _not_suppressed(boxes, scores[:, class_], options, limit)
        of_class = [(box, class_) for box in selected]
        merged = of_class + best if later_first else best + of_class
        best = sorted(merged, key=lambda pair: -scores[pair])[: options.detections]
    return dict(enumerate(best)), len(best)


def _not_suppressed(boxes: Array, scores: Array, options: Options, limit: int) -> list[int]:
    """At most ``limit`` boxes by falling score, of equal scores the first box first, none of which overlaps a
    better one by more than the threshold."""
    order = np.argsort(-scores, kind="stable")
    active = order[scores[order] >= np.float32(options.score)]
    selected: list[int] = []
    while active.size and len(selected) < limit:
        best, rest = int(active[0]), active[1:]
        selected.append(best)
        active = rest[~(_overlaps(boxes[best], boxes[rest]) > np.float32(options.overlap))]
    return selected


def _overlaps(box: Array, others: Array) -> Array:
    """Intersection over union of a box with each of the others, in float32."""
    with np.errstate(over="ignore", invalid="ignore"):
        area = (box[2] - box[0]) * (box[3] - box[1])
        areas = (others[:, 2] - others[:, 0]) * (others[:, 3] - others[:, 1])
        low, high = np.maximum(box[:2], others[:, :2]), np.minimum(box[2:], others[:, 2:])
        common = np.maximum(high - low, np.float32(0)).prod(axis=1, dtype=np.float32)
        return np.where((area > 0) & (areas > 0), common / (area + areas - common), np.float32(0))
