"""Certificates as part of a judgement: each goes into the record of its layer."""

from __future__ import annotations

from collections.abc import Sequence

from karat24.delegates.protocol import Delegate
from karat24.golden.certify.certify import certification
from karat24.golden.layer_record import LayerRecord
from karat24.refimpl.engine import Program


def certify_records(
    program: Program, delegate: Delegate, records: Sequence[LayerRecord], threads: int | None = None
) -> list[str]:
    """Certifies the layer of each record; returns what to note about those that have no finite description.

    A case that differs is a difference of the layer; a case that could not be met leaves it not compared.
    """
    undescribed: dict[tuple[str, str], list[int]] = {}
    for record in records:
        if record.position > 0:  # ops with a finite description have one output
            continue
        found = certification(program.graph, record.layer, program.profile)
        record.certificate = found.run(delegate, threads)
        if not found.how:
            undescribed.setdefault((record.view.op, found.reason), []).append(record.layer)
            continue
        if found.diff is not None:
            record.add(found.diff, found.explanation, "introduced")
        if found.refused:
            record.refuse(found.refused)
        elif not record.certificate.complete:
            record.refuse(str(record.certificate))
    return [
        f"{op} (layer{'s' if len(layers) > 1 else ''} {', '.join(map(str, layers))}) cannot be certified, "
        f"only compared on inputs: {reason}"
        for (op, reason), layers in undescribed.items()
    ]
