"""The contestants: oracles and runtimes, and the model file that each one is given."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any, Literal, TypeAlias

from karat24.delegates import DELEGATES, delegate_named
from karat24.delegates.edgetpu import EDGETPU_DEVICE, EDGETPU_LIBRARY
from karat24.delegates.onnx_lanes import ONNX_LANES
from karat24.delegates.table import EDGETPU_LANE, TFLITE_LANES
from karat24.delegates.tflite import python_for
from karat24.export import graph_under, read_model, write_model
from karat24.refimpl.errors import UsageError
from karat24.refimpl.graph import Array, Format, Graph
from karat24.refimpl.kernels.jit import isa
from karat24.refimpl.profiles import PROFILES, profile_for

Kind: TypeAlias = Literal["oracle", "tflite", "onnx"]

ORACLE = "oracle"


@dataclass(frozen=True)
class Subject:
    """A model file, its graph, and its feeds in input order.

    Outputs are compared between contestants of one subject only.
    """

    content: bytes
    graph: Graph
    feeds: tuple[Array, ...]

    @property
    def format(self) -> Format:
        """The format of the model file."""
        return self.graph.format


@dataclass(frozen=True)
class Contestant:
    """An oracle or a runtime that runs a subject; ``stopwatch`` reads ``lane`` and ``kind``.

    ``profile`` is the arithmetic the oracle runs, or the one a runtime is held to; empty where none
    describes it. ``environment`` is set in its process before anything is imported.
    """

    name: str
    kind: Kind
    subject: Subject
    profile: str
    threads: int
    lane: Mapping[str, Any]
    python: str = sys.executable
    traced: bool = False
    environment: Mapping[str, str] = field(default_factory=dict)


def oracle(
    subject: Subject,
    profile: str | None = None,
    threads: int = 1,
    instruction_set: str | None = None,
    traced: bool = False,
) -> Contestant:
    """The oracle under a profile (the canonical one of the format), on an instruction set (the best).

    Raises UsageError for a profile of another format and an instruction set this machine has not.
    """
    named = profile_for(subject.graph, profile)
    graph_under(subject.graph, named)
    name = f"{ORACLE} {named.name}"
    environment = {}
    if instruction_set is not None:
        if instruction_set not in isa.FEATURES:
            raise UsageError(f"no instruction set {instruction_set!r}; known: {', '.join(isa.FEATURES)}")
        reason = isa.why_not(instruction_set)
        if reason is not None:
            raise UsageError(f"instruction set {instruction_set} cannot run here: {reason}")
        environment[isa.VARIABLE] = instruction_set
        name += f" {instruction_set}"
    lane = {"profile": named.name, "traced": traced}
    return Contestant(
        name + " traced" * traced, "oracle", subject, named.name, threads, lane,
        traced=traced, environment=environment,
    )  # fmt: skip


def runtime(subject: Subject, delegate: str, threads: int = 1, profile: str | None = None) -> Contestant:
    """A runtime, by its delegate's name, held to ``profile`` (the one that describes it).

    Raises UsageError for a delegate that cannot be timed, and for a subject of another format.
    """
    held_to = "" if profile is None else profile_for(subject.graph, profile).name
    for lane in (*TFLITE_LANES, EDGETPU_LANE):
        if lane.name == delegate:
            wanted: dict[str, Any] = {"packages": lane.packages, "resolver": lane.resolver}
            if lane is EDGETPU_LANE:
                chosen = os.environ.get(EDGETPU_DEVICE, "")
                wanted |= {"device": chosen, "library": os.environ.get(EDGETPU_LIBRARY)}
            _check_format(delegate, "tflite", subject)
            return Contestant(
                delegate, "tflite", subject, held_to or lane.profile, threads, wanted, python_for(lane)
            )
    for onnx_lane in ONNX_LANES:
        if onnx_lane.name == delegate:
            _check_format(delegate, "onnx", subject)
            names = {
                kind: [subject.graph.tensors[index].name for index in indices]
                for kind, indices in (("inputs", subject.graph.inputs), ("outputs", subject.graph.outputs))
            }
            wanted = {
                "provider": onnx_lane.provider, "level": onnx_lane.level,
                "entries": dict(onnx_lane.entries), **names,
            }  # fmt: skip
            return Contestant(delegate, "onnx", subject, held_to or onnx_lane.profile, threads, wanted)
    raise UsageError(f"no runtime {delegate!r} that can be timed; there are {', '.join(runtime_names())}")


def runtime_names() -> list[str]:
    """Every runtime that can be timed, here or not."""
    timed = {lane.name for lane in (*TFLITE_LANES, EDGETPU_LANE, *ONNX_LANES)}
    return [name for name in DELEGATES if name in timed]


def format_read(delegate: str) -> Format:
    """The model format a runtime reads. Raises UsageError as :func:`runtime` does."""
    if delegate not in runtime_names():
        raise UsageError(f"no runtime {delegate!r} that can be timed; there are {', '.join(runtime_names())}")
    return "onnx" if any(lane.name == delegate for lane in ONNX_LANES) else "tflite"


@cache
def fitting_profile(delegate: str) -> str:
    """The arithmetic that describes a runtime on this machine, asked of it; empty where none does."""
    with delegate_named(delegate) as found:
        return found.profile


def renamed(contestant: Contestant, name: str) -> Contestant:
    """The contestant under another name, for a runtime that takes part twice."""
    return replace(contestant, name=name)


def as_onnx(subject: Subject) -> Subject:
    """A .tflite subject converted to .onnx (QDQ), with its feeds in that layout.

    Raises UnsupportedOp for a layer that has no quantized ONNX.
    """
    if subject.format == "onnx":
        return subject
    from karat24.export.onnx import to_onnx
    from karat24.golden.against import relayout

    content = write_model(to_onnx(subject.graph, "qdq"))
    feeds = tuple(relayout(values, "tflite", "onnx") for values in subject.feeds)
    return Subject(content, read_model(content), feeds)


def describes(profile: str, subject: Subject) -> bool:
    """Whether the profile is one of the subject's format."""
    return profile in PROFILES and PROFILES[profile].format == subject.format


def line_up(
    subject: Subject,
    delegates: Sequence[str],
    *,
    profile: str | None = None,
    threads: int = 1,
    instruction_sets: Sequence[str | None] = (None,),
    traced: bool = False,
) -> list[Contestant]:
    """The runtimes named, and the oracle under each one's profile on each instruction set.

    With ``profile`` all runtimes of its format are compared under that one. ``traced`` adds the oracle once
    more, keeping every tensor.
    """
    runtimes: list[Contestant] = []
    subjects = {subject.format: subject}
    for delegate in delegates:
        wanted = format_read(delegate)
        if wanted not in subjects:
            if wanted == "tflite":
                raise UsageError(f"{delegate} runs .tflite models and this one is .onnx; give a .tflite file")
            subjects[wanted] = as_onnx(subject)
        held_to = profile if profile and describes(profile, subjects[wanted]) else fitting_profile(delegate)
        runtimes.append(runtime(subjects[wanted], delegate, threads, held_to or None))
    judged = {(r.subject.format, r.profile) for r in runtimes if r.profile}
    if not judged:
        judged = {(subject.format, profile_for(subject.graph, profile).name)}
    oracles = [
        oracle(subjects[format], held_to, threads, chosen, with_trace)
        for format, held_to in sorted(judged)
        for chosen in instruction_sets
        for with_trace in ((False, True) if traced else (False,))
    ]
    return [*oracles, *runtimes]


def _check_format(delegate: str, wanted: Format, subject: Subject) -> None:
    if subject.format != wanted:
        raise UsageError(f"{delegate} runs .{wanted} models and this one is .{subject.format}")
