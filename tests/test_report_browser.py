"""The page in headless Chromium: drawn, sorted, read by keyboard, without errors, requests or overflow."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from report_study import write_analysed, write_study
from test_report_page import evil_study

from unswayed import report


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Pages: one comparison; several of all kinds; one whose texts try to break out; and one of analysed runs."""
    folder = tmp_path_factory.mktemp("studies")
    write_study(folder / "one", seeds=3)
    for kind, classes in (("image", [f"a-class-with-a-long-name-{i}" for i in range(30)]), ("audio", ["yes", "no"])):
        write_study(folder / "many", kind=kind, data=kind, classes=classes, seeds=2, arms=3)
    write_study(folder / "many", kind="text", data="text", classes=["bad", "good"], seeds=1, arms=2)
    evil_study(folder / "evil")
    write_analysed(folder / "analysed")
    names = ("one", "many", "evil", "analysed")
    return {name: report.write(report.load(folder / name), folder / f"{name}.html") for name in names}


class Opened:
    """A page in the browser, and everything that it did which it should not do."""

    def __init__(self, browser: Any, path: Path, scheme: str = "light") -> None:
        self.context = browser.new_context(viewport={"width": 1280, "height": 900}, color_scheme=scheme)
        self.tab = self.context.new_page()
        self.faults: list[str] = []
        self.tab.on("console", lambda message: self.faults.append(f"console: {message.text}"))
        self.tab.on("pageerror", lambda error: self.faults.append(f"error: {error}"))
        self.tab.on("dialog", lambda dialog: self.faults.append(f"dialog: {dialog.message}"))
        self.tab.on("request", self._request)
        self.address = path.as_uri()
        self.tab.goto(self.address)

    def _request(self, request: Any) -> None:
        if request.url != self.address and not request.url.startswith("data:"):
            self.faults.append(f"request: {request.url}")

    def column(self, place: str) -> list[str]:
        return [str(text) for text in self.tab.locator(place).all_text_contents()]


@pytest.fixture
def visit(browser: Any) -> Iterator[Any]:
    opened: list[Opened] = []

    def open_page(path: Path, **settings: Any) -> Opened:
        opened.append(Opened(browser, path, **settings))
        return opened[-1]

    yield open_page
    faults = [fault for each in opened for fault in each.faults]
    for each in opened:
        each.context.close()
    assert faults == []


def test_everything_is_drawn(visit: Any, pages: dict[str, Path]) -> None:
    tab = visit(pages["one"]).tab
    assert tab.locator(".plot .line").count() == 12
    assert all(
        box["width"] > 300 and box["height"] > 150 for box in (p.bounding_box() for p in tab.locator(".plot svg").all())
    )
    assert tab.locator(".matrices:visible").count() == 1
    assert tab.locator(".matrices:visible tbody td").count() == 300
    images = tab.locator(".samples img")
    assert images.count() == 48
    assert (
        tab.evaluate(
            "Promise.all([...document.images].map((i) => i.decode())).then(() => document.images[0].naturalWidth)"
        )
        == 16
    )
    assert images.first.evaluate("(image) => getComputedStyle(image).imageRendering") == "pixelated"


def test_every_kind_of_sample_is_shown(visit: Any, pages: dict[str, Path]) -> None:
    tab = visit(pages["many"]).tab
    assert tab.locator(".samples audio[controls]").count() == 48
    assert tab.locator(".samples blockquote").count() == 48
    quoted = tab.locator(".samples blockquote").first.evaluate("(q) => getComputedStyle(q, '::before').content")
    assert quoted == '"“"'
    played = tab.locator(".samples audio").first.evaluate(
        """(a) => new Promise((done) => {
            a.onloadedmetadata = () => done(a.duration);
            a.onerror = () => done(-1);
            a.preload = "metadata";
            a.load();
        })"""
    )
    assert played == pytest.approx(0.2)


def test_the_gallery_sorts_filters_and_grows(visit: Any, pages: dict[str, Path]) -> None:
    opened = visit(pages["one"])
    tab = opened.tab
    rows = ".samples li"
    by_suspicion = [li.get_attribute("data-row") for li in tab.locator(rows).all()]
    tab.locator("[data-of=sort]").select_option("row")
    numbers = [int(li.get_attribute("data-row")) for li in tab.locator(rows).all()]
    assert numbers == sorted(numbers)
    assert len(numbers) == 48
    tab.get_by_role("button", name="Reverse").click()
    numbers = [int(li.get_attribute("data-row")) for li in tab.locator(rows).all()]
    assert numbers == sorted(numbers, reverse=True)
    tab.get_by_role("button", name="Reverse").click()
    tab.locator("[data-of=sort]").select_option("given")
    given = opened.column(".labels span:nth-child(2)")
    assert given == sorted(given)
    tab.locator("[data-of=sort]").select_option("suspicion")
    assert [li.get_attribute("data-row") for li in tab.locator(rows).all()] == by_suspicion
    tab.get_by_role("button", name="Show 48 more").click()
    assert tab.locator(rows).count() == 96
    tab.locator("[data-of=given]").select_option("3")
    tab.locator("[data-of=suggested]").select_option("7")
    assert set(opened.column(".labels")) == {"given 3→suggested 7"}
    assert tab.locator("[data-of=status]").inner_text().startswith(f"{tab.locator(rows).count()} of ")
    tab.locator("[data-of=suggested]").select_option("")
    tab.locator("[data-of=gallery]").select_option(label="plain CE, seed 2")
    assert {text.split("→")[0] for text in opened.column(".labels")} == {"given 3"}  # a filter outlives its gallery
    assert tab.locator(".truth:visible").count() > 0
    tab.get_by_label("Show the truth").uncheck()
    assert tab.locator(".truth:visible").count() == 0
    assert "truth" not in tab.locator("[data-of=status]").inner_text()


def test_the_first_gallery_is_not_the_control(visit: Any, pages: dict[str, Path]) -> None:
    tab = visit(pages["one"]).tab
    chosen = "(choice) => choice.selectedOptions[0].textContent"
    assert tab.locator("[data-of=gallery]").evaluate(chosen) == "tuned CE, seed 0"
    assert tab.locator("[data-matrices]").evaluate(chosen) == "tuned CE"
    tab.locator("[data-matrices]").select_option(label="random mask")
    assert tab.locator(".matrices:visible caption").first.inner_text().startswith("random mask")


def test_curves_are_read_by_pointer_and_by_keyboard(visit: Any, pages: dict[str, Path]) -> None:
    tab = visit(pages["one"]).tab
    reader = tab.get_by_role("slider").first
    reader.focus()
    for key in ("Home", "Home", "ArrowRight"):
        reader.press(key)
    assert reader.get_attribute("aria-valuenow") == "2"
    assert "epoch 2: " in reader.get_attribute("aria-valuetext")
    assert len(tab.locator(".values p").all()) == 6
    box = reader.bounding_box()
    tab.mouse.move(box["x"] + box["width"] - 1, box["y"] + 20)
    assert reader.get_attribute("aria-valuenow") == "30"
    alone = tab.get_by_role("button", name="random mask")
    alone.click()
    assert tab.locator(".plot .dim").count() == 10
    alone.click()
    assert tab.locator(".plot .dim").count() == 0


def test_light_and_dark_follow_the_system_until_the_reader_chooses(visit: Any, pages: dict[str, Path]) -> None:
    ground = "() => getComputedStyle(document.documentElement).backgroundColor"
    tab = visit(pages["one"], scheme="dark").tab
    dark = tab.evaluate(ground)
    assert dark != visit(pages["one"], scheme="light").tab.evaluate(ground)
    tab.get_by_role("button", name="Switch to light colours").click()
    light = tab.evaluate(ground)
    assert light != dark
    tab.reload()
    assert tab.evaluate(ground) == light
    tab.get_by_role("button", name="Switch to dark colours").click()
    assert tab.evaluate(ground) == dark


def test_analyses_are_drawn_and_read(visit: Any, pages: dict[str, Path]) -> None:
    tab = visit(pages["analysed"]).tab
    block = tab.locator("#s1-analyses")
    assert block.locator(".plot").count() == 8
    pictures = block.locator(".mask img")
    assert pictures.evaluate_all("(all) => all.map((i) => [i.naturalWidth, i.naturalHeight])") == [[64, 10]] * 3
    assert all(box["height"] > 100 and box["width"] > 200 for box in (p.bounding_box() for p in pictures.all()))
    names = block.locator(".mask").first.locator("li")
    for edge in (0, 9):  # names stand beside their rows
        row = pictures.first.bounding_box()["y"] + (edge + 0.5) * pictures.first.bounding_box()["height"] / 10
        name = names.nth(edge).bounding_box()
        assert abs(name["y"] + name["height"] / 2 - row) < 3
    reader = block.get_by_role("slider", name="Read gradient cosine at an epoch")
    reader.focus()
    reader.press("End")
    assert reader.get_attribute("aria-valuetext").startswith("epoch 9: plain CE −0.65")
    memory = block.get_by_role("slider", name="Read wrong labels learnt by heart at an epoch")
    memory.focus()
    memory.press("End")
    assert "plain CE 80.0 percent" in memory.get_attribute("aria-valuetext")
    block.get_by_role("button", name="plain CE").click()
    assert tab.locator("#s1-curves [data-only='0']").get_attribute("aria-pressed") == "true"
    assert block.locator(".plot g:not(.dim)").count() == 5


@pytest.mark.parametrize("name", ["one", "many", "evil", "analysed"])
def test_nothing_is_wider_than_the_window(visit: Any, pages: dict[str, Path], name: str) -> None:
    tab = visit(pages[name]).tab
    tab.evaluate("document.querySelectorAll('details').forEach((each) => { each.open = true; })")
    for width in (320, 380, 768, 1000, 1600):
        tab.set_viewport_size({"width": width, "height": 900})
        assert tab.evaluate("document.documentElement.scrollWidth") == width


def test_what_users_write_does_not_run(visit: Any, pages: dict[str, Path]) -> None:
    opened = visit(pages["evil"])
    assert opened.tab.evaluate("window.hacked") is None
    assert opened.tab.locator(".samples li").count() == 5
    assert "onerror" in opened.tab.locator(".samples blockquote").first.inner_text()


def test_the_policy_stops_what_would_get_through(browser: Any, pages: dict[str, Path], tmp_path: Path) -> None:
    """A planted script and a planted image: the page's own policy refuses both."""
    planted = tmp_path / "planted.html"
    text = pages["one"].read_text(encoding="utf-8")
    bad = '<script>window.hacked=1</script><img src="https://unswayed.invalid/x.png">'
    planted.write_text(text.replace("<main", bad + "<main", 1), encoding="utf-8")
    opened = Opened(browser, planted)
    assert opened.tab.evaluate("window.hacked") is None
    assert len([fault for fault in opened.faults if "Content Security Policy" in fault]) == 2
    opened.context.close()
