"""The proof as text."""

from __future__ import annotations

from collections.abc import Iterator

from karat24.golden.edgetpu.finding import NOT_COVERED, LayerProof, ParameterBytes, Proof, Verdict

WORDS: dict[Verdict, str] = {
    "proved": "proved",
    "differs": "differs",
    "on_cpu": "on CPU",
    "not_provable": "not provable",
}

FINDINGS_SHOWN = 3
"""Differences printed per layer; the JSON has more."""


def lines(proof: Proof) -> Iterator[str]:
    """One line per layer, with its differences below it, then what belongs to no layer, then the sum."""
    width = max((len(layer.op) for layer in proof.layers), default=0)
    for layer in proof.layers:
        yield f"{layer.layer:4}  {layer.op:{width}}  {WORDS[layer.verdict]:12}  {_detail(layer)}".rstrip()
        for finding in layer.findings[:FINDINGS_SHOWN]:
            yield f"          {finding}"
        if layer.finding_count > FINDINGS_SHOWN:
            yield f"          and {layer.finding_count - FINDINGS_SHOWN:,} more"
    for finding in proof.io:
        yield f"model: {finding}"
    yield ""
    if proof.stages:
        shown = ", ".join(map(str, proof.stages[:8])) + (", ..." if len(proof.stages) > 8 else "")
        yield f"output stages that belong to no layer: {len(proof.stages)}, at instructions {shown}"
    for part in proof.parameters:
        yield _bytes(part)
    yield ", ".join(f"{proof.count(verdict)} {word}" for verdict, word in WORDS.items())
    yield conclusion(proof)
    if proof.verdict != "differs":
        yield f"Not covered: {NOT_COVERED}."


def conclusion(proof: Proof) -> str:
    """The result, in one sentence."""
    if proof.is_foreign:
        return "The two files do not belong together: the compiled file was made from another source."
    if proof.verdict == "differs":
        return "The compiled file does not carry this source."
    if proof.verdict == "not_provable":
        return "Nothing differs, but not everything can be proved."
    return "The compiled file carries this source: every number on the device is its, to the last bit."


def _detail(layer: LayerProof) -> str:
    proved = ", ".join(f"{count:,} {what}" for what, count in layer.proved.items() if count)
    if layer.verdict == "not_provable" and proved:
        proved = f"proved are {proved}"
    elif layer.verdict != "proved":
        proved = ""
    return "; ".join(part for part in (proved, *layer.reasons) if part)


def _bytes(part: ParameterBytes) -> str:
    text = f"{part.kind}: {part.explained:,} of {part.size:,} parameter bytes are the layers'"
    text += f", {part.zeros:,} filling"
    if part.routing:
        text += f", {part.routing:,} matrices that move channels, which are not compared"
    for start, stop in part.unexplained:
        text += f"; bytes {start:,} to {stop:,} belong to no layer"
    for start, stop in part.undescribed:
        text += f"; bytes {start:,} to {stop:,} may be those of a layer whose parameters are not described"
    return text
