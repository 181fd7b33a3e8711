"""``python -m benchmarks``: which contests there are, resuming, the figures drawn from them, rendering."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.__main__ import main
from benchmarks.markdown import marked
from benchmarks.models import FLAGSHIPS, Model, all_models, unsigned
from benchmarks.plan import GROUPS, LARGEST_FOR_REFERENCE, Unit, units
from benchmarks.render import IN_SHORT, markdown
from benchmarks.results import SCHEMA, keep, load
from benchmarks.summary import Table, cost_of_size, memory, reference_kernels, starts, trace_cost
from karat24.export.tflite import write_tflite
from karat24.refimpl.kernels.jit.isa import chosen_isa
from tests.support.small_network import small_graph

REF = "oracle litert-2.3-ref"


def found(name: str, median: float | None, **more: Any) -> dict[str, Any]:
    """An entry as it is kept."""
    quartiles = None if median is None else {"lower": median, "median": median, "upper": median}
    return {
        "name": name, "kind": "oracle" if name.startswith("oracle") else "tflite", "isa": "", "stopped": "",
        "quartiles": quartiles, "gmac_per_s": 12.0, "peak_fraction": 0.5, "peak_memory_bytes": 0,
        "cold_start": None, "warm_start": None, "versions": {"karat24": "0.1.0"}, **more,
    }  # fmt: skip


def kept(**contests: list[dict[str, Any]]) -> dict[str, Any]:
    """A file of results; keywords are model and group joined by two underscores."""
    return {
        "schema": SCHEMA,
        "skipped": {},
        "contests": {
            f"{name.replace('__', ' ').replace('_', '-')} 2": {
                "entries": entries, "parity": [], "threads": 2, "date": "2026-01-02T03:04:05+00:00",
                "machine": {"cpu": "a processor", "cores": "2"},
            }
            for name, entries in contests.items()
        },
    }  # fmt: skip


def test_every_flagship_meets_everybody() -> None:
    planned = list(units([m for m in all_models([64, 1024]) if m.size], list(GROUPS), 2))
    pairs = {(unit.model.name, unit.group) for unit in planned}
    for family in FLAGSHIPS:
        for group in ("xnnpack", "builtin", "ort-s8s8", "ort-u8s8", "float"):
            assert {(f"{family}-64", group), (f"{family}-1024", group)} <= pairs
        assert (f"{family}-1024", "ref") not in pairs
        assert (f"{family}-{LARGEST_FOR_REFERENCE}", "ref") in pairs
        assert (f"{family}-64", "cold") in pairs
        assert (f"{family}-1024", "cold") not in pairs
    assert len(planned) == len({unit.key for unit in planned})


def test_a_contest_has_runtime_oracle_and_instruction_sets() -> None:
    others = tuple({"portable"} - {chosen_isa()})
    model = Model("fine-tune-64", 64)
    _, contestants = Unit(model, "xnnpack", 2, (chosen_isa(), *others)).contestants()
    assert [who.name for who in contestants] == [
        REF, *(f"{REF} {isa}" for isa in others), "oracle litert-2.3-xnnpack", "litert-xnnpack",
    ]  # fmt: skip
    _, contestants = Unit(model, "float", 2, ()).contestants()
    assert [(who.name, who.profile) for who in contestants[1:]] == [("litert float", ""), ("ort float", "")]


def test_unsigned_moves_zero_points_and_nothing_else() -> None:
    graph = small_graph()
    moved = unsigned(graph)
    for before, after in zip(graph.tensors, moved.tensors, strict=True):
        if before.is_constant:
            assert after is before
        else:
            assert (before.dtype, after.dtype) == ("int8", "uint8")
            assert after.zero_point == before.zero_point + 128
            assert after.scale == before.scale


def test_ranges_hold_at_any_size() -> None:
    """Observed once, on small noise: the same network at two sizes has the same parameters."""
    small, large = (Model(f"fine-tune-{n}", n).quantized() for n in (8, 16))
    assert [t.quantization for t in small.tensors] == [t.quantization for t in large.tensors]
    assert large.tensors[large.inputs[0]].shape == (1, 16, 16, 1)


def test_figures_drawn_from_several_contests() -> None:
    table = Table(
        kept(
            fine_tune_1024__xnnpack=[found(REF, 2.0), found(f"{REF} traced", 3.0)],
            fine_tune_2560__xnnpack=[
                found(REF, 12.0, peak_memory_bytes=1_100_000_000),
                found("litert-xnnpack", 1.0, peak_memory_bytes=900_000_000),
            ],
            fine_tune_64__cold=[
                found(REF, 1.0, cold_start={"to_first_result_s": 20.0}, warm_start={"to_first_result_s": 1.5})
            ],
            fine_tune_256__ref=[
                found(REF, 0.01, isa="avx2"),
                found(f"{REF} portable", 0.1, isa="portable"),
                found("litert-ref", 2.5),
            ],
        )
    )
    assert trace_cost(table) == "fine-tune 1.50×"
    assert cost_of_size(table) == "fine-tune 6.00×"
    assert memory(table) == "fine-tune: oracle 1.10 GB, XNNPACK 0.90 GB"
    assert starts(table) == "fine-tune-64 20 s cold, 1.5 s warm"
    assert reference_kernels(table) == "fine-tune-256 25.0×"


def test_what_was_not_measured_is_left_out() -> None:
    table = Table(kept(fine_tune_1024__xnnpack=[found(REF, None)]))
    figures = (trace_cost, cost_of_size, memory, starts, reference_kernels)
    assert [figure(table) for figure in figures] == [""] * len(figures)
    assert "not timed" not in markdown(kept(fine_tune_1024__builtin=[found(REF, 1.0)]))


def test_the_oracles_column_is_from_the_newest_contest() -> None:
    content = kept(
        a__xnnpack=[found(REF, 2.0), found("litert-xnnpack", 3.0)],
        a__builtin=[found(REF, 5.0), found("litert-builtin", 10.0)],
        a__ref=[found(REF, None), found("litert-ref", 40.0)],
    )
    for group, day in (("xnnpack", 4), ("builtin", 3), ("ref", 5)):
        content["contests"][f"a {group} 2"]["date"] = f"2026-01-0{day}T03:04:05+00:00"
    assert "| a | 2 s | 3 s (1.50×) | 10 s (2.00×) | 40 s |" in markdown(content)


def test_cells_say_ratio_difference_and_stop() -> None:
    content = kept(
        a__xnnpack=[found(REF, 2.0, isa="avx2"), found("litert-xnnpack", 3.0)],
        a__builtin=[found(REF, 2.0), found("litert-builtin", None, stopped="it died")],
        b__xnnpack=[found(REF, None), found("litert-xnnpack", None)],
        c__xnnpack=[found(REF, None, stopped="no such op"), found("litert-xnnpack", 3.0)],
    )
    content["contests"]["b xnnpack 2"]["parity"] = [{"other": "litert-xnnpack", "verdict": "differs"}]
    text = markdown(content)
    assert "| int8 model | oracle | LiteRT XNNPACK | LiteRT builtin |" in text
    assert "| a | 2 s | 3 s (1.50×) | stopped |" in text
    assert "| b |  | differs |  |" in text
    assert "| c |" not in text
    assert "Models that the oracle does not run: c." in text
    assert "| a | 1.50×, 12 GMAC/s, 50% |" in text
    assert "a processor, 2 cores, 2 threads; karat24 0.1.0; 2026-01-02" in text
    assert "No contest" in markdown({"schema": SCHEMA, "contests": {}, "skipped": {}})


def test_rendering_fills_the_places_of_every_document(tmp_path: Path) -> None:
    """The full table goes where it is wanted, the short one, of chosen models, into the other document."""
    full, short, results = tmp_path / "speed.md", tmp_path / "README.md", tmp_path / "results.json"
    full.write_text(f"above\n{marked('speed: models', 'old')}\nbelow\n", encoding="utf-8")
    short.write_text(marked("speed: in short", "old"), encoding="utf-8")
    content = kept(a__xnnpack=[found(REF, 2.0), found("litert-xnnpack", 3.0)])
    content["contests"][f"{IN_SHORT[0]} xnnpack 2"] = content["contests"]["a xnnpack 2"]
    keep(results, content)
    assert main(["render", str(results), "--documents", str(full), str(short)]) == 0
    assert full.read_text(encoding="utf-8").count("3 s (1.50×)") == 2
    assert short.read_text(encoding="utf-8") == marked(
        "speed: in short",
        "| int8 model, 2 threads | oracle | LiteRT XNNPACK | ONNX Runtime u8s8 |\n"
        "| --- | ---: | ---: | ---: |\n"
        f"| {IN_SHORT[0]} | 2 s | 3 s (1.50×) |  |",
    )


def test_contests_of_fewer_instructions_stand_beside_the_others(tmp_path: Path) -> None:
    """Only models of both files have all their cells; each ratio is that of its own contest."""
    whole, part, document = tmp_path / "whole.json", tmp_path / "part.json", tmp_path / "speed.md"
    keep(whole, kept(a__xnnpack=[found(REF, 2.0), found("litert-xnnpack", 3.0)]))
    keep(
        part,
        kept(
            a__xnnpack=[found(REF, 4.0), found("litert-xnnpack", 20.0)],
            b__xnnpack=[found(REF, 1.0), found("litert-xnnpack", 2.0)],
        ),
    )
    document.write_text(marked("speed: restricted", "old"), encoding="utf-8")
    assert main(["render", str(whole), "--restricted", str(part), "--documents", str(document)]) == 0
    text = document.read_text(encoding="utf-8")
    assert "| a | 2 s | 3 s (1.50×) | 4 s | 20 s (5.00×) |" in text
    assert "| b |  |  | 1 s | 2 s (2.00×) |" in text


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"timings": []}'])
def test_other_files_are_not_results(
    content: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "results.json"
    path.write_text(content, encoding="utf-8")
    assert main(["render", str(path)]) == 2
    assert str(path) in capsys.readouterr().err
    assert main(["--list", "--models", "fine-tune-64", "--output", str(path)]) == 2


def test_what_is_kept_is_not_measured_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A folder with one good model and one broken; two groups; then the same command again."""
    pytest.importorskip("ai_edge_litert", reason="LiteRT is not installed")
    folder = tmp_path / "models" / "own"
    folder.mkdir(parents=True)
    (folder / "small.tflite").write_bytes(write_tflite(small_graph()))
    (folder / "broken.tflite").write_bytes(b"\x00" * 64)
    monkeypatch.setenv("KARAT24_MODELS", str(folder.parent))
    output = tmp_path / "results.json"
    command = ["--models", "own/", "--contestants", "builtin", "--rounds", "3", "--output", str(output)]
    assert main(command) == 0
    printed = capsys.readouterr().out
    assert "2 contests, 0 of them kept" in printed
    assert "| own/small |" in printed
    content = load(output)
    assert set(content["contests"]) == {"own/small builtin 2"}
    assert "own/broken builtin 2" in content["skipped"]
    (contest,) = content["contests"].values()
    assert {parity["verdict"] for parity in contest["parity"]} == {"equal"}
    assert [entry["runs"] >= 3 and entry["seconds"] == [] for entry in contest["entries"]] == [True] * 3
    before = json.dumps(content["contests"])
    assert main(command) == 0
    assert "2 contests, 1 of them kept" in capsys.readouterr().out
    assert json.dumps(load(output)["contests"]) == before
