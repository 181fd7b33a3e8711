"""The demonstration: a noisy scan restored in int8, and every runtime held to its arithmetic."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from karat24.delegates import Delegate, delegate_named
from karat24.export import write_model
from karat24.export.quantize import (
    PRESETS,
    QuantizationScheme,
    calibrate,
    output_range,
    quantize_graph,
    quantize_learnt,
    quantize_model,
)
from karat24.golden.diff import diff_arrays
from karat24.golden.report import Mode
from karat24.golden.verify import verify
from karat24.real_values import quantize_values
from karat24.refimpl.errors import DelegateError
from karat24.refimpl.graph import Array, Graph
from karat24.refimpl.networks import Upsampling, fine_tune, learnt_ranges, tomogan, trained_weights
from karat24.refimpl.profiles import CANONICAL
from karat24.tomography.calibration_inputs import simulated, spread, tiles_of
from karat24.tomography.imaging.simulate import simulate_slices
from karat24.tomography.panels import Panel, save_panels, similarity
from karat24.tomography.restoration import (
    on_onnx_runtime,
    on_oracle,
    restore,
)
from karat24.tomography.tiles import TileGrid

CALIBRATION_SIZE = 512
"""Greatest size of calibration slices, pixels: ranges hold at every size."""

JUDGED_LANES = ("litert-ref", "litert-builtin", "litert-xnnpack")
MOST_JUDGED = 256
"""Tiles whose outputs are compared, evenly spread: the reference kernels take a third of a second for one."""

MODES: tuple[Mode, ...] = ("isolated", "cumulative")
Say = Callable[[str], None]


@dataclass(frozen=True)
class Options:
    """Options of the demonstration: image and tile size in pixels, the tiles' overlap (see ``TileGrid``),
    TomoGAN's variant, the sample's family and seed."""

    size: int = 1024
    tile: int = 64
    halo: int = 0
    blend: int = 39
    upsampling: Upsampling = "bilinear"
    family: str = "spheres"
    seed: int = 0

    @property
    def repaired(self) -> tuple[int, int]:
        """Height and width of what Fine-Tune sees."""
        side = self.tile if self.blend else self.size
        return side, side


def run_demo(options: Options, folder: Path, say: Say) -> int:
    """Runs the demonstration, writes models and pictures to ``folder``, returns the exit code.

    0 when every value of every layer and of every tile compared is equal on every
    runtime, 1 when something differs, 3 when a runtime could not be compared. The pictures come first:
    judging takes the most time.
    """
    folder.mkdir(parents=True, exist_ok=True)
    say(f"simulating a {options.size}×{options.size} slice of the family {options.family!r} …")
    scan = simulate_slices(options.family, options.size, options.seed, split="test")
    noisy, clean = scan.noisy[0], scan.clean[0]
    say(f"  {scan.meta['angles']} projections, {scan.beam.dose:.0f} photons per bin")

    say("quantizing TomoGAN and Fine-Tune …")
    graphs = quantized_networks(options.upsampling, options)
    for name, graph in graphs.items():
        (folder / f"{name}.tflite").write_bytes(write_model(graph))

    say("restoring on the oracle, " + CANONICAL + " …")
    oracle = {name: on_oracle(graph, CANONICAL) for name, graph in graphs.items()}
    result = restore(noisy, oracle["tomogan"], oracle["fine-tune"], options.halo, options.blend)
    say("  " + ", ".join(f"{part} {seconds:.3f} s" for part, seconds in result.seconds.items()))

    exact = tomogan(
        options.size, options.size, options.upsampling, trained_weights("tomogan", options.upsampling)
    )
    float_result = on_onnx_runtime(exact)(noisy[None])[0, ..., 0]
    panels = [
        Panel("noisy", noisy[..., 1]),
        Panel("float TomoGAN", float_result),
        Panel("int8 TomoGAN", result.tomogan),
        Panel("int8 + Fine-Tune", result.final),
        Panel("clean", clean),
    ]
    scores = ", ".join(f"{panel.title} {similarity(clean, panel.image):.4f}" for panel in panels[:-1])
    say(f"structural similarity to the clean slice: {scores}")
    for path in save_panels(panels, clean, folder):
        say(f"wrote {path}")

    grid = TileGrid(options.size, options.size, options.tile, options.tile, options.halo, options.blend)
    tiles = np.stack(spread(grid.cut(noisy), MOST_JUDGED))
    seen = {"tomogan": tiles, "fine-tune": result.tomogan[None, ..., None]}
    if options.blend:
        seen["fine-tune"] = np.concatenate([oracle["tomogan"](tile[None]) for tile in tiles])
    feeds = {
        name: quantize_values(seen[name], graph.tensors[graph.inputs[0]]) for name, graph in graphs.items()
    }
    codes = [judge(lane, graphs, feeds, grid.count, say) for lane in JUDGED_LANES]
    return worst(codes)


def quantized_networks(upsampling: Upsampling, options: Options) -> dict[str, Graph]:
    """TomoGAN for tiles and Fine-Tune for what follows them (the image, or tiles that are to be blended), in
    int8: trained for it where such weights ship, else calibrated."""
    scheme = PRESETS["int8"]
    weights = trained_weights("tomogan", upsampling, aware=True)
    repair = trained_weights("fine-tune", aware=True)
    if weights is not None and repair is not None:
        first = tomogan(options.tile, options.tile, upsampling, weights)
        second = fine_tune(*options.repaired, repair)
        return {
            "tomogan": quantize_learnt(first, learnt_ranges(weights), scheme),
            "fine-tune": quantize_learnt(second, learnt_ranges(repair), scheme),
        }
    return calibrated_networks(upsampling, scheme, options)


def calibrated_networks(
    upsampling: Upsampling, scheme: QuantizationScheme, options: Options
) -> dict[str, Graph]:
    """TomoGAN calibrated on tiles of other scans, Fine-Tune on TomoGAN's result for one of them."""
    size = min(options.size, CALIBRATION_SIZE)
    weights, repair = trained_weights("tomogan", upsampling), trained_weights("fine-tune")
    slices = simulated(size, 3, options.seed)
    exact = tomogan(options.tile, options.tile, upsampling, weights)
    first = quantize_model(exact, tiles_of(slices, options.tile, options.tile), scheme)
    restored = restore(slices[0], on_oracle(first, CANONICAL), halo=options.halo).tomogan
    ranges = calibrate(fine_tune(size, size, repair), [restored[None, ..., None]], scheme.range_method)
    second = fine_tune(*options.repaired, repair)
    ranges[second.inputs[0]] = output_range(first)
    return {"tomogan": first, "fine-tune": quantize_graph(second, ranges, scheme)}


def judge(lane: str, graphs: dict[str, Graph], feeds: dict[str, Array], tiles: int, say: Say) -> int:
    """Holds one runtime to its profile: every layer of each graph on one input, the output of all.

    ``feeds`` are quantized inputs ``[n, y, x, channel]`` by graph, of ``tiles`` tiles in the image.
    """
    with delegate_named(lane) as delegate:
        probe = delegate.probe()
        if not probe.available:
            say(f"{lane}: cannot be compared: {probe.reason}")
            return 3
        codes = []
        for name, graph in graphs.items():
            middle = feeds[name][len(feeds[name]) // 2][None]
            for mode in MODES:
                report = verify(write_model(graph), graph, delegate, [[middle]], mode=mode)
                say(f"{name}: {report.table()}")
                codes.append(report.exit_code())
        for name, graph in graphs.items():
            shown = f"{name}, {len(feeds[name])} of {tiles} tiles" if len(feeds[name]) > 1 else name
            codes.append(judge_outputs(delegate, graph, feeds[name], shown, say))
    return worst(codes)


def judge_outputs(delegate: Delegate, graph: Graph, feeds: Array, shown: str, say: Say) -> int:
    """Compares every output value for inputs ``[n, y, x, channel]``; ``shown`` says what they are."""
    model, expected = write_model(graph), on_oracle(graph, delegate.profile)
    began = time.perf_counter()
    answers = list(delegate.run_many([(model, [given[None]]) for given in feeds]))
    middle = time.perf_counter()
    differing = values = 0
    for given, answer in zip(feeds, answers, strict=True):
        if isinstance(answer, DelegateError):
            say(f"{delegate.name}: cannot be compared: {answer}")
            return 3
        diff = diff_arrays(expected.run(given[None]), answer.outputs[0])
        differing += diff.mismatch_count
        values += diff.elements
    say(
        f"{shown}: {differing} of {values} values differ between {delegate.name} "
        f"({middle - began:.1f} s) and {delegate.profile} ({time.perf_counter() - middle:.1f} s)"
    )
    return 1 if differing else 0


def worst(codes: Iterable[int]) -> int:
    """A mismatch outweighs what could not be compared, which outweighs a match."""
    return max(codes, key=(0, 3, 1).index)
