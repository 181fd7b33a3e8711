"""Markdown tables of the speed that was measured, by the names of their places in a document."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from benchmarks.markdown import table
from benchmarks.summary import LEDGER, Table, canonical, entry, ratio, timed
from karat24.contest.table import seconds_text

COLUMNS = (
    ("xnnpack", "litert-xnnpack", "LiteRT XNNPACK"),
    ("builtin", "litert-builtin", "LiteRT builtin"),
    ("ort-s8s8", "ort s8s8", "ORT s8s8"),
    ("ort-u8s8", "ort u8s8", "ORT u8s8"),
    ("float", "litert float", "LiteRT float"),
    ("float", "ort float", "ORT float"),
    ("ref", "litert-ref", "LiteRT reference"),
)
"""Group, contestant and heading of each column."""


IN_SHORT = (
    "tomogan-bilinear-1024", "tomogan-transposed-1024", "fine-tune-1024", "tomogan-bilinear-64",
    "coral/tf2_mobilenet_v2_1.0_224_ptq", "mlperf_tiny/pretrainedResnet_quant", "mlperf_tiny/vww_96_int8",
    "cfu/model_magic_wand",
)  # fmt: skip
"""The models of the README's table; some of them lose."""


def texts(content: Mapping[str, Any], restricted: Mapping[str, Any] | None = None) -> dict[str, str]:
    """Every table of a file of results, by the name of its place (see ``benchmarks.markdown``).

    ``restricted`` is a file of results from the same machine whose contestants were all told of fewer
    instructions.
    """
    kept = Table(content)
    if not kept.contests:
        return {"speed: models": "No contest has been held yet.\n"}
    beside = {} if restricted is None else {"speed: restricted": _restricted(kept, Table(restricted))}
    return beside | {
        "speed: models": _heading(kept) + "\n" + _models(kept),
        "speed: instruction sets": _instruction_sets(kept),
        "speed: figures": _figures(kept),
        "speed: in short": _in_short(kept),
    }


def markdown(content: Mapping[str, Any], restricted: Mapping[str, Any] | None = None) -> str:
    """All tables of a file of results, see :func:`texts`."""
    return "\n".join(text for text in texts(content, restricted).values() if text)


def _heading(kept: Table) -> str:
    first = next(iter(kept.contests.values()))
    versions = {
        name: version
        for contest in kept.contests.values()
        for found in contest["entries"]
        for name, version in found["versions"].items()
        if name in ("karat24", "numba", "ai-edge-litert", "onnxruntime")
    }
    listed = ", ".join(f"{name} {version}" for name, version in sorted(versions.items()))
    days = sorted({contest["date"][:10] for contest in kept.contests.values()})
    when = days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}"
    return (
        f"{first['machine']['cpu']}, {first['machine']['cores']} cores, "
        f"{first['threads']} threads; {listed}; {when}. Medians of interleaved runs; outputs were equal "
        "bit by bit, except where the table says otherwise (those of float networks were not compared).\n"
    )


def _models(kept: Table) -> str:
    """One row per model: the oracle's median in the newest contest, and each runtime's median with its ratio
    to the oracle's in one contest."""
    columns = [column for column in COLUMNS if any(group == column[0] for _, group in kept.pairs)]
    rows, left_out = [], []
    for model in kept.models:
        if all(
            found["stopped"] for c in kept.of(model) for found in c["entries"] if found["kind"] == "oracle"
        ):
            left_out.append(model)
        else:
            rows.append(_row(kept, model, columns))
    note = (
        "\n×: the runtime's time over the oracle's (profile `litert-2.3-ref`, best instruction set) in one "
        "contest; above 1 the oracle is faster. The column *oracle* has the time of the newest contest.\n"
    )
    if left_out:
        note += f"Models that the oracle does not run: {', '.join(left_out)}.\n"
    return table(["int8 model", "oracle", *(title for _, _, title in columns)], rows) + note


def _in_short(kept: Table) -> str:
    """The models of :data:`IN_SHORT`: oracle and XNNPACK in one contest, and ONNX Runtime in another."""
    rows = []
    for model in IN_SHORT:
        contest = kept.get(model, "xnnpack")
        mine = None if contest is None else canonical(contest)
        if mine is not None and timed(mine):
            other = _cell(kept.get(model, "ort-u8s8"), "ort u8s8")
            rows.append(
                [model, seconds_text(mine["quartiles"]["median"]), _cell(contest, "litert-xnnpack"), other]
            )
    return table(["int8 model, 2 threads", "oracle", "LiteRT XNNPACK", "ONNX Runtime u8s8"], rows)


def _row(kept: Table, model: str, columns: Iterable[tuple[str, str, str]]) -> list[str]:
    own = [
        (contest["date"], found["quartiles"]["median"])
        for contest in kept.of(model)
        if (found := canonical(contest)) and timed(found)
    ]
    mine = seconds_text(max(own)[1]) if own else ""
    return [model, mine, *(_cell(kept.get(model, group), name) for group, name, _ in columns)]


def _cell(contest: Mapping[str, Any] | None, name: str) -> str:
    if contest is None:
        return ""
    found = entry(contest, name)
    if found is None:
        return ""
    if found["stopped"]:
        return "stopped"
    if any(p["other"] == name and p["verdict"] == "differs" for p in contest["parity"]):
        return "differs"
    if not timed(found):
        return "not timed"
    mine = canonical(contest)
    times = f" ({ratio(mine, found):.2f}×)" if mine is not None and timed(mine) else ""
    return seconds_text(found["quartiles"]["median"]) + times


def _instruction_sets(kept: Table) -> str:
    """The oracle on every instruction set, beside XNNPACK."""
    contests = {model: kept.get(model, "xnnpack") for model in kept.models}
    sets = list(
        dict.fromkeys(
            found["isa"]
            for contest in contests.values()
            if contest is not None
            for found in contest["entries"]
            if found["kind"] == "oracle" and found["isa"]
        )
    )
    if not sets:
        return ""
    rows = []
    for model, contest in contests.items():
        if contest is None:
            continue
        runtime = entry(contest, "litert-xnnpack")
        cells = []
        for isa in sets:
            found = canonical(contest, isa)
            if found is None or not timed(found):
                cells.append("")
                continue
            times = f"{ratio(found, runtime):.2f}×" if runtime is not None and timed(runtime) else ""
            of_peak = f"{found['peak_fraction']:.0%}" if found["peak_fraction"] else ""
            told = ", ".join(part for part in (times, f"{found['gmac_per_s']:.0f} GMAC/s", of_peak) if part)
            cells.append(told)
        if any(cells):
            rows.append([model, *cells])
    return table(["XNNPACK / oracle, rate, of peak", *sets], rows)


def _restricted(whole: Table, part: Table) -> str:
    """Oracle and XNNPACK, both on all instructions of the machine and both on fewer."""
    rows, heads = [], ["int8 model, 2 threads"]
    for kept in (whole, part):
        contest = next(iter(kept.contests.values()))
        isa = (canonical(contest) or {"isa": ""})["isa"]
        heads += [f"oracle, {isa}", f"XNNPACK, {isa}"]
    for model in part.models:
        cells = [model]
        for kept in (whole, part):
            contest = kept.get(model, "xnnpack")
            mine = None if contest is None else canonical(contest)
            if contest is None or mine is None or not timed(mine):
                cells += ["", ""]
            else:
                cells += [seconds_text(mine["quartiles"]["median"]), _cell(contest, "litert-xnnpack")]
        if any(cells[1:]):
            rows.append(cells)
    return table(heads, rows)


def _figures(kept: Table) -> str:
    rows = [[title, figure] for title, figures in LEDGER for figure in [figures(kept)] if figure]
    return table(["figure", "measured"], rows) if rows else ""
