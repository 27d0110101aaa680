"""Records of the methods: every method has one, its code is there, its figures are in their files, its page is new."""

from __future__ import annotations

import importlib
import json
from dataclasses import replace
from functools import reduce
from inspect import signature
from math import fsum
from pathlib import Path

import pytest
from typer.testing import CliRunner

from benchmarks.methods.pages import PAGES, pages
from unswayed import UnswayedError, mending, methods
from unswayed.cli import app
from unswayed.methods.record import Measured, as_markdown, read_record, record, recorded

ROOT = Path(__file__).parents[1]
SMALL = """
does = "Little."
cost = "None."
use = ["Never."]
avoid = ["Always."]
[[sources]]
title = "T"
authors = "A"
"""


OTHERS = {"repair": (mending.repair, mending.diagnose)}  # what is no method, and whose settings its record names


def test_every_method_has_a_record() -> None:
    assert set(recorded()) - OTHERS.keys() == set(methods.names())
    assert [name for name in recorded() if record(name).command] == [*OTHERS]
    assert record("rlap") == record("repair")


@pytest.mark.parametrize("name", recorded())
def test_a_record_says_what_it_must(name: str) -> None:
    found = record(name)
    assert 2 <= len(found.does.splitlines()) <= 7
    assert all(source.arxiv or source.venue for source in found.sources) or name in ("plain", "tuned")
    assert found.cost
    options = (
        {o for f in OTHERS[name] for o in signature(f).parameters} if name in OTHERS else methods.settings_of(name)
    )
    for difference in found.differences:
        for option in filter(None, difference.option.split(", ")):
            assert option.split("=")[0] in options, f"{name} has no setting {option}"


@pytest.mark.parametrize("name", recorded())
def test_formulas_stand_where_the_record_says(name: str) -> None:
    for formula in record(name).formulas:
        module, _, path = formula.code.partition(":")
        assert module.startswith("unswayed.")
        assert reduce(getattr, path.split("."), importlib.import_module(module)) is not None


@pytest.mark.parametrize("name", recorded())
def test_measured_figures_point_to_files(name: str) -> None:
    for measured in record(name).measured:
        cells = json.loads((ROOT / measured.file).read_text(encoding="utf-8"))["cells"]
        found = [cell["accuracy"] for cell in cells if cell["arm"] == measured.arm]
        assert len(found) == measured.seeds
        assert f"{fsum(found) / len(found):.1f}" == measured.value


def test_pages_are_made_from_the_records() -> None:
    made = dict(pages())
    do = "run python -m benchmarks.methods.pages"
    assert {file.name for file in PAGES.glob("*.md")} == made.keys(), do
    assert [name for name, text in made.items() if (PAGES / name).read_text(encoding="utf-8") != text] == [], do


@pytest.mark.parametrize("name", methods.names())
def test_every_methods_page_has_all_its_parts(name: str) -> None:
    page = (PAGES / f"{name}.md").read_text(encoding="utf-8")
    parts = page.split("\n## ")
    assert 2 <= len(parts[0].split("```")[0].strip().splitlines()[2:]) <= 7
    titles = [part.splitlines()[0] for part in parts[1:]]
    for title in ("When to use it", "When not to use it", "Source", "Formulas, and where they stand", "Measured here"):
        assert title in titles, f"{name}.md has no part {title}"
    assert record(name).gains in page
    assert record(name).shortfall in page


def test_show_prints_the_record() -> None:
    said = CliRunner().invoke(app, ["show", "mixup"])
    assert said.exit_code == 0
    assert "1710.09412" in said.stdout
    assert "unswayed.stats.semi:mix" in said.stdout
    assert json.loads(CliRunner().invoke(app, ["show", "mixup", "--json"]).stdout)["name"] == "mixup"
    assert CliRunner().invoke(app, ["show", "mixup", "--markdown"]).stdout == as_markdown(record("mixup"))


def test_show_knows_the_nearest_name() -> None:
    with pytest.raises(UnswayedError, match="did you mean mixup"):
        record("mixupp")


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (SMALL.replace('cost = "None."', ""), "complete record"),
        (SMALL.replace('["Always."]', "[]"), "with avoid"),
        (SMALL.replace('["Never."]', "[]"), "with use"),
        (SMALL + "[[formulas]]\nwhat = 'x'\n", "complete formula"),
        (SMALL + "[[formulas]]\nwhat = 'x'\nfoo = 'y'\n", "but got foo"),
        ("does = ", "TOML"),
    ],
)
def test_a_broken_record_is_named(broken: str, message: str) -> None:
    assert read_record("small", SMALL).does == "Little."
    with pytest.raises(UnswayedError, match=message):
        read_record("small", broken)


def test_shortfall_names_what_was_shown_to_be_worse_alone() -> None:
    def measured(data: str, over: str, verdict: str) -> Measured:
        return Measured(data, "pes", "60.0", over, 3, "results/x.json", verdict)

    found = replace(record("pes"), measured=(measured("news", "−14.6 ± 12.2", "worse"), measured("a", "−1.0", "")))
    assert found.shortfall == "Falls short of plain cross-entropy here: news (pes: −14.6 ± 12.2)."
    assert found.shortfall in as_markdown(found)
    assert replace(found, measured=found.measured[1:]).shortfall == ""


@pytest.mark.parametrize("name", recorded())
def test_verdicts_are_those_of_the_intervals(name: str) -> None:
    for measured in record(name).measured:
        mean, _, half = measured.over_plain.replace("−", "-").partition(" ± ")
        if not half:
            assert measured.verdict == ""
        elif abs(abs(float(mean)) - float(half)) > 0.1:  # nearer, and rounding hides what was found
            shown = abs(float(mean)) > float(half)
            assert measured.verdict == (("better" if float(mean) > 0 else "worse") if shown else "")
