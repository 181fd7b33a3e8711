"""``karat24 prove X_edgetpu.tflite --source X.tflite``: a compiled model against its source."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

NO_TOKEN = 0
"""The caching token of an executable that keeps nothing on the device."""


def run(options: argparse.Namespace) -> int:
    """Prints one verdict per layer; 0 only if everything on the device is proved."""
    from karat24.export.edgetpu import CompiledModel, read_compiled
    from karat24.export.tflite import read_tflite
    from karat24.golden.edgetpu import lines, prove
    from karat24.refimpl.errors import UsageError

    compiled: list[Path] = [options.model, *options.segments]
    sources: list[Path] = options.source or []
    if not sources:
        raise UsageError(
            f"{options.model}: a compiled model is proved against what it was compiled from; "
            "name that with --source X.tflite"
        )
    if len(sources) not in (1, len(compiled)):
        raise UsageError(
            f"{len(sources)} sources for {len(compiled)} compiled files; give one for all segments of a "
            "pipeline, or one for each file of a set compiled together"
        )
    models = [read_compiled(path) for path in compiled]
    groups: list[tuple[Path, list[CompiledModel]]] = [(sources[0], models)]
    if len(sources) > 1:
        groups = [(source, [model]) for source, model in zip(sources, models, strict=True)]
    proofs = [(source, prove(read_tflite(source), group)) for source, group in groups]
    tokens = {model.caching_tokens - {NO_TOKEN} for model in models}
    together = len(tokens) == 1 and len(next(iter(tokens))) == 1
    if options.json:
        content = [{"source": str(source), **proof.as_dict()} for source, proof in proofs]
        print(json.dumps({"compiled_together": together, "proofs": content}, indent=1))
    else:
        for source, proof in proofs:
            if len(proofs) > 1:
                print(f"{source}:")
            print("\n".join(lines(proof)))
        if len(models) > 1:
            verb = "share" if together else "do not share"
            print(f"The {len(models)} compiled files {verb} one caching token.")
    codes = {proof.exit_code for _, proof in proofs}
    if len(models) > 1 and not together:
        codes.add(1)
    return 1 if 1 in codes else max(codes)
