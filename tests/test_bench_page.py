"""Table and page of a bench, from results that are made up or missing; the page in headless Chromium."""

from __future__ import annotations

import io
import json
import math
import random
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from unswayed.bench import Results, entries, make_suite, tables, write
from unswayed.bench.export import aggregated, as_plain, markdown
from unswayed.bench.grid import Entry
from unswayed.bench.page import render
from unswayed.bench.results import Failure, Score
from unswayed.bench.tuning import choose

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "results" / "bench"
GAINS = {"plain": 0.0, "gce": 0.08, "nce+agce": 0.10, "anl-ce(alpha=<b>&)": -0.01, "co-teaching": 0.05}
SUITE: dict[str, Any] = {
    "about": "Made up <script>alert(1)</script>, to see what it looks like.",
    "data": "digits",
    "source": "CIFAR-10 (JPEG)",
    "tasks": {
        "symmetric": {"noise": "symmetric", "rate": [0.2, 0.4, 0.6, 0.8]},
        "asymmetric": {"noise": "pair", "rate": [0.2, 0.4]},
        "rows": {"limit": [100, 1000]},
    },
    "arms": {name: {"arm": name.replace("(alpha=<b>&)", "")} for name in GAINS},
    "heads": ["linear", "edge-masked", "edge-masked(score=random)"],
    "seeds": 5,
    "published": "anl-cifar10",
    "tune": {"settings": {"*": [{"lr": 0.1}, {"lr": 0.01}]}},
}


def made_up(**changes: Any) -> Results:
    """Results of every arm on every task but one; one seed missing, one cell failed."""
    draw = random.Random(0)
    suite = make_suite("made-up", SUITE | changes)
    scores, choices, grid = [], [], list(entries(suite))
    for entry in grid:
        task = suite.task(entry.task)
        head = 0.01 * ("masked" in entry.arm) - 0.008 * ("random" in entry.arm)
        base = 0.9 - 0.4 * task.fields.get("rate", 0.2) + GAINS[entry.arm.partition(" edge")[0]] + head
        accuracy = min(0.99, base + draw.gauss(0, 0.012) + 0.01 * entry.seed)
        cost = (1 + 1.2 * ("co-" in entry.arm) + 0.03 * ("masked" in entry.arm)) * (20 + draw.random())
        scores.append(Score(entry.task, entry.arm, entry.seed, accuracy, 0.8, cost, 100, 1000, 5e8))
        choices.append((entry, choose([draw.random(), draw.random()])))
    failure = Failure(
        grid[0].trials[0] if grid[0].trials else grid[0].options[0], "Traceback:\nRuntimeError: <i>broken"
    )
    gone = [s for s in scores if (s.task, s.arm, s.seed) != ("asymmetric-40", "co-teaching", 4)]
    missing: tuple[Entry, ...] = (grid[-1],)
    about = ("unswayed 0.1.0, torch 2.6",), ("processor x, cores 2",)
    return Results(suite, tuple(gone), missing, (failure,), tuple(choices), *about, ("digits: a note.",))


def test_the_page_holds_every_part_and_escapes_what_users_write(tmp_path: Path) -> None:
    page = write(made_up(), tmp_path / "page.html").read_text(encoding="utf-8")
    for part in ("arms", "ranks", "tasks", "noise", "masking", "cost", "published", "tuning", "made-with"):
        assert f'id="{part}"' in page
    assert "<script" not in page
    assert "&lt;script&gt;alert(1)" in page
    assert "<b>" not in page
    assert "RuntimeError: &lt;i&gt;broken" in page
    assert "CIFAR-10 (JPEG), symmetric 40" in page
    assert "arXiv 2412.02373" in page
    assert "1 run missing" in page
    assert not re.search(r"(src|href)=\"(?!#|data:)", page), "nothing is fetched from anywhere"
    assert "nan" not in page.lower().replace("finance", "").split("<style>")[0] + page.split("</style>")[1].lower()


@pytest.mark.parametrize(
    "changes",
    [
        {"seeds": 1, "tune": None},
        {"tasks": {"a": {"data": "wine"}}, "arms": ["plain"], "heads": ["linear"], "tune": None},
        {"control": "none-such"},
        {"arms": ["plain", "gce"], "heads": ["linear"]},
    ],
    ids=["one seed", "one arm on one task", "no control", "two arms"],
)
def test_little_is_no_fault(changes: dict[str, Any]) -> None:
    made = made_up(**changes)
    page = render(made)
    assert "<h1>" in page
    console = Console(record=True, width=100, file=io.StringIO())
    console.print(tables(made))
    assert made.suite.name in console.export_text()
    assert as_plain(made)["suite"] == "made-up"


def test_nothing_is_reported_where_nothing_ran(tmp_path: Path) -> None:
    empty = replace(made_up(), scores=(), choices=(), failures=(), versions=(), machines=(), notes=())
    assert "Nothing has run yet" in render(empty)


def test_the_table_says_what_the_page_says() -> None:
    console = Console(record=True, width=120, file=io.StringIO())
    made = made_up()
    console.print(tables(made))
    text = console.export_text()
    assert "no difference shown" in text
    assert "What an edge-masked head adds" in text
    assert "Published figures beside ours" in text
    assert "Holm" in text
    plain = as_plain(made)
    assert len(plain["runs"]) == len(made.scores)
    assert {one["arm"] for one in plain["masking"]} == {f"{arm} edge-masked" for arm in GAINS}
    assert all(math.isfinite(one["difference"]) for one in plain["published"])


def test_what_is_kept_is_small_and_tells_where_it_is_from() -> None:
    made = made_up()
    kept = json.loads(json.dumps(aggregated(made), allow_nan=False))
    assert kept["config"]["tasks"][0]["fields"]["rate"] == 0.2
    assert (kept["seeds"], kept["missing"], kept["runs"]) == ([0, 1, 2, 3, 4], 1, len(made.scores))
    assert (kept["versions"], kept["machines"]) == (list(made.versions), list(made.machines))
    assert len(kept["accuracies"]) == len(made.table)
    (whole,) = [one for one in kept["arms"] if one["arm"] == "gce"]
    assert whole["gain"]["verdict"] == "better"
    assert sum(map(len, whole["tasks"].values())) == len(made.tasks)
    lines = markdown(kept).splitlines()
    assert len(lines) == 2 + len(made.arms)
    assert lines[2].startswith("| `plain` | ")
    assert "| control | – |" in lines[2]
    assert "no difference shown" in markdown(kept)


@pytest.mark.parametrize("file", sorted(RESULTS.glob("*.json")), ids=lambda file: file.stem)
def test_the_tables_in_the_docs_are_those_of_the_files(file: Path) -> None:
    kept = json.loads(file.read_text(encoding="utf-8"))
    assert kept["missing"] == 0
    assert kept["machines"]
    assert markdown(kept) in (ROOT / "docs" / "bench.md").read_text(encoding="utf-8")


@pytest.mark.slow
@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (1280, "dark"), (400, "light")])
def test_the_page_in_a_browser(tmp_path: Path, browser: Any, width: int, scheme: Any) -> None:
    page = write(made_up(), tmp_path / "page.html")
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    tab, faults = context.new_page(), list[str]()
    tab.on("console", lambda message: faults.append(message.text))
    tab.on("request", lambda request: None if request.url.startswith("file:") else faults.append(request.url))
    tab.goto(page.as_uri())
    assert tab.locator("svg.drawing").count() == 6  # ranks, three families, gains, cost
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    for drawing in tab.locator("svg.drawing").all():
        box = drawing.evaluate("e => { const b = e.getBBox(); return [b.x, b.y, b.x + b.width, b.y + b.height] }")
        assert box[0] >= -1
        assert box[2] <= 881, "no name reaches beyond its drawing"
    assert faults == []
    context.close()
