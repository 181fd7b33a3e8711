"""``karat24 warmup``: compile the kernels before they are needed."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import TYPE_CHECKING

from karat24.cli import options as shared

if TYPE_CHECKING:
    from karat24.refimpl.graph import Graph

HELP = "compile all kernels a convolutional network needs, for images and CI"
EPILOG = """examples:
  karat24 warmup
  KARAT24_CACHE_DIR=/opt/karat24-cache karat24 warmup     (then set it at run time, too)

Compiled code is kept per instruction set and processor. It is used only where processor,
sources and versions are the same; everything else is compiled anew."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's options."""
    shared.add_threads(parser)


def run(options: argparse.Namespace) -> int:
    """Compiles, with a bar on a terminal, and prints the number of layers, the time and the folder."""
    import time

    from karat24.refimpl.kernels.jit.compile_cache import cache_directory
    from karat24.refimpl.kernels.jit.isa import chosen_isa
    from karat24.refimpl.warmup import warm_up

    start = time.perf_counter()
    isa = chosen_isa()
    runs = warm_up(options.threads, _bar)
    print(f"{runs} layers run for {isa} in {time.perf_counter() - start:.1f} s; kept in {cache_directory()}")
    return 0


def _bar(layers: list[tuple[str, Graph]]) -> Iterator[tuple[str, Graph]]:
    from tqdm import tqdm

    bar = tqdm(layers, desc="karat24 warmup", unit="layer", leave=False, disable=None)
    for name, graph in bar:
        bar.set_postfix_str(name)
        yield name, graph
