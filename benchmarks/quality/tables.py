"""The Markdown tables of restoration quality."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from benchmarks.markdown import marked, table
from benchmarks.quality.cases import HELD_OUT
from benchmarks.quality.methods import COVERS, METHODS, PROFILES
from benchmarks.quality.plans import SCHEMES, STEPS
from benchmarks.quality.summary import Entries, counts, families, of_family, row
from karat24.refimpl.profiles import CANONICAL

_WAYS = ("whole", "tiles", "tiles repaired", "halo", "halo repaired", "blend", "blend repaired")
MAIN = (
    "noisy", "nlm", "tv", "float whole", "float tiles", "float blend",
    *(f"{scheme} {way}" for scheme in SCHEMES for way in _WAYS),
    *(f"aware-{scheme} {way}" for scheme in SCHEMES for way in (*_WAYS, "unrounded")),
    "transposed whole", "transposed-int8 whole",
)  # fmt: skip
"""The methods of the main table; the others are in the report and the JSON file."""

COUNTED = ("noisy", "nlm", "tv", "float whole", "int8 tiles", "int8 tiles repaired",
           "uint8-2019 tiles", "uint8-2019 tiles repaired", "aware-int8 blend", "aware-int8 blend repaired",
           "aware-uint8-2019 blend", "aware-uint8-2019 blend repaired")  # fmt: skip
IN_SHORT = ("noisy", "tv", "float whole", "int8 tiles repaired", "aware-int8 blend repaired",
            "aware-uint8-2019 blend repaired")  # fmt: skip
"""The methods of the README's table."""

BEST = ("aware-int8 blend repaired", "aware-uint8-2019 blend repaired")


def schemes(entries: Entries) -> str:
    """The table of the methods in :data:`MAIN`."""
    return _methods(entries, [name for name in entries if name in MAIN])


def in_short(entries: Entries) -> str:
    """The table of the methods in :data:`IN_SHORT`."""
    lines = []
    for name in IN_SHORT:
        if name in entries:
            found = row(entries, name)
            to_float = "" if found.to_float is None or name == "noisy" else f"{found.to_float:+.4f}"
            lines.append((found.title, f"{found.ssim:.4f}", to_float, f"{found.psnr:.2f}"))
    return table(("", "SSIM", "over float", "PSNR dB"), lines)


def others(entries: Entries) -> str:
    """The table of every other method that saw all slices."""
    return _methods(entries, [name for name in entries if name not in MAIN and not METHODS[name].few])


def _methods(entries: Entries, names: Sequence[str]) -> str:
    lines = []
    for name in names:
        found = row(entries, name)
        to_float = "" if found.to_float is None or name == "noisy" else f"{found.to_float:+.4f}"
        gain = "" if name == "noisy" else f"{found.gain:+.4f}"
        lines.append(
            (found.title, f"{found.ssim:.4f}", gain, to_float, f"{found.psnr:.2f}",
             f"{found.worst_ssim:.3f} ({found.worst})")
        )  # fmt: skip
    return table(("", "SSIM", "over noisy", "over float", "PSNR dB", "worst slice"), lines)


def by_family(entries: Entries) -> str:
    """Mean SSIM of the main methods for each family; families that were never trained on are in bold."""
    names = [name for name in (*COUNTED[:4], *BEST) if name in entries]
    lines = []
    for family in families(entries):
        slices = of_family(entries, family)
        title = f"**{family}**" if family in HELD_OUT else family
        lines.append(
            (f"{title} ({len(slices)})", *(f"{row(entries, name, slices).ssim:.4f}" for name in names))
        )
    heads = [
        METHODS[name].title.replace(f", quantization-aware, {COVERS['blend']}", ", blended") for name in names
    ]
    return table(("family (slices)", *heads), lines)


def profiles(entries: Entries) -> str:
    """Mean SSIM over a few slices under each profile, and its difference to the canonical one."""
    lines = []
    for profile in (CANONICAL, *PROFILES):
        cells = []
        for scheme in SCHEMES:
            name = f"{scheme} whole" if profile == CANONICAL else f"{scheme} {profile}"
            cells.append(_against(entries, name, f"{scheme} whole"))
        lines.append((f"`{profile}`", *cells))
    return table(("whole image", *SCHEMES), lines) + _seen(entries, f"{SCHEMES[0]} {PROFILES[0]}")


def steps(entries: Entries) -> str:
    """The gain of each step of post-training quantization on its own."""
    lines = []
    first = next(iter(STEPS))
    for step in STEPS:
        cells = [_against(entries, f"{scheme} {step}", f"{scheme} {first}") for scheme in SCHEMES]
        lines.append((step, *cells))
    floats = [f"{row(entries, 'float whole', entries[f'{s} {first}']).ssim:.4f}" if f"{s} {first}" in entries
              else "" for s in SCHEMES]  # fmt: skip
    lines.append(("float", *floats))
    return table(("whole image", *SCHEMES), lines) + _seen(entries, f"{SCHEMES[0]} {first}")


def inclusions(entries: Entries) -> str:
    """Bright and dark inclusions kept, lost and invented, over all slices and over the held-out families."""
    everything, held_out = list(entries["noisy"]), of_family(entries, *HELD_OUT)
    lines = []
    for name in COUNTED:
        if name not in entries:
            continue
        cells = []
        for slices in (everything, held_out):
            for polarity, found in counts(entries, name, slices).items():
                assert polarity in ("bright", "dark")
                cells.append(f"{found['kept']} / {found['lost']} / {found['invented']}")
        lines.append((METHODS[name].title, *cells))
    held = ", ".join(HELD_OUT)
    heads = ("kept / lost / invented", "bright", "dark", f"bright, {held}", f"dark, {held}")
    return table(heads, lines)


TABLES: Mapping[str, Callable[[Entries], str]] = {
    "in short": in_short, "schemes": schemes, "others": others, "families": by_family,
    "profiles": profiles, "steps": steps, "inclusions": inclusions,
}  # fmt: skip


def texts(entries: Entries) -> dict[str, str]:
    """Every table, by the name of its place (see ``benchmarks.markdown``)."""
    return {f"quality: {name}": make(entries) for name, make in TABLES.items()}


def report(entries: Entries) -> str:
    """All tables, each between its markers."""
    return "\n\n".join(marked(name, text) for name, text in texts(entries).items()) + "\n"


def _against(entries: Entries, name: str, base: str) -> str:
    """Mean SSIM, and its difference to another method on equal slices."""
    if name not in entries or base not in entries:
        return "not run"
    slices = [key for key in entries[name] if METHODS[name].few or key in _few(entries)]
    if not slices:
        return "not run"
    found, reference = row(entries, name, slices), row(entries, base, slices)
    return f"{found.ssim:.5f}" + ("" if name == base else f" ({found.ssim - reference.ssim:+.5f})")


def _few(entries: Entries) -> set[str]:
    """The slices of methods marked ``few``."""
    return {key for name, own in entries.items() if METHODS[name].few for key in own}


def _seen(entries: Entries, name: str) -> str:
    return f"\nMean SSIM over {len(entries[name])} slices.\n" if name in entries else ""
