"""The page: complete without network, safe from names, and alive in a real browser."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from karat24.golden.diff import diff_arrays
from karat24.golden.located import locate
from karat24.golden.report import Report, Verdict
from karat24.golden.reports.page import page
from karat24.golden.reports.pictures import difference_picture, histogram_svg, png_uri
from tests.support.small_report import layer, small_report

VERDICTS: tuple[Verdict, ...] = ("mismatch", "bit_exact", "not_compared", "explained")
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def picture_report() -> Report:
    """Four layers; the last one is a 32×32 picture whose lower right differs by -5 to 30."""
    expected = np.add.outer(np.arange(32), np.arange(32)).astype(np.int8).reshape(1, 32, 32, 1)
    found = expected.copy()
    found[0, 20:, 20:, 0] += np.arange(-5, 31, 3, dtype=np.int8)
    report = small_report(VERDICTS)
    last = replace(
        report.layers[-1], diff=diff_arrays(expected, found), located=locate(expected, found, "tflite")
    )
    return replace(report, layers=(*report.layers[:-1], last))


class Balance(HTMLParser):
    """Every element that is opened is closed, in order."""

    VOID = ("meta", "input", "img", "line")

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.addresses += [value or "" for key, value in attrs if key in ("src", "href", "action")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        return

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_it_is_whole_and_loads_nothing() -> None:
    text = page([picture_report(), picture_report()], ["a.golden.json", "b.golden.json"])
    parsed = Balance()
    parsed.feed(text)
    assert parsed.open == []
    assert parsed.addresses, "pictures are inside"
    assert all(address.startswith("data:image/png;base64,") for address in parsed.addresses)
    assert "default-src 'none'" in text
    assert not re.search(r"https?://|@import|url\(", text)


def test_it_tells_everything_in_words() -> None:
    """What a colour or a drawing says is said in text, too."""
    text = page([picture_report()], ["a"])
    for verdict in VERDICTS:
        assert verdict.replace("_", " ") in text
    assert 'aria-label="differences in LSBs: -5: 12, -2: 12' in text
    assert 'aria-label="differing values per place, most 1"' in text
    assert 'lang="en"' in text
    assert text.count('role="columnheader"') == 9


def test_names_are_no_markup() -> None:
    bad = replace(layer(0, "mismatch"), name="<script>alert(1)</script>\"'", op="<b>", reason="</details>&")
    text = page([replace(small_report(()), layers=(bad,), notes=("<i>",))], ["<h1>\"'&"])
    parsed = Balance()
    parsed.feed(text)
    assert parsed.open == []
    assert text.count("<script>") == 1
    assert "<b>" not in text
    assert "<i>" not in text


def test_pictures_hold_the_pixels() -> None:
    image = pytest.importorskip("PIL.Image", reason="pillow is not installed")
    import base64
    import io

    for channels in (1, 3):
        pixels = np.random.default_rng(0).integers(0, 256, (17, 23, channels)).astype(np.uint8)
        content = base64.b64decode(png_uri(pixels).partition(",")[2])
        read = np.asarray(image.open(io.BytesIO(content))).reshape(pixels.shape)
        assert np.array_equal(read, pixels)


def test_difference_pictures_tell_up_from_down() -> None:
    grey = np.full((1, 3, 1), 100, np.uint8)
    found = np.array([[[120], [100], [80]]], np.uint8)
    assert difference_picture(grey, found).tolist() == [[[255, 0, 0], [255, 255, 255], [0, 0, 255]]]


def test_bars_keep_signs_and_what_lies_beyond() -> None:
    svg = histogram_svg({-300: 2, -1: 5, 0: 10, 1: 7}, "h")
    assert "-20: 2" in svg
    assert "-1: 5" in svg
    assert "+1: 7" in svg
    assert histogram_svg({0: 10}, "h") == histogram_svg({}, "h") == ""


@pytest.fixture(scope="module")
def browser() -> str:
    found = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip(f"none of {', '.join(BROWSERS)} is installed")
    return found


def opened(browser: str, path: Path, state: str) -> str:
    """The page's elements once its script has run."""
    command = [
        browser, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={path.parent / 'profile'}",
        "--virtual-time-budget=2000", "--dump-dom", f"{path.as_uri()}#{state}",
    ]  # fmt: skip
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def pixels(browser: str, path: Path, state: str, size: str) -> np.ndarray:
    """What a window of this size shows, as grey values."""
    image = pytest.importorskip("PIL.Image", reason="pillow is not installed")
    shot = path.parent / "shot.png"
    command = [
        browser, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={path.parent / 'profile'}",
        "--hide-scrollbars", f"--window-size={size}", f"--screenshot={shot}", f"{path.as_uri()}#{state}",
    ]  # fmt: skip
    subprocess.run(command, capture_output=True, check=True)
    return np.asarray(image.open(shot).convert("L"))


def test_a_phone_hides_rows_that_are_filtered_out(browser: str, tmp_path: Path) -> None:
    """There rows are blocks, which a rule for them must not show again."""
    path = tmp_path / "report.html"
    path.write_text(page([picture_report()], ["a"]), encoding="utf-8")
    all_rows = pixels(browser, path, "", "500,1600")
    no_row = pixels(browser, path, "text=nowhere", "500,1600")
    lowest = [int(np.flatnonzero((shot != shot[-1, -1]).any(axis=1)).max()) for shot in (all_rows, no_row)]
    assert lowest[0] > lowest[1] + 200, "five rows of at least 40 pixels"


def test_a_browser_filters_and_sorts(browser: str, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    path.write_text(page([picture_report()], ["a"]), encoding="utf-8")
    dom = opened(browser, path, "verdict=mismatch&sort=differing")
    rows = re.findall(r'<tr role="row" data-verdict="(\w+)"( hidden="")?>', dom)
    assert len(rows) == 5
    assert [verdict for verdict, hidden in rows if not hidden] == ["mismatch"]
    assert "1 of 5 rows" in dom
    assert 'aria-sort="ascending"' in dom
    counts = re.findall(r'data-label="differing">(\d*)<', dom)
    assert counts == sorted(counts, key=lambda count: int(count or -1))
    assert rows[0][0] == "not_compared", "it has no count, so it comes first"
