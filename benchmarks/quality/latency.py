"""Seconds for one image, part by part, as in the paper's Table I: TomoGAN on 64×64 tiles, stitching, and
Fine-Tune on the whole image, on every available runtime in turn.

The restored image of every runtime that a profile describes is first compared, value by value, with the
oracle's. (ONNX Runtime with default settings keeps int8 activations in float between some layers; no profile
describes that.)
"""

from __future__ import annotations

import json
import os
import statistics
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.markdown import table
from benchmarks.quality.cases import Case, load_slice
from benchmarks.quality.plans import PLANS, TILE, Say, WeightFiles, load_model, prepare
from karat24.delegates.onnx_lanes import INTEGER_LANE
from karat24.export import write_model
from karat24.export.onnx import lower_qdq, to_onnx
from karat24.export.onnx.layout import from_onnx_layout, to_onnx_layout
from karat24.golden.provenance import cpu_name
from karat24.refimpl.engine import compile_graph
from karat24.refimpl.errors import UsageError
from karat24.refimpl.graph import Array, Graph
from karat24.tomography.restoration import Network, restore

PARTS = ("tomogan", "stitching", "fine_tune")
PAPER: Mapping[str, tuple[float, float | None, float | None]] = {
    "Edge TPU, USB accelerator (2019)": (0.435, 0.049, 0.070),
    "Edge TPU, Dev Board (2019)": (0.512, 0.120, 0.166),
    "Jetson TX2 (2019)": (0.880, None, None),
    "i7 CPU, float (2019)": (1.537, None, None),
}
"""Seconds for a 1024×1024 image: Abeykoon et al., "Scientific Image Restoration Anywhere", Table I."""

Build = Callable[[Graph, int], Network]


@dataclass(frozen=True)
class Runtime:
    """A runtime, the plan whose models it runs, and the profile it is compared with, if any."""

    title: str
    plan: str
    build: Build
    profile: str = ""


@dataclass(frozen=True)
class Latency:
    """Medians in seconds by runtime and part; ``differing`` is the number of values that are not the
    oracle's."""

    size: int
    threads: int
    rounds: int
    medians: dict[str, dict[str, float]]
    differing: dict[str, int]


def oracle(profile: str) -> Build:
    """The oracle under a profile."""

    def build(graph: Graph, threads: int) -> Network:
        program = compile_graph(graph, profile, threads)
        return Network(graph, lambda values: program.run([values]).outputs[0])

    return build


def oracle_of_onnx(profile: str) -> Build:
    """The oracle on the graph ONNX Runtime makes of the exported one."""

    def build(graph: Graph, threads: int) -> Network:
        program = compile_graph(lower_qdq(to_onnx(graph, "qdq"), int8_allowed=True), profile, threads)
        return Network(graph, _between_layouts(lambda values: program.run([values]).outputs[0]))

    return build


def litert(resolver: str) -> Build:
    """LiteRT with one of its op resolvers, in this process."""

    def build(graph: Graph, threads: int) -> Network:
        from ai_edge_litert.interpreter import Interpreter, OpResolverType

        interpreter = Interpreter(
            model_content=write_model(graph), num_threads=threads,
            experimental_op_resolver_type=OpResolverType[resolver],
        )  # fmt: skip
        interpreter.allocate_tensors()
        (given,), (output,) = interpreter.get_input_details(), interpreter.get_output_details()

        def run(values: Array) -> Array:
            interpreter.set_tensor(given["index"], values)
            interpreter.invoke()
            found: Array = interpreter.get_tensor(output["index"])
            return found

        return Network(graph, run)

    return build


def onnx_runtime(settings: Mapping[str, str]) -> Build:
    """ONNX Runtime on the exported graph, with session settings."""

    def build(graph: Graph, threads: int) -> Network:
        return _onnx_runtime(graph, threads, settings)

    return build


def _onnx_runtime(graph: Graph, threads: int, settings: Mapping[str, str]) -> Network:
    import onnxruntime

    model = write_model(graph, "onnx")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    for key, value in settings.items():
        options.add_session_config_entry(key, value)
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return Network(graph, _between_layouts(lambda values: session.run(None, {name: values})[0]))


RUNTIMES = (
    Runtime("oracle, int8", "int8", oracle("litert-2.3-xnnpack")),
    Runtime("LiteRT XNNPACK, int8", "int8", litert("AUTO"), "litert-2.3-xnnpack"),
    Runtime(
        "LiteRT builtin, int8", "int8", litert("BUILTIN_WITHOUT_DEFAULT_DELEGATES"), "litert-2.3-builtin"
    ),
    Runtime("ONNX Runtime, int8", "int8", onnx_runtime({})),
    Runtime("ONNX Runtime, int8, edges kept int8", "int8", onnx_runtime(INTEGER_LANE), "ort-1.31"),
    Runtime("ONNX Runtime, float", "float", onnx_runtime({})),
    Runtime("LiteRT XNNPACK, float", "float", litert("AUTO")),
)


def time_restorations(
    folder: Path, size: int, files: WeightFiles, rounds: int, threads: int | None, say: Say
) -> Latency:
    """Restores one image on each runtime in turn, ``rounds`` times. Raises UsageError."""
    if rounds < 1:
        raise UsageError(f"{rounds} rounds; at least one is needed")
    threads = threads or os.cpu_count() or 1
    models = folder / "models"
    prepare(
        models, files, say, [plan for plan in PLANS if plan.name in {runtime.plan for runtime in RUNTIMES}]
    )
    noisy = load_slice(Case("spheres", 0, size), folder).noisy
    networks: dict[str, tuple[Network, Network]] = {}
    differing = {}
    for runtime in RUNTIMES:
        graphs = (
            load_model(models, f"{runtime.plan}/tomogan"),
            load_model(models, f"{runtime.plan}/fine-tune", size),
        )
        tomogan, fine_tune = (runtime.build(graph, threads) for graph in graphs)
        networks[runtime.title] = tomogan, fine_tune
        found = restore(noisy, tomogan, fine_tune)
        if runtime.profile:
            build = oracle_of_onnx if runtime.profile.startswith("ort") else oracle
            judge = restore(noisy, *(build(runtime.profile)(graph, threads) for graph in graphs))
            differing[runtime.title] = sum(
                int(np.count_nonzero(mine != theirs))
                for mine, theirs in ((judge.tomogan, found.tomogan), (judge.final, found.final))
            )
            values = f"{differing[runtime.title]} of {2 * size**2} values"
            say(f"{runtime.title}: {values} differ from {runtime.profile}")
    times: dict[str, dict[str, list[float]]] = {name: {part: [] for part in PARTS} for name in networks}
    for number in range(rounds):
        for name, pair in networks.items():
            seconds = restore(noisy, *pair).seconds
            for part in PARTS:
                times[name][part].append(seconds[part])
        say(f"round {number + 1} of {rounds}")
    medians = {
        name: {part: statistics.median(values) for part, values in parts.items()}
        | {"total": statistics.median(map(sum, zip(*parts.values(), strict=True)))}
        for name, parts in times.items()
    }
    return Latency(size, threads, rounds, medians, {name: n for name, n in differing.items() if n})


def table_of(found: Latency) -> str:
    """The Markdown table, with the paper's rows below the measured ones."""
    lines = []
    for name, parts in found.medians.items():
        cells = [name, *(f"{parts[part]:.3f}" for part in (*PARTS, "total"))]
        lines.append([*cells[:-1], cells[-1] + (" (differs)" if name in found.differing else "")])
    for name, seconds in PAPER.items():
        total = sum(value or 0.0 for value in seconds)
        lines.append([name, *("–" if value is None else f"{value:.3f}" for value in seconds), f"{total:.3f}"])
    tiles = (found.size // TILE) ** 2
    heads = (
        f"seconds, {found.size}×{found.size}",
        f"TomoGAN, {tiles} tiles",
        "stitching",
        "Fine-Tune",
        "total",
    )
    return table(heads, lines) + (
        f"\nMedians of {found.rounds} interleaved rounds, {found.threads} threads, {cpu_name()}; "
        "the rows of 2019 are from the paper, for 1024×1024.\n"
    )


def draw(found: Latency, path: Path) -> Path:
    """Draws the medians as stacked bars; returns the path of the picture."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    rows: dict[str, Any] = {name: [parts[part] for part in PARTS] for name, parts in found.medians.items()}
    if found.size == 1024:
        rows |= {name: [value or 0.0 for value in seconds] for name, seconds in PAPER.items()}
    figure, axis = plt.subplots(figsize=(8.0, 0.4 * len(rows) + 1.3), constrained_layout=True)
    left = np.zeros(len(rows))
    for number, part in enumerate(("TomoGAN", "stitching", "Fine-Tune")):
        widths = np.array([values[number] for values in rows.values()])
        bars = axis.barh(list(rows), widths, left=left, label=part)
        for bar, name in zip(bars, rows, strict=True):
            if name in PAPER:
                bar.set_alpha(0.45)
        left += widths
    for place, (name, end) in enumerate(zip(rows, left, strict=True)):
        total = found.medians[name]["total"] if name in found.medians else end  # the order of the table
        axis.annotate(
            f"{total:.3f} s", (end, place), (4, 0), textcoords="offset points", va="center", fontsize=9
        )
    axis.set_xlim(0, 1.15 * left.max())
    axis.invert_yaxis()
    axis.set_xlabel(f"seconds for one {found.size}×{found.size} image (pale: the paper's, 1024×1024)")
    axis.legend(loc="lower right", fontsize=9)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)
    return path


def keep(found: Latency, path: Path) -> None:
    """Writes the figures, and everything they depend on."""
    content = asdict(found) | {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "cpu": cpu_name(),
        "versions": {name: version(name) for name in ("numpy", "numba", "ai-edge-litert", "onnxruntime")},
        "paper": PAPER,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _between_layouts(run: Callable[[Array], Array]) -> Callable[[Array], Array]:
    """A function of NCHW images as one of NHWC images."""

    def between(values: Array) -> Array:
        return np.ascontiguousarray(from_onnx_layout(run(to_onnx_layout(values))))

    return between
