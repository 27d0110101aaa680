from __future__ import annotations

import base64
import hashlib
import html
import json
import math
import os
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
from report_study import ARMS, gallery, result, write_run, write_study
from rich.console import Console

from unswayed import report
from unswayed.errors import UnswayedError
from unswayed.report.summary import duration, footnotes, points, rows, signed, what_came_out, what_ran

EVIL = '</script><script>window.hacked=1</script><img src=x onerror="window.hacked=1"> {{ 7 * 7 }} [red]x[/red]'


def shown(folder: Path, width: int = 100) -> str:
    console = Console(width=width, record=True, file=open(os.devnull, "w"))  # noqa: SIM115
    console.print(report.table(report.load(folder)))
    console.file.close()
    return console.export_text()


def page(folder: Path) -> str:
    return report.write(report.load(folder), folder / "page.html").read_text(encoding="utf-8")


def with_last(folder: Path, **arms: list[float]) -> report.Section:
    """A study in which the given arms end at the given accuracies, seed by seed; `control` is the control."""
    for name, lasts in arms.items():
        for seed, last in enumerate(lasts):
            content = result(seed=seed) | {"name": name, "control": name == "control"}
            content["test"]["last"] = last
            write_run(folder / name / str(seed), content)
    (section,) = report.load(folder).sections
    return section


@pytest.mark.parametrize(
    ("arms", "claim", "evidence"),
    [
        (
            {"control": [0.5, 0.6, 0.7], "good": [0.6, 0.71, 0.79]},
            "good ends highest, at 70.0 %, 10.0 points above the control, control.",
            "Paired difference +10.0 points, 95 % interval +7.5 to +12.5, 3 seeds.",
        ),
        (
            {"control": [0.5, 0.6, 0.7], "wild": [0.3, 0.7, 0.9]},
            "wild ends highest, at 63.3 %, but no difference to control is shown.",
            "it holds zero.",
        ),
        (
            {"control": [0.9, 0.9, 0.9], "bad": [0.5, 0.51, 0.52]},
            "No arm ends above the control, control, at 90.0 %.",
            "bad comes nearest. Paired difference −39.0 points, 95 % interval −41.5 to −36.5, 3 seeds: worse.",
        ),
        (
            {"control": [0.5], "lucky": [0.6]},
            "lucky ends highest, at 60.0 %, 10.0 points above the control, control, in one seed.",
            "One seed gives no interval: no difference is shown.",
        ),
        ({"a": [0.5, 0.6], "b": [0.6, 0.7]}, "b ends highest, at 65.0 %.", "No arm is the control"),
        ({"control": [0.5]}, "No arm ends above the control, control, at 50.0 %.", ""),
        ({"control": [math.nan], "a": [math.nan]}, "No run has a test accuracy, so nothing is compared.", ""),
    ],
)
def test_headline_claims_no_more_than_the_seeds_show(
    tmp_path: Path, arms: dict[str, list[float]], claim: str, evidence: str
) -> None:
    section = with_last(tmp_path, **arms)
    said = what_came_out(section, rows(section))
    assert said[0] == claim
    assert said[1].endswith(evidence) or said[1].startswith(evidence)
    page(tmp_path)


def test_arms_without_a_common_seed_are_not_compared(tmp_path: Path) -> None:
    write_run(tmp_path / "a", result(ARMS[0], seed=0))
    write_run(tmp_path / "b", result(ARMS[3], seed=1))
    (section,) = report.load(tmp_path).sections
    assert "shares no seed with the control" in what_came_out(section, rows(section))[1]
    assert "no common seed" in shown(tmp_path)


def test_a_failed_seed_is_not_hidden(tmp_path: Path) -> None:
    with_last(tmp_path, control=[0.5, 0.6, 0.7], broken=[0.6, math.nan, 0.8])
    assert "2 of 3 seeds" in shown(tmp_path)
    assert "2 of 3 seeds" in page(tmp_path)


def test_words(tmp_path: Path) -> None:
    write_study(tmp_path, arms=2, seeds=1, number=0)
    (section,) = report.load(tmp_path).sections
    assert what_ran(section) == "2 arms, 1 seed each, on digits with symmetric noise 40 %."
    assert any("paired by seed" in note for note in footnotes(section, rows(section)))
    assert [duration(seconds) for seconds in (0.4, 12.34, 245, 7800, math.nan)] == [
        "0.40 s",
        "12.3 s",
        "4 min 5 s",
        "2 h 10 min",
        "–",
    ]
    assert [signed(value) for value in (0.0512, -0.0512, 0.0, 0.0012)] == ["+5.1", "−5.1", "±0.00", "+0.12"]
    assert [points(value) for value in (0.00994, 0.01)] == ["0.99", "1.0"]


def test_terminal_table(tmp_path: Path) -> None:
    write_study(tmp_path, seeds=5, number=0)
    (tmp_path / "open").mkdir()
    (tmp_path / "open" / "config.json").touch()
    for width in (80, 120):
        lines = shown(tmp_path, width)
        assert max(map(len, lines.splitlines())) <= width
        for words in ("(not selectable", "control", "better", "no difference", "Not finished, not shown: open", "360"):
            assert words in lines
    assert "ANL-CE + edge-masked linear ends highest" in shown(tmp_path, 120)


@pytest.mark.parametrize("seeds", [1, 5])
def test_the_table_fits_a_terminal_of_80_columns(tmp_path: Path, seeds: int) -> None:
    write_study(tmp_path, seeds=seeds)
    lines = shown(tmp_path, width=80).splitlines()
    assert "time" in lines[next(i for i, line in enumerate(lines) if "against" in line)]
    assert "…" not in "".join(lines)


def test_terminal_shows_users_words_as_they_are(tmp_path: Path) -> None:
    write_run(tmp_path, result() | {"name": "[bold]x[/bold]\x1b[2J\n:smile:"})
    words = shown(tmp_path, 160)
    assert "[bold]x[/bold]\ufffd[2J\ufffd:smile:" in words
    assert "\x1b" not in words


class Tags(HTMLParser):
    """All tags with their attributes, and whether they balance where HTML demands it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))


def addresses(text: str) -> Iterator[str]:
    for tag, attributes in Tags(text).seen:
        for name, value in attributes.items():
            if name in ("src", "href", "srcset", "action", "data", "poster", "xlink:href") and tag != "a":
                yield value or ""


def test_the_page_needs_nothing_but_itself(tmp_path: Path) -> None:
    write_study(tmp_path, seeds=2, number=10)
    text = page(tmp_path)
    assert list(addresses(text)) == ["data:,"]
    assert not re.search(r"@import|url\(|https?://|fetch\(|XMLHttpRequest|import\(", text)
    script = re.search(r"<script>(.*?)</script>", text, re.DOTALL)
    assert script
    digest = base64.b64encode(hashlib.sha256(script[1].encode()).digest()).decode()
    assert f"default-src 'none'; script-src 'sha256-{digest}'" in text
    assert text.count("<script") == 2
    assert len(text) < 2_000_000


def test_anchors_and_names_lead_somewhere(tmp_path: Path) -> None:
    write_study(tmp_path, seeds=1, arms=2)
    write_study(tmp_path, seeds=1, arms=2, rate=0.2, number=0)
    tags = Tags(page(tmp_path)).seen
    ids = [attributes["id"] for _, attributes in tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    for tag, attributes in tags:
        if tag == "a":
            assert (attributes["href"] or "")[1:] in ids
        if "aria-labelledby" in attributes:
            assert attributes["aria-labelledby"] in ids
        if tag == "svg":
            assert attributes.get("aria-label") or attributes.get("aria-hidden") == "true"


def evil_study(folder: Path) -> Path:
    """A study in which every text that a user can choose tries to break out."""
    content: dict[str, Any] = result(classes=[f"{i} {EVIL}" for i in range(10)], data=EVIL)
    content["name"] = EVIL
    content["data"]["notes"] = [EVIL]
    content["data"]["noise"]["name"] = EVIL
    content["config"] = {EVIL: EVIL}
    content["chosen"] = {EVIL: EVIL}
    content["versions"] = content["machine"] = {EVIL: EVIL}
    content["started"] = EVIL
    samples = gallery("text", 10, 0, number=5)
    samples[0] |= {"content": base64.b64encode(EVIL.encode()).decode()}
    samples[1] |= {"mime": EVIL}
    samples[2] |= {"mime": "image/png", "content": EVIL}
    write_run(folder / "evil", content, samples)
    (folder / "open <b>").mkdir()
    (folder / "open <b>" / "x").touch()
    return folder


def test_nothing_that_users_write_becomes_markup(tmp_path: Path) -> None:
    text = page(evil_study(tmp_path))
    tags = Tags(text).seen
    assert [tag for tag, _ in tags].count("script") == 2
    assert not [tag for tag, _ in tags if tag in ("img", "b")]
    assert not [name for _, attributes in tags for name in attributes if name.startswith("on")]
    assert html.escape(EVIL) in text.replace("&#34;", "&quot;")
    assert "49" not in text.partition('class="verdict"')[2].partition("</h1>")[0]
    data = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)
    assert data
    assert json.loads(data[1])[0]["classes"][3] == f"3 {EVIL}"


def test_labels_without_utf8_can_be_written(tmp_path: Path) -> None:
    content = result(classes=["\ud800", "ü"])
    write_run(tmp_path, content)
    assert "ü" in page(tmp_path)
    shown(tmp_path)


def test_bare_and_broken_numbers_make_a_page(tmp_path: Path) -> None:
    write_run(
        tmp_path / "a", {"schema": 1, "name": "x", "control": True, "seed": 0, "data": {"name": "d", "classes": ["a"]}}
    )
    content = result(ARMS[1], classes=["a"])
    content["history"] = [row | {"test_accuracy": math.nan, "loss": math.nan} for row in content["history"]]
    content["test"] |= {"last": math.nan, "best": None, "best_epoch": None}
    content["transition"] = content["suspicion"] = content["cost"] = None
    content["data"] |= {"name": "d", "kind": "table", "noise": None}
    samples = [
        sample | {"given": 0, "suggested": 0, "suspicion": math.nan} for sample in gallery("text", 1 + 1, 0, number=2)
    ]
    write_run(tmp_path / "b", content, samples)
    text = page(tmp_path)
    assert "NaN" not in re.sub(r"<script>.*?</script>", "", text, flags=re.DOTALL)
    assert "no test" in text
    assert "nan" not in shown(tmp_path).lower()


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_write_is_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    write_run(tmp_path / "run", result())
    study = report.load(tmp_path / "run")
    target = report.write(study, tmp_path / "new" / "page.html")
    before = target.read_bytes()
    assert report.write(study, tmp_path) == tmp_path / "report.html"

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, step, fail)
    with pytest.raises(UnswayedError, match=r"room on the disk of .*new, but got a full disk"):
        report.write(study, target)
    assert target.read_bytes() == before
    assert [path.name for path in target.parent.iterdir()] == ["page.html"]


def test_write_to_a_place_that_is_none(tmp_path: Path) -> None:
    write_run(tmp_path / "run", result())
    (tmp_path / "file").touch()
    with pytest.raises(UnswayedError, match="a folder that can be written"):
        report.write(report.load(tmp_path / "run"), tmp_path / "file" / "page.html")


def test_the_same_study_gives_the_same_page(tmp_path: Path) -> None:
    write_study(tmp_path, seeds=2, arms=3, number=10)
    assert page(tmp_path) == page(tmp_path)


# Contrast, by the formula of the Web Content Accessibility Guidelines.


def colours() -> dict[str, tuple[str, str]]:
    css = resources.files("unswayed.report").joinpath("palette.css").read_text(encoding="utf-8")
    return {name: (light, dark) for name, light, dark in re.findall(r"--([\w-]+): light-dark\((#\w+), (#\w+)\)", css)}


def channels(colour: str) -> list[float]:
    return [int(colour[i : i + 2], 16) for i in (1, 3, 5)]


def contrast(one: list[float], other: list[float]) -> float:
    def luminance(rgb: list[float]) -> float:
        linear = [v / 255 / 12.92 if v / 255 <= 0.04045 else ((v / 255 + 0.055) / 1.055) ** 2.4 for v in rgb]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("theme", [0, 1])
def test_colours_can_be_told_from_their_ground(theme: int) -> None:
    found = {name: channels(pair[theme]) for name, pair in colours().items()}
    assert contrast([0, 0, 0], [255, 255, 255]) == pytest.approx(21)
    for ground in ("paper", "surface"):
        for text in ("ink", "soft", "accent", "good", "bad"):
            assert contrast(found[text], found[ground]) >= 4.5, (text, ground)
        for mark in ("control", "strong-rule", *(name for name in found if name.startswith("hue-"))):
            assert contrast(found[mark], found[ground]) >= 3, (mark, ground)


@pytest.mark.parametrize("theme", [0, 1])
def test_numbers_in_matrices_can_be_read_at_every_shade(theme: int) -> None:
    heat, surface = (channels(colours()[name][theme]) for name in ("heat", "surface"))
    template = resources.files("unswayed.report").joinpath("figures.html").read_text(encoding="utf-8")
    deep = re.search(r"cell\.shade > (\d+) %\}", template)
    assert deep
    pale_text, deep_text = ([0.0] * 3, [255.0] * 3) if theme == 0 else ([255.0] * 3, [0.0] * 3)
    for shade in range(101):
        ground = [shade / 100 * h + (1 - shade / 100) * s for h, s in zip(heat, surface, strict=True)]
        assert contrast(ground, deep_text if shade > int(deep[1]) else pale_text) >= 4.5, shade
