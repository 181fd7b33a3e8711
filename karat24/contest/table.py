"""A contest as text for a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from karat24.contest.figures import Contest, Entry, LayerTime, Parity

NAME = 60
"""Characters shown of a runtime's node name, which may be that of everything fused into it."""


def table(contest: Contest, rows: int = 40) -> str:
    """Parity, then one line per contestant, then the layers; of those the ``rows`` slowest."""
    cost = f"{contest.macs / 1e6:,.1f} MMAC, {contest.threads} threads"
    lines = [f"{contest.model}: {cost}, {contest.machine['cpu']}"]
    lines += [parity_line(parity) for parity in contest.parity]
    if contest.peaks:
        peaks = ", ".join(f"{isa} {peak:.0f}" for isa, peak in contest.peaks.items())
        lines.append(f"measured peak of the micro-kernels, GMAC/s: {peaks} (transforms may save products)")
    width = max(len(entry.name) for entry in contest.entries)
    lines.append("")
    lines.append(
        f"{'':{width}}  {'median':>10}  {'quartiles':>21}  {'GMAC/s':>7}  {'peak':>5}  {'memory':>8}  "
        f"{'cold':>7}  {'warm':>7}  {'runs':>4}"
    )
    lines += [_row(entry, width) for entry in contest.entries]
    if contest.ratios:
        lines += ["", "runtime's time over the oracle's (above 1: the oracle is faster)"]
        lines += [f"  {r.runtime} / {r.oracle}: {r.ratio:.2f}" for r in contest.ratios]
    lines += [f"  every tensor kept / none, {name}: {ratio:.2f}" for name, ratio in trace_costs(contest)]
    for entry in contest.entries:
        if entry.layers_why_not:
            lines += ["", f"layers of {entry.name}: {entry.layers_why_not}"]
        elif entry.layers is not None:
            lines += ["", f"layers of {entry.name}", *_layers(entry.layers, rows)]
    return "\n".join(lines)


def trace_costs(contest: Contest) -> list[tuple[str, float]]:
    """Oracle and its time with a full trace over its time without."""
    medians = {e.name: e.quartiles.median for e in contest.entries if e.kind == "oracle" and e.quartiles}
    return [
        (name, medians[f"{name} traced"] / median)
        for name, median in medians.items()
        if f"{name} traced" in medians
    ]


def seconds_text(seconds: float) -> str:
    """A time with three digits and a fitting unit."""
    for factor, unit in ((1.0, "s"), (1e-3, "ms")):
        if seconds >= factor:
            return f"{seconds / factor:.3g} {unit}"
    return f"{seconds / 1e-6:.3g} µs"


def parity_line(parity: Parity) -> str:
    """One comparison of outputs as a sentence."""
    if parity.verdict == "not_compared":
        return f"NOT COMPARED: {parity.other}: {parity.reason}"
    if parity.verdict == "equal":
        return f"equal: {parity.other} and {parity.oracle}, all {parity.values:,} output values"
    reason = f" ({parity.reason})" if parity.reason else ""
    return (
        f"DIFFERS: {parity.other} and {parity.oracle}, {parity.differing:,} of {parity.values:,} "
        f"output values{reason}"
    )


def _row(entry: Entry, width: int) -> str:
    if entry.stopped:
        return f"{entry.name:{width}}  stopped: {entry.stopped}"
    starts = "  ".join(
        f"{'' if start is None else seconds_text(start['to_first_result_s']):>7}"
        for start in (entry.cold_start, entry.warm_start)
    )
    memory = f"{entry.peak_memory_bytes / 2**20:,.0f} MB"
    if entry.quartiles is None:
        return f"{entry.name:{width}}  {'not timed':>10}  {'':21}  {'':7}  {'':5}  {memory:>8}  {starts}"
    q = entry.quartiles
    spread = f"{seconds_text(q.lower)} … {seconds_text(q.upper)}"
    fraction = "" if entry.peak_fraction is None else f"{entry.peak_fraction:.0%}"
    return (
        f"{entry.name:{width}}  {seconds_text(q.median):>10}  {spread:>21}  {entry.gmac_per_s:7.1f}  "
        f"{fraction:>5}  {memory:>8}  {starts}  {len(entry.seconds):4}"
    )


def _layers(layers: Sequence[LayerTime], rows: int) -> list[str]:
    slowest = sorted(layers, key=lambda layer: -layer.seconds)[:rows]
    lines = [
        f"  {layer.share:6.1%}  {seconds_text(layer.seconds):>9}  "
        f"{f'{layer.gmac_per_s:.1f} GMAC/s' if layer.gmac_per_s else '':>14}  "
        f"{'' if layer.layer is None else layer.layer:>4} {layer.op} {layer.name[:NAME]}".rstrip()
        for layer in slowest
    ]
    rest = len(layers) - len(slowest)
    return [*lines, *([f"  and {rest} faster ones"] if rest else [])]
