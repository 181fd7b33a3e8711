"""A .tflite file of two subgraphs."""

from __future__ import annotations

import copy
from typing import Any

from karat24.refimpl.graph import Graph
from tests.support.tflite_edits import broken


def two_graphs(keys: dict[str, int], graph: Graph | None = None) -> bytes:
    """The graph (else the sample) twice, the second called so, with signatures that enter them."""

    def change(model: Any) -> None:
        second = copy.deepcopy(model.subgraphs[0])
        second.name = b"second"
        model.subgraphs.append(second)
        (first,) = model.signatureDefs
        model.signatureDefs = []
        for key, index in keys.items():
            signature = copy.deepcopy(first)
            signature.signatureKey, signature.subgraphIndex = key.encode(), index
            model.signatureDefs.append(signature)

    return broken(change, graph)
