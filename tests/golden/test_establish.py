"""``karat24 establish`` recovers rules blind, writes them down, and says when none fits."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest

from karat24.cli.main import main
from karat24.delegates import DELEGATES
from karat24.delegates.oracle import OracleDelegate
from karat24.delegates.protocol import DelegateRun, Job
from karat24.golden.establish import establish as establishing
from karat24.golden.establish.establish import establish
from karat24.golden.establish.kinds import KINDS, SAMPLED, TABLES, WEIGHTED, Kind
from karat24.golden.establish.trials import layer_of, trials_of
from karat24.refimpl.errors import DelegateError, KaratError, UsageError
from karat24.refimpl.ops import OPS
from karat24.refimpl.profiles import PROFILES, Established, Profile, Rule, profile_named
from karat24.refimpl.profiles.space import SPACES
from tests.support.folder_device import run_device
from tests.support.runtimes import Runtimes, available

MICROSOFT = "com.microsoft:"
FEW: Mapping[str, tuple[Kind, ...]] = {
    "tflite": (
        Kind("CONV_2D", "uint8"),
        Kind("DEPTHWISE_CONV_2D", "int8", True),
        Kind("LEAKY_RELU", "int8", form="negative"),
        Kind("MEAN", "int8", form="spatial"),
    ),
    "onnx": (
        Kind("QLinearConv", "uint8", True, "int8"),
        Kind("QLinearMatMul", "uint8", filter="uint8"),
        Kind("QuantizeLinear", "int8"),
        Kind("MatMulInteger", "uint8", filter="int8"),
    ),
}
"""Block and tail rules, roundings, pairs that saturate: where profiles differ."""

made_once = functools.cache(trials_of)
"""To find layers on which rules part takes longer than to ask a runtime, and all are asked the same."""


@pytest.fixture(autouse=True)
def _trials_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(establishing, "trials_of", made_once)


BASES = [p for p in PROFILES.values() if "libc" not in p.name]


@pytest.mark.parametrize("profile", [p for p in BASES if p.name != "tensorrt"], ids=lambda p: p.name)
def test_a_known_profile_is_recovered_blind(profile: Profile, monkeypatch: pytest.MonkeyPatch) -> None:
    """One rule is left for each kind, the profile's own, though the search knows of no profile."""
    runtime = OracleDelegate(profile.name)
    with monkeypatch.context() as patch:
        patch.setattr(establishing, "PROFILES", {})
        blind = establish(runtime, FEW[profile.format]).findings
    for finding in blind:
        assert not finding.followed
        if finding.refused:  # onnx.reference has no com.microsoft ops
            continue
        own = profile.rule(layer_of(finding.kind, 0).view(0))
        assert plain_words(own) in map(plain_words, finding.rules), finding
        assert plain_words(finding.rules[0]) == plain_words(own), finding
        if (finding.kind.op, own.multiplier) != ("LEAKY_RELU", "float64"):  # none of its layers parts these
            assert len({plain_words(rule) for rule in finding.rules}) == 1, finding


def plain_words(rule: Rule) -> Rule:
    """The rule without words that no layer asked about has a use for: no activation is fused into most, and
    of two float32 numbers the product is all that is rounded."""
    multiplier = "none" if rule.method in ("reference", "xnnpack") else rule.multiplier
    return replace(rule, clamp="half_away", multiplier=multiplier)


@pytest.mark.parametrize("kind", [*WEIGHTED, *TABLES, *SAMPLED], ids=str)
def test_every_rule_of_a_profile_lies_in_the_space(kind: Kind) -> None:
    """A profile whose rule for a kind were not in the space could never be found."""
    view = layer_of(kind, 0).view(0) if kind.op != "TANH" else made_once(kind)[0].graph.view(0)
    OPS[view.op].check(view)
    known = set(map(without_idle_words, kind.space.rules()))
    seen = 0
    for profile in PROFILES.values():
        if profile.format != kind.format:
            continue
        try:
            rule = profile.rule(view)
        except KaratError:
            continue
        if rule.method != "unspecified":
            assert without_idle_words(rule) in known, f"{profile.name}: {rule}"
            seen += 1
    assert seen > 0


def without_idle_words(rule: Rule) -> Rule:
    return replace(rule, clamp="half_away", overflow="wraps")


@pytest.mark.parametrize("name", ["litert-2.3-builtin-arm64", "litert-2.3-xnnpack-arm64"])
def test_the_nearest_profile_may_be_that_of_another_processor(name: str) -> None:
    """So that what departs is told apart from what the processor does."""
    kinds = (FEW["tflite"][0], Kind("QUANTIZE", "int8", form="from float"))
    found = establish(OracleDelegate(name), kinds)
    assert found.nearest() == (name, 2)
    assert found.profile("found")["base"] == name
    assert not found.departures()


def test_a_departure_is_found_and_written_down(tmp_path: Path) -> None:
    """LiteRT 2.4's change: uint8 convolutions with an effective scale in float64."""
    path = tmp_path / "next.json"
    rules = {"CONV_2D": {"uint8": {"method": "ruy", "multiplier": "float64"}}}
    path.write_text(json.dumps({"name": "next", "base": "litert-2.3-builtin", "rules": rules}))
    kinds = (Kind("CONV_2D", "uint8"), Kind("LEAKY_RELU", "int8"), Kind("FULLY_CONNECTED", "uint8"))
    found = establish(OracleDelegate(str(path)), kinds)
    (departure,) = found.departures()
    assert (departure.kind, departure.variant) == (kinds[0], "uint8")
    assert departure.rules == (Rule("ruy", "float64"),)
    path.write_text(json.dumps(found.profile("again")))
    again = profile_named(str(path))
    assert again.table["CONV_2D"]["uint8"] == departure.rules[0]
    assert again.established is not None
    assert again.established.package == "karat24"


class Even(OracleDelegate):
    """A runtime whose outputs are even."""

    def run_many(self, jobs: Iterable[Job], **options: object) -> Iterator[DelegateRun | DelegateError]:
        for answer in super().run_many(jobs):
            assert isinstance(answer, DelegateRun)
            yield replace(answer, outputs=tuple(output - output % 2 for output in answer.outputs))


@pytest.mark.parametrize("profile", ["litert-2.3-ref", "ort-1.31"])
def test_a_rule_outside_the_space_is_said_to_be(profile: str) -> None:
    found = establish(Even(profile), FEW[PROFILES[profile].format][:1])
    assert not found.complete
    assert "not in the space" in str(found.findings[0])
    assert "where it gives" in found.findings[0].counterexample
    ((variants,),) = ([*rules.values()] for rules in found.profile("even")["rules"].values())
    assert variants == {"method": "unspecified"}


def test_a_rule_that_is_no_profiles_own_is_found(tmp_path: Path) -> None:
    """Fixed point rounded half up, and a QLinearAdd without fused products: no kernel has them."""
    path = tmp_path / "other.json"
    rules = {
        "QLinearConv": {"uint8_int8": {"method": "ruy", "multiplier": "float64"}},
        f"{MICROSOFT}QLinearAdd": {"int8": {"method": "float32_zero_point_first", "multiplier": "float32"}},
    }
    path.write_text(json.dumps({"name": "other", "base": "ort-1.31", "rules": rules}))
    kinds = (Kind("QLinearConv", "uint8", True, "int8"), Kind(f"{MICROSOFT}QLinearAdd", "int8"))
    found = establish(OracleDelegate(str(path)), kinds)
    assert [finding.rules[0] for finding in found.findings] == [
        Rule("ruy", "float64"), Rule("float32_zero_point_first", "float32"),
    ]  # fmt: skip


@pytest.fixture
def few_kinds(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The command asks about a few kinds only."""
    monkeypatch.setattr(establishing, "KINDS", {"tflite": (Kind("LEAKY_RELU", "int8"),)})
    return establishing


@pytest.mark.usefixtures("few_kinds")
def test_the_command_writes_a_report_and_a_profile(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    profile, report = tmp_path / "found.json", tmp_path / "report.json"
    assert main(["establish", "--delegate", "oracle", "--output", str(profile), "--report", str(report)]) == 0
    assert "LEAKY_RELU int8: gemmlowp" in capsys.readouterr().out
    assert json.loads(report.read_text())["kinds"]["LEAKY_RELU int8"]["as"]
    assert main(["profiles", str(profile)]) == 0
    assert "established on karat24" in capsys.readouterr().out


@pytest.mark.usefixtures("few_kinds")
def test_a_new_version_of_the_same_arithmetic_is_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A version nobody looked at, and one that a profile stands for already."""
    for version, expected in (("9.9.1", "add '9.9.1' to the versions"), ("2.3.1", "is one of the versions")):
        versions = {"ai-edge-litert": version, "machine": "x86_64"}
        monkeypatch.setattr(OracleDelegate, "versions", lambda self, found=versions: found)
        assert main(["establish", "--delegate", "oracle"]) == 0
        assert expected in capsys.readouterr().out


@pytest.mark.usefixtures("few_kinds")
def test_a_device_behind_a_folder_is_established(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """All models are written at once; a device then runs them, and the same command reads what it gave."""
    command = ["establish", "--delegate-folder", str(tmp_path / "device")]
    assert main(command) == 3
    assert "models wait" in capsys.readouterr().err
    run_device(tmp_path / "device", "litert-2.3-xnnpack")
    assert main(command) == 0
    assert "LEAKY_RELU int8: xnnpack" in capsys.readouterr().out


LANES = [
    name for name, make in DELEGATES.items()
    if name not in ("oracle", "edgetpu", "tensorrt", "ort-cuda", "ort-tensorrt")
    and make().format in KINDS
]  # fmt: skip


BEYOND_INT32 = {("onnx-reference", "QuantizeLinear")}
"""onnx.reference casts what no int32 holds, ±1e30 here, which NumPy leaves to the processor; the profile
clamps it. Everything else of these layers is as the profile says."""


ASKED = [lane for lane in LANES if lane != "ort-qdqisint8allowed"]


@pytest.mark.slow
@pytest.mark.parametrize("lane", ASKED)
def test_a_real_runtime_is_recovered(lane: str, runtimes: Runtimes) -> None:
    """Every kind it runs has a rule, and its profile gives every value.

    The lanes of a format share the kinds among them; benchmarks/results/establish.md holds all kinds of all
    lanes.
    """
    runtime = available(runtimes(lane))
    lanes = [other for other in ASKED if DELEGATES[other]().format == runtime.format]
    found = establish(runtime, KINDS[runtime.format][lanes.index(lane) :: len(lanes)])
    own = runtime.profile
    profile = profile_named(own)
    for finding in found.findings:
        described = profile.known_rule(made_once(finding.kind)[0].graph.view(0))
        if (lane, finding.kind.op) in BEYOND_INT32:
            continue
        if finding.refused or described is None or described.method == "unspecified":
            continue
        assert finding.rules, finding
        assert own in finding.followed, finding
    assert sum(not finding.refused for finding in found.findings) >= 3


@pytest.mark.slow
def test_pairs_that_saturate_are_found_on_a_processor_without_vnni(emulated_runtimes: Runtimes) -> None:
    """uint8 by int8 saturates there in all products but ConvInteger's; nothing else changes."""
    products = ("QLinearMatMul", "MatMulInteger", "QLinearConv")
    kinds = [k for k in KINDS["onnx"] if k.op in products and k.dtype == "uint8" and not k.form]
    found = establish(emulated_runtimes("ort"), kinds)
    for finding in found.findings:
        saturates = finding.kind.filter == "int8"
        assert finding.rules[0].accumulation == ("saturating_pairs" if saturates else "exact"), finding
        assert "ort-1.31-avx2" in finding.followed


def departing(rule: str, op: str = "ADD") -> str:
    return f'{{"name": "x", "base": "tflm", "rules": {{"{op}": {{"int8": {rule}}}}}}}'


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not a profile in JSON"),
        ('{"name": "x"}', 'needs a "name" and a "base"'),
        ('{"name": "x", "base": "y"}', "no profile 'y' to depart from"),
        (departing('{"method": "magic"}'), "method is 'magic'"),
        (departing('{"method": "gemmlowp", "block": 8}'), "together"),
        (
            departing('{"method": "ruy"}'),
            "ruy is not defined for ADD; known: gemmlowp, rational, sse, xnnpack",
        ),
        (departing('{"method": "exact"}', "RESHAPE"), "no choice of rules for RESHAPE"),
        (departing('{"method": "ruy"}', "QLinearConv"), "QLinearConv is not an op of .tflite files"),
        ('{"name": "x", "base": "tflm", "established": {"package": "p"}}', 'a "package", "versions"'),
        ('{"name": "x", "base": "tflm", "established": 3}', 'a "package", "versions"'),
    ],
)
def test_a_wrong_profile_file_is_refused(content: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "wrong.json"
    path.write_text(content)
    with pytest.raises(UsageError, match=message):
        profile_named(str(path))


def test_a_profile_file_says_what_it_was_established_on(tmp_path: Path) -> None:
    path = tmp_path / "known.json"
    stands = {"package": "runtime", "versions": ["1.2"], "processors": ["riscv64"]}
    path.write_text(json.dumps({"name": "x", "base": "tflm", "established": stands}))
    assert profile_named(str(path)).established == Established("runtime", ("1.2",), ("riscv64",))


def test_the_space_is_of_ops_that_there_are() -> None:
    assert SPACES.keys() <= OPS.keys()
    for op, space in SPACES.items():
        assert len(space) == len(set(space.rules())), op
