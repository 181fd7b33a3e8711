"""What will be done, found out before anything is written."""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numba
import numpy as np

from karat24.refimpl import __version__
from karat24.refimpl.errors import UsageError
from karat24.refimpl.profiles import CANONICAL
from karat24.tomography.honesty.mixing import check_strength
from karat24.tomography.honesty.noise import measure_noise
from karat24.tomography.scan.greyscale import choose
from karat24.tomography.scan.manifest import Manifest
from karat24.tomography.scan.outputs import format_of
from karat24.tomography.scan.outputs.encoding import Encoding
from karat24.tomography.scan.recipe import Quality, bytes_needed, recipe_for
from karat24.tomography.scan.sampling import Sample, take_sample
from karat24.tomography.scan.volumes import Source, Volume, open_volume
from karat24.tomography.scan.window import window_of

SHARE_OF_MEMORY = 0.8
"""What is taken of the memory that is free, unless the user says how much."""


NOISE_SLICES = 3


@dataclass(frozen=True)
class Options:
    """What the user asks for; None leaves the choice to the plan.

    ``slices`` are the first slice and the one behind the last. ``span`` are the values that become grey 0.1
    and 0.9. ``mask`` is the value of pixels without a measurement. ``strength`` is that of
    :func:`karat24.tomography.honesty.mixing.mix`. ``skip_clean`` leaves slices as they are that the selector
    finds clean. ``max_memory`` is in bytes, for all processes.
    """

    slices: tuple[int | None, int | None] = (None, None)
    span: tuple[float, float] | None = None
    mask: float | None = None
    dtype: str = "float32"
    quality: Quality = "fast"
    profile: str = CANONICAL
    strength: float = 1.0
    skip_clean: bool = False
    max_memory: int | None = None
    workers: int | None = None
    command: Sequence[str] = ()


@dataclass(frozen=True)
class Plan:
    """An agreed run: its manifest, the volume, the processes and their threads, and what to tell the user."""

    manifest: Manifest
    volume: Volume
    sample: Sample
    workers: int
    threads: int
    worker_bytes: int
    warnings: tuple[str, ...]

    @property
    def slice_bytes(self) -> int:
        """Bytes of a stored slice."""
        _, height, width = self.volume.about.shape
        return height * width * np.dtype(self.manifest.encoding.dtype).itemsize

    @property
    def output_bytes(self) -> int:
        """Room that the output takes; a single file is made of slices that are still there."""
        copies = 1 if format_of(self.manifest.out) in ("tiff", "ome-zarr") else 2
        return copies * self.manifest.count * self.slice_bytes

    def lines(self) -> list[str]:
        """The plan for people, without its warnings."""
        about, manifest = self.volume.about, self.manifest
        depth, height, width = about.shape
        scale, mask = manifest.scale, manifest.mask
        voxel = ""
        if about.voxel is not None:
            voxel = f", voxel {' × '.join(f'{size:g}' if size else '?' for size in about.voxel)} µm"
        lines = [
            f"input    {manifest.source.path}: {about.kind}, {depth} slices of {height} × {width} "
            f"{about.dtype}{voxel}",
            f"         {about.names[0]} … {about.names[-1]}",
            f"output   {manifest.out}: slices {manifest.first} to {manifest.first + manifest.count - 1} as "
            f"{manifest.encoding.dtype}, {self.output_bytes / 1e9:.3g} GB",
            f"scale    {scale.low:.6g} to {scale.high:.6g} become 0.1 and 0.9 of the network's range, for "
            f"all slices",
            f"mask     {mask.describe() if mask else 'none'}: {100 * self.sample.masked:.3g} % of the pixels",
            f"network  {manifest.recipe.describe()}, int8, {manifest.recipe.profile}",
            f"noise    {_noise_line(manifest)}",
            f"run      {self.workers} processes of {self.threads} threads, {self.worker_bytes / 1e9:.2g} GB "
            f"each",
        ]
        if manifest.recipe.selector:
            lines.append("skipped  slices that look clean to the slice selector stay as they are")
        if manifest.encoding.slope != 1.0 or manifest.encoding.offset:
            lines.append(
                f"stored   value = {manifest.encoding.offset!r} + {manifest.encoding.slope!r} × stored number"
            )
        return lines + [f"note     {remark}" for remark in about.remarks]


def _noise_line(manifest: Manifest) -> str:
    noise = manifest.noise
    views = f"about {noise.views} views" if noise.views else "enough views for the size"
    line = f"{noise.deviation:.4f} of the grey range where it is least, {views}"
    if noise.cleanness:
        line += (
            f"; {100 * noise.cleanness:.0f} % of what the network takes away is given back: hardly any noise"
        )
    if manifest.strength < 1.0:
        line += f"; strength {manifest.strength:g}"
    return line


def make_plan(source: Source, out: Path, options: Options) -> Plan:
    """Reads the inventory and a sample, and settles everything.

    Raises UsageError for options and paths that cannot be used, FeedError for a volume that cannot.
    """
    _require_apart(source.path, out)
    check_strength(options.strength)
    volume = open_volume(source)
    about = volume.about
    first, count = _chosen_slices(options.slices, about.shape[0])
    sample = take_sample(volume, options.mask, options.span is None or options.mask is None)
    chosen = choose(sample.ordered, options.span)
    warnings = (*chosen.warnings, *_constant_slices(sample.constant))
    shape = (about.shape[1], about.shape[2])
    memory = options.max_memory or _available_memory()
    per_process = None if memory is None else memory // (options.workers or 1)
    recipe = recipe_for(options.quality, options.profile, shape, per_process, options.skip_clean)
    needed = bytes_needed(shape, recipe.tile, recipe.halo, recipe.blend)
    processors = _processors()
    workers = options.workers or max(1, min(processors, count, (memory or needed * processors) // needed))
    manifest = Manifest(
        version=__version__,
        source=Source(source.path.resolve(), source.dataset, source.axis, source.allow_gaps),
        out=out.resolve(),
        input={
            "kind": about.kind,
            "shape": " × ".join(map(str, about.shape)),
            "dtype": about.dtype.name,
            "sampled pixels": sample.digest,
            **about.identity,
        },
        recipe=recipe,
        scale=chosen.scale,
        mask=sample.mask,
        encoding=Encoding.of(options.dtype, about.dtype, chosen.scale),
        noise=measure_noise(
            [window_of(volume, index, chosen.scale, sample.mask).grey for index in _for_noise(about.shape[0])]
        ),
        strength=options.strength,
        first=first,
        count=count,
        told={"command": shlex.join(options.command), "warnings": list(warnings)},
    )
    # NUMBA_NUM_THREADS in the environment bounds what a process may take.
    threads = max(1, min(processors // workers, int(vars(numba.config)["NUMBA_NUM_THREADS"])))
    return Plan(manifest, volume, sample, workers, threads, needed, warnings)


def _constant_slices(names: Sequence[str]) -> list[str]:
    if not names:
        return []
    return [
        f"{len(names)} of the sampled slices hold one value only, first {names[0]}: was the volume "
        "reconstructed to its end?"
    ]


def _for_noise(depth: int) -> list[int]:
    """Slices in which the noise is measured, with a neighbour on both sides where there are such."""
    inner = range(1, depth - 1) if depth > 2 else range(depth)
    return sorted({inner[(len(inner) - 1) * part // (NOISE_SLICES - 1)] for part in range(NOISE_SLICES)})


def require_space(plan: Plan, todo: int) -> None:
    """Raises UsageError when the slices that are left do not fit on the disk."""
    folder = plan.manifest.out.parent
    copies = plan.output_bytes // (plan.manifest.count * plan.slice_bytes)
    needed = copies * todo * plan.slice_bytes
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise UsageError(
            f"{folder}: {todo} slices take {needed / 1e9:.3g} GB and {free / 1e9:.3g} GB are free; free some "
            "space, or name another folder"
        )


def _require_apart(scan: Path, out: Path) -> None:
    """Raises UsageError for an output that is the input, or lies inside of it, or has nowhere to lie."""
    a, b = scan.resolve(), out.resolve()
    if a == b or a in b.parents:
        raise UsageError(f"{out}: lies in the scan {scan}; nothing is written there. Name a place beside it")
    if b in a.parents:
        raise UsageError(f"{out}: holds the scan {scan}; name a folder of its own")
    if not b.parent.is_dir():
        raise UsageError(f"{out}: folder {b.parent} does not exist; create it first")
    if not os.access(b.parent, os.W_OK):
        raise UsageError(f"{out}: folder {b.parent} cannot be written")


def _chosen_slices(slices: tuple[int | None, int | None], depth: int) -> tuple[int, int]:
    first = 0 if slices[0] is None else slices[0]
    stop = depth if slices[1] is None else slices[1]
    if not 0 <= first < stop <= depth:
        raise UsageError(f"--slices {first}:{stop}: the volume has slices 0 to {depth - 1}, as 0:{depth}")
    return first, stop - first


def _processors() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _available_memory() -> int | None:
    """Bytes that can be had without swapping, None where the system does not say."""
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            for line in file:
                if line.startswith("MemAvailable:"):
                    return int(int(line.split()[1]) * 1024 * SHARE_OF_MEMORY)
    except (OSError, ValueError, IndexError):
        pass
    return None
