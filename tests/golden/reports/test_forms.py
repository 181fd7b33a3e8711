"""JUnit, annotations, overlay, terminal: each says what the report says, and never less."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from karat24.golden import report as report_module
from karat24.golden.attribution import Attribution, Cause, WorstValue
from karat24.golden.certify.certificate import Certificate
from karat24.golden.diff import diff_arrays
from karat24.golden.located import MOST_BLOCKS, locate
from karat24.golden.report import LayerVerdict, OutputVerdict, Report, Verdict
from karat24.golden.reports.github import MOST, annotation_lines
from karat24.golden.reports.junit import junit_xml
from karat24.golden.reports.overlay import overlay_json
from karat24.golden.reports.refusal import Refusal
from karat24.golden.reports.terminal import LEAST_WIDTH, terminal_text, wants_colour
from karat24.refimpl.bounds.interval import Use
from tests.support.small_report import layer, small_report

VERDICTS: tuple[Verdict, ...] = ("bit_exact", "within_bound", "explained", "mismatch", "not_compared")


def test_junit_counts_what_did_not_pass() -> None:
    """A difference, explained or not, is a failure; what was not compared is an error and no skip."""
    report = small_report(VERDICTS)
    suite = ElementTree.fromstring(junit_xml([report, report], ["a", "b"]))[0]
    assert (suite.get("tests"), suite.get("failures"), suite.get("errors")) == ("6", "2", "1")
    assert [case[0].tag if len(case) else "" for case in suite.findall("testcase")] == [
        "", "", "failure", "failure", "error", "",
    ]  # fmt: skip
    assert "1 of 4 values differ: +3:1" in (suite.findall("testcase")[3][0].text or "")


def test_junit_of_nothing_judged_is_an_error() -> None:
    report = replace(small_report(("bit_exact",)), outputs=())
    suite = ElementTree.fromstring(junit_xml([report]))[0]
    assert suite.get("errors") == "1"


def test_junit_of_a_golden_that_cannot_be_compared_is_an_error() -> None:
    refusal = Refusal("\x00<a>", "it is damaged & gone", 3)
    root = ElementTree.fromstring(junit_xml([small_report(("bit_exact",))], ["a"], [refusal]))
    assert (root.get("tests"), root.get("failures"), root.get("errors")) == ("3", "0", "1")
    (error,) = root[1].iter("error")
    assert error.get("message") == "it is damaged & gone"


def test_junit_survives_any_name() -> None:
    """Characters that XML has not, and those that it reads as markup."""
    bad = replace(layer(0, "mismatch"), name="\x00\x1b</testcase>&\ud800", reason="<&>\x07")
    text = junit_xml([replace(small_report(()), layers=(bad,))])
    case = ElementTree.fromstring(text.encode())[0].find("testcase")
    assert case is not None
    assert "</testcase>&" in (case.get("name") or "")


def test_annotations_are_for_what_did_not_pass() -> None:
    report = small_report(VERDICTS)
    lines = annotation_lines(report, "a:b.json")
    assert len(lines) == 3
    assert all(line.startswith("::error file=a%3Ab.json,title=layer ") for line in lines)
    assert annotation_lines(small_report(("bit_exact",)), "a") == []
    assert annotation_lines(replace(small_report(("bit_exact",)), outputs=()), "a"), "exit 3 must be seen"
    many = annotation_lines(small_report(("mismatch",) * 30), "a")
    assert len(many) == MOST
    assert "and 21 more" in many[-1]
    newline = replace(layer(0, "mismatch"), reason="one\n::error::two")
    (line,) = annotation_lines(replace(small_report(()), layers=(newline,)), "a")
    assert "\n" not in line


def test_the_overlay_has_the_worst_of_each_layer() -> None:
    report = replace(
        small_report(()), layers=(layer(0, "bit_exact"), layer(1, "mismatch"), layer(1, "bit_exact"))
    )
    content = json.loads(overlay_json(report))
    assert content["results"] == {"0": {"value": 1}, "1": {"value": 5}}
    assert [step["value"] for step in content["thresholds"]] == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    ("environment", "terminal", "colour"),
    [
        ({}, True, True),
        ({}, False, False),
        ({"NO_COLOR": "1"}, True, False),
        ({"NO_COLOR": ""}, True, True),
        ({"NO_COLOR": "1", "FORCE_COLOR": "1"}, True, False),
        ({"FORCE_COLOR": "1"}, False, True),
        ({"TERM": "dumb"}, True, False),
    ],
)
def test_colour_is_for_those_who_want_it(environment: dict[str, str], terminal: bool, colour: bool) -> None:
    assert wants_colour(environment, terminal) is colour


def test_the_terminal_is_not_overrun() -> None:
    report = small_report(VERDICTS)
    long = replace(layer(9, "mismatch"), name="n" * 200, reason="because " * 40)
    report = replace(report, layers=(*report.layers, long), notes=("note " * 50,))
    for width in (LEAST_WIDTH, 80, 200):
        lines = terminal_text(report, True, False, width).splitlines()
        assert max(map(len, lines)) <= width
        assert "because " * 2 in " ".join(line.strip() for line in lines)
    assert terminal_text(report, True, False, None) == report.table(True)


def test_colours_change_no_words_and_names_no_terminal() -> None:
    report = small_report(VERDICTS)
    coloured = terminal_text(report, True, True, None)
    assert coloured.count("\x1b[31m") >= 2
    plain = terminal_text(report, True, False, None)
    stripped = coloured
    for code in ("\x1b[0m", "\x1b[31m", "\x1b[32m", "\x1b[33m", "\x1b[36m"):
        stripped = stripped.replace(code, "")
    assert stripped == plain
    evil = replace(small_report(()), layers=(replace(layer(0, "mismatch"), name="a\x1b]0;title\x07"),))
    assert "\x1b" not in terminal_text(evil, True, False, 80)


def test_the_json_schema_describes_a_report() -> None:
    jsonschema = pytest.importorskip("jsonschema", reason="jsonschema is not installed")
    path = Path(report_module.__file__).parent / "reports" / "report.schema.json"
    schema = json.loads(path.read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    for verdicts in (VERDICTS, (), ("bit_exact",)):
        content = json.loads(small_report(verdicts).to_json())
        assert list(validator.iter_errors(content)) == []
    for key in content:
        assert list(validator.iter_errors({k: v for k, v in content.items() if k != key})), key
    content["verdict"] = "passed"
    assert list(validator.iter_errors(content))


def test_the_schema_describes_all_that_a_layer_may_have() -> None:
    """A cause, the worst values, a bound, a certificate, and numbers that JSON has not."""
    jsonschema = pytest.importorskip("jsonschema", reason="jsonschema is not installed")
    path = Path(report_module.__file__).parent / "reports" / "report.schema.json"
    validator = jsonschema.Draft202012Validator(json.loads(path.read_text(encoding="utf-8")))
    values = np.array([np.nan, np.inf, -np.inf, 1.0], np.float32)
    diff = diff_arrays(np.zeros(4, np.float32), values)
    worst = WorstValue((0, 1), 3.0, float("nan"), 17, None, (1.0, 2.0))
    found = Attribution(
        (Cause("bias missing", ("that of every channel",)),), ("bias missing",), ("cut",), (worst,)
    )
    bound = Use(4, 1, float("inf"), 2.0, "steps")
    whole = replace(
        layer(0, "mismatch"), diff=diff, attribution=found, bound=bound, tie_distance=0.25,
        certificate=Certificate("table", 256, 255, 1, 0, ("one",)),
    )  # fmt: skip
    text = replace(small_report(()), layers=(whole,)).to_json()
    content = json.loads(text, parse_constant=pytest.fail)
    assert list(validator.iter_errors(content)) == []
    assert content["layers"][0]["diff"]["first_divergence"]["found"] == "NaN"
    assert content["layers"][0]["bound"]["largest"] == "Infinity"
    for part in ("attribution", "bound", "certificate", "diff"):
        spoilt = {**content["layers"][0], part: {**content["layers"][0][part], "more": 1}}
        assert list(validator.iter_errors({**content, "layers": [spoilt]})), part


def test_a_notebook_shows_every_verdict_and_no_markup_of_a_name() -> None:
    bad = replace(layer(0, "mismatch"), name="<script>", reason="because <b>")
    report = small_report(VERDICTS)
    shown = replace(report, layers=(*report.layers, bad))._repr_html_()
    assert shown.count("<tr>") == len(VERDICTS) + 3
    for verdict in VERDICTS:
        assert f'color: black">{verdict}</td>' in shown
    assert "why it is explained" in shown
    assert "<script>" not in shown
    assert "<b>" not in shown


def test_places_and_channels_are_found_in_either_layout() -> None:
    """One value off: y 3, x 70, channel 2 of 100×120×5, counted in blocks of 3×3."""
    expected = np.zeros((2, 100, 120, 5), np.int8)
    found = expected.copy()
    found[1, 3, 70, 2] = 9
    nhwc = locate(expected, found, "tflite")
    nchw = locate(expected.transpose(0, 3, 1, 2), found.transpose(0, 3, 1, 2), "onnx")
    assert nhwc == nchw
    assert nhwc is not None
    assert nhwc.channels == (0, 0, 1, 0, 0)
    assert nhwc.block == (3, 3)
    assert len(nhwc.places) <= MOST_BLOCKS >= len(nhwc.places[0])
    marked = [(y, x) for y, row in enumerate(nhwc.places) for x, count in enumerate(row) if count]
    assert marked == [(1, 23)]


def test_odd_shapes_are_located_or_left_out() -> None:
    scalar = np.array(1, np.int8)
    assert locate(scalar, scalar + 1, "tflite") is None
    flat = locate(np.zeros((1, 3), np.int8), np.ones((1, 3), np.int8), "onnx")
    assert flat is not None
    assert flat.channels == (1, 1, 1)
    empty = np.zeros((1, 0, 4, 2), np.int8)
    assert locate(empty, empty, "tflite") is not None
    nan = np.full((1, 16, 16, 1), np.nan, np.float32)
    assert locate(nan, nan, "tflite") is not None


def test_a_difference_is_located_in_the_report() -> None:
    """The page's maps come with the verdicts, and stay out of the JSON."""
    expected, found = np.zeros((1, 16, 16, 1), np.int8), np.ones((1, 16, 16, 1), np.int8)
    verdict = replace(
        layer(0, "mismatch"), diff=diff_arrays(expected, found), located=locate(expected, found, "tflite")
    )
    output = OutputVerdict(1, "y", "int8", "mismatch", located=verdict.located)
    report: Report = replace(small_report(()), layers=(verdict,), outputs=(output,))
    content = json.loads(report.to_json())
    assert "located" not in content["layers"][0]
    assert "located" not in content["outputs"][0]
    assert isinstance(report.layers[0], LayerVerdict)
