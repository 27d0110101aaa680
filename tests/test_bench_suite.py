"""Suites: what they say, what is changed about them, and what their cells are called."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from unswayed.bench import Cell, entries, make_suite, read_suite, shipped
from unswayed.bench.published import parse_figures, read_figures
from unswayed.bench.published import shipped as published
from unswayed.bench.suite import read_yaml
from unswayed.errors import UnswayedError
from unswayed.experiment.arms import parse_arm
from unswayed.experiment.config import Config
from unswayed.experiment.run import draft

TINY: dict[str, Any] = {
    "epochs": 4,
    "seeds": 2,
    "tasks": {
        "wine": {"data": "wine", "noise": "symmetric", "rate": [0.2, 0.4], "body": "mlp(widths=8)"},
        "digits": {"data": "digits", "limit": 100},
    },
    "arms": ["plain", "gce"],
    "heads": ["linear", "edge-masked"],
}


def cells(*changes: str, **own: Any) -> list[Cell]:
    return [entry.options[0] for entry in entries(make_suite("tiny", TINY | own, changes))]


def test_a_grid_is_tasks_by_arms_by_heads_by_seeds_seed_by_seed() -> None:
    found = cells()
    assert [cell.seed for cell in found] == [0] * 12 + [1] * 12
    assert [cell.task for cell in found[:12:4]] == ["wine-20", "wine-40", "digits"]
    assert [cell.arm for cell in found[:4]] == ["plain", "plain edge-masked", "gce", "gce edge-masked"]
    assert found[5].config == Config(
        "wine", arm="plain edge-masked mlp(widths=8)", noise="symmetric", rate=0.4, epochs=4
    )
    assert len({cell.key for cell in found}) == len(found)


def test_the_nearest_place_counts() -> None:
    arms = {
        "quick": {"arm": "plain", "epochs": 1},
        "plain": "plain",
        "other": {"arm": "plain mlp", "heads": ["linear"]},
    }
    found = {(cell.task, cell.arm): cell.config for cell in cells(arms=arms)}
    assert found["wine-20", "plain"].epochs == 4
    assert found["wine-20", "quick edge-masked"].epochs == 1
    assert found["wine-20", "other"].arm == "plain mlp"  # its own body, and not the task's
    assert ("wine-20", "other edge-masked") not in found


@pytest.mark.parametrize(
    ("change", "hits", "value"),
    [
        ("epochs=7", {"wine-20", "wine-40", "digits"}, 7),
        ("tasks.wine.epochs=7", {"wine-20", "wine-40"}, 7),
        ("tasks.w*.epochs=7", {"wine-20", "wine-40"}, 7),
        ("tasks.wine-40.epochs=7", {"wine-40"}, 7),
        ("tasks.*-40.epochs=7", {"wine-40"}, 7),
    ],
)
def test_changes_reach_what_they_name(change: str, hits: set[str], value: int) -> None:
    assert {cell.task for cell in cells(change) if cell.config.epochs == value} == hits


def test_a_change_of_all_gives_way_to_nothing() -> None:
    arms = {"plain": {"arm": "plain", "lr": 0.1}, "gce": "gce"}
    tasks = {"wine": {"data": "wine", "lr": 0.2}}
    assert {cell.config.lr for cell in cells("lr=1e-3", arms=arms, tasks=tasks)} == {0.001}
    assert {cell.config.lr for cell in cells("arms.gce*.lr=.5", arms=arms, tasks=tasks)} == {0.1, 0.2, 0.5} - {0.2}


def test_other_data_lose_the_name_of_the_old() -> None:
    given = TINY | {"tasks": {"images": {"data": "digits", "source": "Digits (JPEG)"}}}
    assert make_suite("tiny", given).tasks[0].title == "Digits (JPEG)"
    for change in ("data=wine", "tasks.images.data=wine"):
        assert make_suite("tiny", given, [change]).tasks[0].title == "wine"


def test_thinning(tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text("tasks: {a: {data: wine}, b: {data: digits}}\narms: [plain, gce, sce]\n")
    suite = read_suite(tmp_path / "own.yaml", arms=["?ce"], tasks=["b"], seeds=2, first=5)
    assert suite.seeds == (5, 6)
    assert [arm.name for arm in suite.arms] == ["gce", "sce"]
    assert [task.name for task in suite.tasks] == ["b"]
    with pytest.raises(UnswayedError, match=r"a pattern that some arm fits, but got 'gcee'; did you mean gce"):
        read_suite(tmp_path / "own.yaml", arms=["gcee"])


def test_a_suite_in_python(tmp_path: Path) -> None:
    text = "SUITE = {'tasks': {f'd{n}': {'data': 'digits', 'limit': n} for n in (50, 60)}, 'arms': ['plain']}"
    (tmp_path / "own.py").write_text(text)
    assert [task.fields["limit"] for task in read_suite(tmp_path / "own.py").tasks] == [50, 60]
    (tmp_path / "none.py").write_text("SUITES = 1")
    with pytest.raises(UnswayedError, match=r"a mapping SUITE in .*none.py, but got none"):
        read_suite(tmp_path / "none.py")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epochs: 3\ntask: {a: {data: wine}}", r"a key of a suite, but got 'task'; did you mean tasks"),
        (
            "tasks: {a: {data: wine, epoch: 3}}\narms: [plain]",
            r"a key of the task a, but got 'epoch'; did you mean epoc",
        ),
        ("tasks: {a: {data: wine}}\narms: [{arm: plain, learning: 1}]", r"a key of the arm plain, but got 'learning'"),
        ("tasks: {a: {data: wine}}\narms: [plian]", r"got 'plian'; did you mean plain"),
        ("tasks: {a: {}}\narms: [plain]", r"data of the task a, as text, but got None"),
        ("tasks: {a: {data: wine}}", r"a suite with arms, but got none"),
        ("arms: [plain]", r"a suite with tasks, but got none"),
        ("tasks: {a: {data: wine}}\narms: [plain, plain]", r"arms that differ, but got 'plain' twice"),
        ("tasks: {a: {data: wine}, a: {data: digits}}\narms: [plain]", r"every key once, but got 'a' twice"),
        ("tasks: {a: {data: wine}}\narms: [plain]\nseeds: 0", r"seeds is how many, 1 or more, but got 0"),
        ("tasks: {a: {data: wine}}\narms: [plain]\nrepair: {epoch: 1}", r"a key of repair, but got 'epoch'"),
        ("tasks: [", r"YAML in own.yaml"),
        (
            "tasks: {a: {data: wine}}\narms: [plain, gce]\n"
            "tune: {settings: {plain: [{lr: .1}, {lr: .2}], gce: [{lr: 1}]}}",
            r"equally many settings .* for every arm, but got plain 2, gce 1",
        ),
        (
            "tasks: {a: {data: wine}}\narms: [plain, gce]\ntune: {settings: {plain: [{lr: .1}]}}",
            r"settings to choose from for every arm, but got none for gce",
        ),
    ],
)
def test_what_is_wrong_with_a_suite_is_told(text: str, message: str) -> None:
    with pytest.raises(UnswayedError, match=message):
        make_suite("own", read_yaml(text, "own.yaml"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("epoch=3", r"a key of --set, but got 'epoch'; did you mean epochs"),
        ("tasks.wines.epochs=3", r"tasks that fit --set tasks.wines, but got none; did you mean wine"),
        ("arms.gce.rat=3", r"a key of --set arms.gce, but got 'rat'; did you mean rate"),
        ("epochs", r"--set KEY=VALUE"),
        ("tasks=3", r"--set tasks.NAME.KEY=VALUE"),
    ],
)
def test_what_is_wrong_with_a_change_is_told(change: str, message: str) -> None:
    with pytest.raises(UnswayedError, match=message):
        cells(change)


def test_an_unknown_suite_tells_the_nearest() -> None:
    with pytest.raises(UnswayedError, match=r"got 'quik'; did you mean quick"):
        read_suite("quik")


@pytest.mark.parametrize("name", shipped())
def test_what_is_shipped_can_run(name: str) -> None:
    suite = read_suite(name)
    assert suite.about
    found = [entry.options[0] for entry in entries(suite) if entry.seed == 0]
    assert len({cell.key for cell in found}) == len(found)
    assert suite.control in [arm.name for arm in suite.arms] or suite.repair is not None
    for cell in {cell.arm: cell for cell in found}.values():
        if parse_arm(cell.config.arm).method != "unicon":  # it asks for a body, which a draft has not
            draft(parse_arm(cell.config.arm))  # settings that no data make good raise here
        cell.config.training("image")
    if name == "quick":
        assert all(task.fields["data"] in ("digits", "wine", "breast-cancer") for task in suite.tasks)


@pytest.mark.parametrize("name", published())
def test_published_figures_fit_a_suite(name: str) -> None:
    figures = read_figures(name)
    assert figures
    assert all(0 < figure.value < 100 and figure.where and figure.title for figure in figures)
    suites = [suite for suite in map(read_suite, shipped()) if name in suite.published]
    places = {(task.name, arm.name) for suite in suites for task in suite.tasks for arm in suite.arms}
    ways = {("fashion-inputs", way) for way in ("before", "L-FT", "F-FT", "retrained")}  # of repair
    tasks = {task.name for suite in suites for task in suite.tasks}
    assert {figure.task for figure in figures} <= tasks
    assert any((figure.task, figure.arm) in places | ways for figure in figures)


def test_published_figures_name_their_source() -> None:
    text = '[[sources]]\ntitle = "A paper"\n[sources.values.plain]\nwine = 90.0\n'
    with pytest.raises(UnswayedError, match="title, where and measure"):
        parse_figures(text, "own")


# ------------------------------------------------------------------------------------------------ names of cells


def test_the_name_of_a_cell_stays() -> None:
    """Results of earlier versions are found again: these names must never change."""
    config = Config("digits", arm="gce edge-masked(keep=.1)", seed=3, noise="symmetric", rate=0.4, epochs=20)
    assert Cell("any", "any", 3, config).key == "5eb315bf7c2fdbd9"
    more = {"repair": {"epochs": 10}, "corrupted": 0.5, "strength": 3.0}
    assert Cell("any", "any", 0, Config("{root}/set"), "repair", more).key == "2e4dfb320acb927f"


def test_what_does_not_decide_a_result_is_not_in_its_name() -> None:
    config = Config("digits", arm="gce edge-masked(keep=.1)", rate=0.0, lr=1.0)
    cell = Cell("a", "b", 0, config)
    assert cell.key == Cell("c", "d", 0, config).key
    for same in (
        Config("digits", arm="edge-masked(keep=0.1)   gce", lr=1, device="cuda:3"),
        Config("digits", arm="plain gce edge-masked(keep=.1)", lr=1.0, hold_out=0.2, precision="fp32"),
    ):
        assert Cell("a", "b", 0, same).key == cell.key, same
    for other in (
        Config("digits", arm="gce edge-masked(keep=.2)", lr=1.0),
        Config("digits", arm="gce edge-masked(keep=.1)", lr=1.0, seed=1),
        Config("digits", arm="gce edge-masked(keep=.1)", lr=1.0, precision="bf16"),
        Config("wine", arm="gce edge-masked(keep=.1)", lr=1.0),
    ):
        assert Cell("a", "b", 0, other).key != cell.key, other
    assert Cell("a", "b", 0, config, more={"hold_out_given": 0.2}).key != cell.key
    assert "device" not in cell.identity["config"]


def test_trials_are_cells_of_their_own() -> None:
    tune = {"settings": {"*": [{"lr": 0.1}, {"lr": 0.01}, {"arm": "gce(q=.5)"}]}}
    entry = next(iter(entries(make_suite("tiny", TINY | {"tune": tune}))))
    assert [cell.config.lr for cell in entry.options] == [0.1, 0.01, None]
    assert [cell.trial for cell in entry.trials] == [0, 1, 2]
    assert entry.options[2].config.arm == "gce(q=.5) mlp(widths=8)"
    assert len({cell.key for cell in (*entry.options, *entry.trials)}) == 6
