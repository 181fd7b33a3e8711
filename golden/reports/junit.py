"""JUnit XML: a test suite per report, a test case per layer and output."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence

from karat24.golden.report import LayerVerdict, OutputVerdict, Report, histogram_text
from karat24.golden.reports.refusal import Refusal

_NO_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Characters that XML 1.0 (section 2.2) has not."""


def junit_xml(
    reports: Sequence[Report], names: Sequence[str] | None = None, refusals: Sequence[Refusal] = ()
) -> str:
    """The reports as JUnit XML; ``names`` are those of the suites, the models' paths by default.

    A mismatch, explained or not, is a failure. What could not be compared, a layer or a whole golden, is an
    error, so that no reader counts it as passed or skipped.
    """
    root = ElementTree.Element("testsuites", name="karat24")
    total = [0, 0, 0]
    for report, name in zip(reports, names or [report.model for report in reports], strict=True):
        suite = ElementTree.SubElement(root, "testsuite", name=_text(name))
        properties = ElementTree.SubElement(suite, "properties")
        for key in ("model", "model_sha256", "feeds_sha256", "delegate", "profile", "profile_reason", "mode"):
            ElementTree.SubElement(properties, "property", name=key, value=_text(getattr(report, key)))
        judged: list[LayerVerdict | OutputVerdict] = [*report.judged]
        failures = sum(found.verdict in ("mismatch", "explained") for found in judged)
        errors = sum(found.verdict == "not_compared" for found in judged)
        for found in judged:
            _case(suite, found, name)
        if not report.outputs:
            case = ElementTree.SubElement(suite, "testcase", classname=_text(name), name="outputs")
            ElementTree.SubElement(case, "error", message="no output of the whole model was compared")
            errors += 1
        counts = (len(suite.findall("testcase")), failures, errors)
        for key, count in zip(("tests", "failures", "errors"), counts, strict=True):
            suite.set(key, str(count))
        total = [a + b for a, b in zip(total, counts, strict=True)]
    for refusal in refusals:
        suite = ElementTree.SubElement(root, "testsuite", name=_text(refusal.name), tests="1", failures="0")
        suite.set("errors", "1")
        case = ElementTree.SubElement(suite, "testcase", classname=_text(refusal.name), name="golden")
        ElementTree.SubElement(case, "error", type="not_compared", message=_text(refusal.reason))
        total = [total[0] + 1, total[1], total[2] + 1]
    for key, count in zip(("tests", "failures", "errors"), total, strict=True):
        root.set(key, str(count))
    ElementTree.indent(root, " ")
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(root, "unicode") + "\n"


def _case(suite: ElementTree.Element, found: LayerVerdict | OutputVerdict, suite_name: str) -> None:
    if isinstance(found, LayerVerdict):
        name = f"layer {found.layer} {found.op} {found.name} (tensor {found.tensor})"
    else:
        name = f"output {found.name} (tensor {found.tensor})"
    case = ElementTree.SubElement(suite, "testcase", classname=_text(suite_name), name=_text(name))
    if found.verdict in ("certified", "bit_exact", "within_bound"):
        return
    kind = "error" if found.verdict == "not_compared" else "failure"
    message = found.reason or found.verdict
    element = ElementTree.SubElement(case, kind, type=found.verdict, message=_text(message))
    if found.diff is not None:
        diff, first = found.diff, found.diff.first_divergence
        element.text = (
            f"{diff.mismatch_count} of {diff.elements} values differ: {histogram_text(diff.histogram)}"
        )
        if first is not None:
            element.text += (
                f"; first at {list(first.index)}: expected {first.expected:g}, found {first.found:g}"
            )


def _text(value: str) -> str:
    return _NO_XML.sub("\N{REPLACEMENT CHARACTER}", value)
