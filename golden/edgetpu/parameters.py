"""Proving the parameters: every layer's bytes found, and every byte of the file explained."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from karat24.golden.edgetpu.evidence import Evidence
from karat24.golden.edgetpu.expected import UNDESCRIBED
from karat24.golden.edgetpu.finding import Finding, ParameterBytes
from karat24.golden.edgetpu.gates import LSTM, gates
from karat24.golden.edgetpu.layout import Weights, layer_weights, windowed
from karat24.golden.edgetpu.placing import Blob, Difference, closest, differences, place_bytes, place_weights
from karat24.golden.edgetpu.records import factor_records, softmax_records, summand_records
from karat24.golden.edgetpu.structure import EIGHT_BITS, last_size
from karat24.refimpl.graph import Array, Graph, LayerView, Tensor

WEIGHTED = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")

ROUTING = (
    "CONCATENATION",
    "SPLIT",
    "RESHAPE",
    "STRIDED_SLICE",
    "TRANSPOSE",
    LSTM,
)
"""Ops that may be compiled to products with matrices of 0 and 1, which move channels."""

WITHOUT_PARAMETERS = frozenset(
    {"ADD", "AVERAGE_POOL_2D", "EXPAND_DIMS", "LOGISTIC", "MAX_POOL_2D", "MEAN", "MUL", "PAD", "QUANTIZE",
     "RESIZE_BILINEAR", "SOFTMAX", "SQUEEZE", *ROUTING} - {LSTM}
)  # fmt: skip
"""Ops of which no pair has parameters but those that are looked for here."""

SMALLEST_IMAGE = 64
"""Bytes from which on a constant image is told by its bytes; a shorter run of them may stand anywhere."""


def prove_parameters(layers: Sequence[Evidence], blobs: list[Blob], source: Graph) -> None:
    """Finds every layer's parameters; a layer that is not there bit for bit is compared with what is
    left over, after all that are."""
    missing: list[tuple[Evidence, list[Weights]]] = []
    for layer in layers:
        if layer.view.op in WEIGHTED:
            shapes = layer.attempt(partial(_shapes, layer.view, source))
            layer.may_hold_more = shapes is None
            if shapes is not None and not any(_place(layer, blobs, weights) for weights in shapes):
                missing.append((layer, shapes))
            continue
        layer.may_hold_more = layer.view.op not in WITHOUT_PARAMETERS
        if layer.view.op == "TRANSPOSE_CONV":
            layer.cannot(UNDESCRIBED["TRANSPOSE_CONV"])
        elif layer.view.op == LSTM:
            layer.attempt(partial(_gates, layer, blobs))
        elif layer.view.op in ("MUL", "ADD", "SUB"):
            layer.attempt(partial(_constant, layer, blobs))
    for layer in layers:
        if layer.view.op == "SOFTMAX":
            layer.attempt(partial(_softmax, layer, blobs))
    for layer, shapes in missing:
        _compare(layer, blobs, shapes)
    for before, behind in out_of_order(layers):
        where = f"layer {before.view.layer.index}'s must lie before it"
        behind.differs([Finding("order of parameters", where, "behind", "before")])


def out_of_order(layers: Sequence[Evidence]) -> list[tuple[Evidence, Evidence]]:
    """Producers and consumers, direct or not, whose weights lie the other way round in one blob.

    Weights lie in order of execution: two layers of one form that changed their weights are told by it.
    """
    last: dict[int, dict[int, Evidence]] = {}
    found = []
    owners = Counter(layer.places[0] for layer in layers if layer.proved["weights"])
    for layer in layers:
        before: dict[int, Evidence] = {}
        for index in layer.view.layer.inputs:
            for blob, other in last.get(index, {}).items():
                if blob not in before or other.places[0].start > before[blob].places[0].start:
                    before[blob] = other
        if layer.view.op in WEIGHTED and layer.proved["weights"] and owners[layer.places[0]] == 1:
            place = layer.places[0]
            other = before.get(place.blob, layer)
            if other.places[0].start > place.start:
                found.append((other, layer))
            else:
                before[place.blob] = layer
        for index in layer.view.layer.outputs:
            last[index] = before
    return found


def account(blob: Blob, layers: Sequence[Evidence]) -> ParameterBytes:
    """How the blob's bytes are explained, once every layer has its own."""
    movable = {0, 1} if any(layer.view.op in ROUTING for layer in layers) else set()
    if any(layer.view.op == LSTM for layer in layers):
        movable |= {128}  # the state it begins with
    content = np.frombuffer(blob.content, np.uint8)
    left, routing = [], 0
    for start, stop in blob.left_over():
        if movable.issuperset(np.unique(content[start:stop]).tolist()):
            routing += stop - start
        else:
            left.append((start, stop))
    explained = int(blob.explained.sum())
    zeros = content.size - explained - routing - sum(stop - start for start, stop in left)
    undescribed = any(layer.may_hold_more for layer in layers)
    return ParameterBytes(
        blob.kind,
        content.size,
        explained,
        zeros,
        routing,
        unexplained=() if undescribed else tuple(left),
        undescribed=tuple(left) if undescribed else (),
    )


def _shapes(view: LayerView, source: Graph) -> list[Weights]:
    """The weights, and, of a fully connected layer fed by an image, the convolution it is laid out as."""
    weights = layer_weights(view)
    if view.op != "FULLY_CONNECTED":
        return [weights]
    image = view.input(0)
    for before in source.views():
        if before.op == "RESHAPE" and image.index in before.layer.outputs:
            image = before.input(0)
    convolution = windowed(weights, image.shape)
    return [weights] if convolution is None else [weights, convolution]


def _place(layer: Evidence, blobs: list[Blob], weights: Weights) -> bool:
    place = place_weights(blobs, weights)
    if place is None:
        return False
    layer.places.append(place)
    layer.proved["weights"] = weights.filter.size
    layer.proved["biases"] = weights.bias.size
    layer.proved["multipliers"] += weights.multiplier.size
    return True


def _compare(layer: Evidence, blobs: list[Blob], shapes: list[Weights]) -> None:
    for weights in shapes:
        found = differences(blobs, weights)
        if found is not None:
            place, differing = found
            layer.places.append(place)
            layer.differs(_described(item, weights) for item in differing)
            return
    size = shapes[0].filter.size
    layer.differs([Finding("weights", "nowhere in the parameters, nor anything like them", size, None)])


def _gates(layer: Evidence, blobs: list[Blob]) -> None:
    """Each gate of an LSTM like a layer of its own; what differs is compared once all are placed."""
    missing = []
    for gate in gates(layer.view):
        place = place_weights(blobs, gate.weights)
        if place is None:
            missing.append(gate)
            continue
        layer.places.append(place)
        layer.proved["weights"] += gate.size
        layer.proved["biases"] += gate.weights.bias.size
    order = [(place.blob, place.start) for place in layer.places]
    if not missing and order != sorted(order):
        layer.differs([Finding("order of gates", "parameters", "ascending", str([at for _, at in order]))])
    for gate in missing:
        found = differences(blobs, gate.weights)
        if found is None:
            where = f"{gate.name} gate, nowhere in the parameters, nor anything like them"
            layer.differs([Finding("weights", where, gate.size, None)])
            continue
        place, differing = found
        layer.places.append(place)
        layer.differs(
            replace(finding, where=f"{gate.name} gate, {finding.where}")
            for finding in (_described(item, gate.weights) for item in differing)
        )


def _described(item: Difference, weights: Weights) -> Finding:
    where = f"channel {item.channel}" if item.channel >= 0 else "filling"
    if item.field == "filter" and item.position >= 0:
        index = np.unravel_index(item.position, weights.filter.shape)
        where += f", {'[y, x, channel]' if weights.depthwise else 'OHWI'} {tuple(int(i) for i in index)}"
    return Finding(item.field, f"{where}, byte {item.byte}", item.source, item.compiled)


def _constant(layer: Evidence, blobs: list[Blob]) -> None:
    """A constant operand: one value per channel in records, or an image, as unsigned bytes."""
    view = layer.view
    operands = [view.input(0), view.input(1)]
    for constant, operand in (operands, operands[::-1]):
        if constant.data is None:
            continue
        layer.cannot("how an operation with a constant rounds its result is not described")
        layer.may_hold_more = True  # until the constant is found
        forms = _constant_forms(view, constant, operand)
        layer.may_hold_more = not _place_constant(layer, blobs, forms, constant.data.size)
        if layer.may_hold_more:
            layer.cannot(f"its constant of shape {constant.shape} is in none of the forms that pairs show")


def _place_constant(layer: Evidence, blobs: list[Blob], forms: list[Array], count: int) -> bool:
    """Finds a constant of ``count`` values, or what differs in it; False where it has none of its forms."""
    for form in forms:
        place = place_bytes(blobs, form.tobytes())
        if place is not None:
            layer.places.append(place)
            layer.proved["constant"] = count
            return True
    if any(_compare_constant(layer, blobs, form, count) for form in forms):
        return True
    if layer.view.op in ("ADD", "MUL") and any(form.itemsize > 1 for form in forms):
        # Of 87 such constants in public pairs not one is missing.
        layer.differs([Finding("constant", "nowhere in the parameters", count, None)])
        return True
    return False


def _compare_constant(layer: Evidence, blobs: list[Blob], form: Array, count: int) -> bool:
    """Compares a constant of ``count`` values with the place most like it; False where that has not even
    half of them."""
    found = closest(blobs, form.tobytes())
    if found is None:
        return False
    blob, start = found
    there = np.frombuffer(blob.content, form.dtype, form.size, start)
    width = form.itemsize
    differing = np.flatnonzero(there.view(f"u{width}") != form.view(f"u{width}")).tolist()
    if 2 * len(differing) > count:
        return False
    layer.places.append(blob.claim(start, form.nbytes))
    for item in differing:
        which = f"value {item}" if width == 1 else f"record {item // 16}, lane {item % 16}"
        where = f"{which}, byte {start + width * item}"
        layer.differs([Finding("constant", where, form[item].item(), there[item].item())])
    return True


def _constant_forms(view: LayerView, constant: Tensor, operand: Tensor) -> list[Array]:
    """Every form a constant of this shape may have, flat; none where no pair shows one."""
    assert constant.data is not None
    if constant.dtype not in EIGHT_BITS:
        return []
    if constant.data.size == last_size(constant) == last_size(view.output()) > 1:
        if view.op == "MUL":
            return [np.frombuffer(factor_records(view, constant, operand), "<f4")]
        if view.op == "SUB" and constant is view.input(0):
            return []
        sign = -1 if view.op == "SUB" else 1
        return [np.frombuffer(summand_records(constant, operand, sign), "<i4")]
    if constant.data.size < SMALLEST_IMAGE:
        return []
    unsigned: Array = np.ascontiguousarray(constant.data).view(np.uint8).reshape(-1)
    return [unsigned ^ np.uint8(0x80) if constant.dtype == "int8" else unsigned]


def _softmax(layer: Evidence, blobs: list[Blob]) -> None:
    """Softmax's records, where the compiler writes some; the stages' proof looks for the scale elsewhere."""
    if layer.view.real("beta", 1.0) != 1:
        layer.cannot("no pair has a beta but 1")
        return
    content = softmax_records(layer.view)
    place = place_bytes(blobs, content)
    if place is not None:
        layer.places.append(place)
        layer.proved["softmax records"] = len(content) // 64
        return
    found = closest(blobs, content)
    if found is None:
        return
    blob, start = found
    layer.places.append(blob.claim(start, len(content)))
    wanted, there = (
        np.frombuffer(content, "<u4"),
        np.frombuffer(blob.content, "<u4", len(content) // 4, start),
    )
    for item in np.flatnonzero(wanted != there).tolist():
        values = (float(array[item : item + 1].view("<f4")[0]) for array in (wanted, there))
        where = f"record {item // 16}, lane {item % 16}, byte {start + 4 * item}"
        layer.differs([Finding("softmax record", where, *values)])
