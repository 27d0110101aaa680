"""The review in headless Chromium: a long list, keys alone, light and dark, names for screen readers, hostile data."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from review_case import digits_audit, make_audit

from unswayed import Config
from unswayed.review import Case, open_case, serve
from unswayed.review.store import CONFLICT, OPEN, SETTLED, SKIPPED

uvicorn = pytest.importorskip("uvicorn", reason="needs uvicorn (pip install unswayed[review])")
pytestmark = pytest.mark.slow

MANY = 60_000


class Running:
    """A case that is served for real, in a thread."""

    def __init__(self, case: Case) -> None:
        self.case, self.address, self.server = case, "", None
        run = uvicorn.Server.run
        told: list[str] = []

        def remembered(server: Any, *args: Any, **settings: Any) -> None:
            self.server = server
            run(server, *args, **settings)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(uvicorn.Server, "run", remembered)
            self.thread = threading.Thread(target=lambda: serve(case, reviewer="Ada", ready=told.append), daemon=True)
            self.thread.start()
            deadline = time.monotonic() + 60
            while not (self.server and self.server.started):
                assert time.monotonic() < deadline
                time.sleep(0.02)
        self.address = told[0]

    def stop(self) -> None:
        assert self.server is not None
        self.server.should_exit = True
        self.thread.join(30)


class Opened:
    """The page in a browser, and everything that it did which it should not do."""

    def __init__(self, browser: Any, address: str, scheme: str = "light", width: int = 1280, **settings: Any) -> None:
        self.context = browser.new_context(
            viewport={"width": width, "height": 800}, color_scheme=scheme, reduced_motion="reduce", **settings
        )
        self.tab = self.context.new_page()
        self.faults: list[str] = []
        self.address = address
        self.tab.on("console", lambda message: self.faults.append(f"console: {message.text}"))
        self.tab.on("pageerror", lambda error: self.faults.append(f"error: {error}"))
        self.tab.on("dialog", lambda dialog: self.faults.append(f"dialog: {dialog.message}"))
        self.tab.on("request", self._request)
        self.tab.goto(address)
        self.tab.wait_for_selector("[data-ready]", timeout=60_000, state="attached")

    def _request(self, request: Any) -> None:
        if not request.url.startswith(self.address):
            self.faults.append(f"request: {request.url}")

    def row(self) -> int:
        """The row that the card shows."""
        return int(self.tab.locator("#card-title").inner_text().removeprefix("Row "))

    def press(self, key: str) -> None:
        """Press a key and wait until the page has dealt with it."""
        self.tab.keyboard.press(key)
        self.settle()

    def settle(self) -> None:
        self.tab.wait_for_function("() => !document.querySelector('#card[aria-busy]')")

    def decide(self, key: str) -> int:
        """Decide by a key; the row that it was about."""
        row, told = self.row(), self.tab.locator("#told").inner_text()
        self.tab.keyboard.press(key)
        self.tab.wait_for_function("(told) => document.getElementById('told').textContent !== told", arg=told)
        self.settle()
        return row


@pytest.fixture
def start() -> Iterator[Callable[[Case], Running]]:
    running: list[Running] = []

    def run(case: Case) -> Running:
        running.append(Running(case))
        return running[-1]

    yield run
    for each in running:
        each.stop()


@pytest.fixture
def visit(browser: Any) -> Iterator[Any]:
    opened: list[Opened] = []

    def open_page(running: Running, **settings: Any) -> Opened:
        opened.append(Opened(browser, running.address, **settings))
        return opened[-1]

    yield open_page
    faults = [fault for each in opened for fault in each.faults]
    for each in opened:
        each.context.close()
    assert faults == []


@pytest.fixture
def digits(tmp_path: Path) -> Case:
    audit, _ = digits_audit()
    return open_case(audit.save(tmp_path / "audit"))


def test_sixty_thousand_rows(tmp_path: Path, start: Any, visit: Any) -> None:
    audit, _ = make_audit(torch.arange(MANY) % 10, tuple("abcdefghij"), config=None)
    case = open_case(audit.save(tmp_path))
    order = case.audit.order().tolist()
    page = visit(start(case))
    tab = page.tab
    nodes = "document.querySelectorAll('*').length"
    first = tab.evaluate(nodes)
    assert tab.locator("#count").inner_text().replace("\u202f", "") == "60000 rows"
    shown = "document.querySelectorAll('#list .line:not([aria-busy])').length"
    most = 0
    for share in (0.1, 0.9, 0.5, 0.999, 0.3):
        tab.evaluate(
            "(share) => { const l = document.getElementById('list'); l.scrollTop = share * l.scrollHeight; }", share
        )
        tab.wait_for_function(f"() => {shown} > 5")
        most = max(most, tab.evaluate(nodes))
    for _ in range(40):  # thrown about
        tab.mouse.move(100, 600)
        tab.mouse.wheel(0, 9000)
    tab.wait_for_function(f"() => {shown} > 5")
    most = max(most, tab.evaluate(nodes))
    assert most < first + 400, (first, most)
    assert tab.locator("#list .line").count() < 60
    page.press("Escape")
    tab.locator("#list").focus()
    tab.keyboard.press("End")
    tab.wait_for_function("(row) => document.getElementById('card-title').textContent === `Row ${row}`", arg=order[-1])
    last = tab.locator("#list [aria-selected=true]")
    assert last.get_attribute("aria-posinset") == last.get_attribute("aria-setsize") == str(MANY)
    assert tab.locator("#list").get_attribute("aria-activedescendant") == last.get_attribute("id")
    assert last.is_visible()
    row = page.decide("n")
    assert row == order[-1]
    assert case.decisions.state[row] == SETTLED
    assert page.row() == order[0]  # from the top again
    rows = [page.decide(key) for key in "akakak"]
    assert rows == order[:6]
    assert [case.decisions.standing(at)[0].verdict for at in rows] == ["accept", "keep"] * 3
    tab.keyboard.press("g")
    tab.keyboard.type(str(order[40_000]))
    tab.keyboard.press("Enter")
    tab.wait_for_function(
        "(row) => document.getElementById('card-title').textContent === `Row ${row}`", arg=order[40_000]
    )
    assert page.decide("b") == order[40_000]
    assert page.row() == order[40_001]
    assert tab.evaluate(nodes) < first + 400


def test_by_keys_alone(digits: Case, start: Any, visit: Any) -> None:
    page = visit(start(digits))
    tab, order = page.tab, digits.audit.order().tolist()
    rows = [page.decide(key) for key in "aknbs3"]
    assert rows == order[:6]
    standing = [digits.decisions.standing(at)[0] for at in rows]
    assert [made.verdict for made in standing] == ["accept", "keep", "none", "both", "skip", "other"]
    assert {made.reviewer for made in standing} == {"Ada"}
    assert digits.decisions.state[rows].tolist() == [SETTLED] * 4 + [SKIPPED, SETTLED]
    assert page.decide("u") == order[6]
    assert page.row() == rows[-1]  # back to what was taken back
    assert digits.decisions.state[rows[-1]] == OPEN
    assert tab.locator("#told").inner_text().startswith(f"Row {rows[-1]}: taken back.")
    given = digits.audit.classes[int(digits.audit.given[rows[-1]])]
    wanted = next(name for name in digits.audit.classes if name != given)
    tab.keyboard.press("o")
    tab.wait_for_selector("#chooser[open]")
    assert tab.evaluate("document.activeElement.id") == "chooser-words"
    tab.keyboard.type(wanted)
    assert tab.locator("#chooser [aria-selected=true]").inner_text() == wanted
    tab.keyboard.press("Enter")
    tab.wait_for_function("(row) => document.getElementById('card-title').textContent !== `Row ${row}`", arg=rows[-1])
    digits.decisions.refresh()
    assert digits.decisions.standing(rows[-1])[0].label == wanted
    here = page.row()
    page.press("ArrowDown")
    tab.wait_for_function("(row) => document.getElementById('card-title').textContent !== `Row ${row}`", arg=here)
    tab.keyboard.press("ArrowUp")
    tab.wait_for_function("(row) => document.getElementById('card-title').textContent === `Row ${row}`", arg=here)
    tab.keyboard.press("?")
    assert tab.locator("#help").is_visible()
    tab.keyboard.press("a")  # means nothing while help is open
    tab.keyboard.press("Escape")
    assert not tab.locator("#help").is_visible()
    assert digits.decisions.state[here] == OPEN
    assert tab.locator("#facts dd").first.inner_text().startswith("5")


def test_tab_reaches_everything_and_focus_is_seen(digits: Case, start: Any, visit: Any) -> None:
    tab = visit(start(digits)).tab
    seen = []
    for _ in range(80):
        tab.keyboard.press("Tab")
        found = tab.evaluate(
            """() => { const e = document.activeElement, s = getComputedStyle(e);
            const name = e.id || e.name || e.getAttribute('aria-keyshortcuts') || e.className;
            return [name, s.outlineStyle, parseFloat(s.outlineWidth)]; }"""
        )
        if found[0] == "" or (seen and found[0] == seen[0]):
            break
        assert found[1] != "none", found
        assert found[2] >= 2, found
        seen.append(found[0])
    assert {"reviewer", "help-button", "theme", "list"} <= set(seen)
    assert {"state", "kind", "given", "suggested", "pair", "order", "row"} <= set(seen)
    for key in "akobnsu1":
        assert key in seen
    assert sum("neighbour" in name for name in seen) == 8


def test_names_for_screen_readers(digits: Case, start: Any, visit: Any) -> None:
    page = visit(start(digits))
    tab = page.tab
    nameless = tab.evaluate(
        """() => {
          const all = 'button, input, select, img, audio, main, aside, svg[role=img], [role=listbox], [role=option], ' +
            '[role=group], [role=progressbar]';
          const named = (e) => e.getAttribute('aria-label') || e.getAttribute('aria-labelledby') || e.labels?.length ||
            e.textContent.trim() || e.hasAttribute('alt');
          return [...document.querySelectorAll(all)].filter((e) => e.checkVisibility() && !e.closest('dialog'))
            .filter((e) => !named(e)).map((e) => e.outerHTML.slice(0, 120)); }"""
    )
    assert nameless == []
    assert tab.get_by_role("listbox", name="Rows").count() == 1
    option = tab.locator("#list [aria-selected=true]")
    assert "likely wrong, undecided" in str(option.get_attribute("aria-label"))
    assert tab.get_by_role("main", name=f"Row {page.row()}").count() == 1
    assert tab.get_by_role("complementary", name="Progress").count() == 1
    assert (
        tab.get_by_role("progressbar", name="Errors found").get_attribute("aria-valuetext")
        == "0\u202f% of all errors, estimated"
    )
    status = tab.get_by_role("status")
    assert status.get_attribute("aria-live") == "polite"
    row = page.decide("k")
    assert status.inner_text().startswith(f"Row {row}: kept. 1 checked, 0 errors found, about")
    tab.wait_for_selector("#chart svg[aria-label^='0 errors found in 1 label checked; about ']")
    assert tab.locator("html").get_attribute("lang") == "en"
    levels = tab.evaluate("[...document.querySelectorAll('h1, h2, h3')].map((h) => Number(h.tagName[1]))")
    assert levels[0] == 1
    assert all(b - a <= 1 for a, b in pairwise(levels))


CONTRAST = """() => {
  const canvas = document.createElement('canvas').getContext('2d', { willReadFrequently: true });
  const rgb = (colour) => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = colour;
    canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data];
  };
  const light = (colour) => {
    const part = (v) => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4;
    const [r, g, b] = rgb(colour).map((v) => part(v / 255));
    return .2126 * r + .7152 * g + .0722 * b;
  };
  const ground = (e) => {
    for (; e; e = e.parentElement) {
      const colour = getComputedStyle(e).backgroundColor;
      if (rgb(colour)[3] > 250) return colour;
    }
    return getComputedStyle(document.documentElement).backgroundColor;
  };
  const poor = [];
  for (const e of document.querySelectorAll('body *')) {
    if (!e.checkVisibility() || e.closest('dialog, .hidden, svg, .skip')) continue;
    if (![...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim())) continue;
    const [a, b] = [light(getComputedStyle(e).color), light(ground(e))].sort((x, y) => y - x);
    if ((a + .05) / (b + .05) < 4.5) poor.push([e.className, e.textContent.slice(0, 30), (a + .05) / (b + .05)]);
  }
  return poor;
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_light_and_dark_can_be_read(digits: Case, start: Any, visit: Any, scheme: str) -> None:
    page = visit(start(digits), scheme=scheme)
    for key in "akn":
        page.decide(key)
    assert page.tab.evaluate(CONTRAST) == []
    ground = "() => getComputedStyle(document.documentElement).backgroundColor"
    before = page.tab.evaluate(ground)
    page.tab.locator("#theme").click()
    assert page.tab.evaluate(ground) != before
    assert page.tab.evaluate(CONTRAST) == []
    page.tab.reload()
    page.tab.wait_for_selector("[data-ready]", state="attached")
    assert page.tab.evaluate(ground) != before


def test_filters_by_pair_kind_and_state(digits: Case, start: Any, visit: Any) -> None:
    page = visit(start(digits))
    tab = page.tab
    count = tab.locator("#count")
    settled = [page.decide("a") for _ in range(3)]
    tab.locator("[name=pair]").select_option(index=1)
    tab.wait_for_function("() => document.querySelector('#count').textContent.length < 9")
    chosen = tab.locator("[name=pair]").evaluate("(s) => s.selectedOptions[0].textContent").split(" (")[0]
    given, suggested = chosen.split(" → ")
    assert tab.locator("[name=given]").input_value() == given
    lines = tab.locator("#list .line .pair")
    lines.first.wait_for()
    assert set(lines.all_text_contents()) == {f"{given}→{suggested}"}
    tab.locator("[name=given]").select_option("")
    tab.locator("[name=suggested]").select_option("")
    tab.locator("[name=kind]").select_option("outlier")
    tab.wait_for_function("() => document.querySelector('#card .tag')?.textContent === 'outlier'")
    tab.locator("[name=kind]").select_option("")
    tab.locator("[name=state]").select_option("decided")
    tab.wait_for_function("() => document.querySelector('#count').textContent === '3 rows'")
    title = "(row) => document.getElementById('card-title').textContent === `Row ${row}`"
    tab.wait_for_function(title, arg=settled[0])
    tab.locator("[name=state]").select_option("conflict")
    tab.wait_for_function("() => document.querySelector('#count').textContent === '0 rows'")
    tab.wait_for_selector("#card > .none")
    assert tab.locator("#card").inner_text() == "No two reviewers disagree."
    assert count.inner_text() == "0 rows"


def test_two_people_at_once(digits: Case, start: Any, visit: Any) -> None:
    running = start(digits)
    ada, bob = visit(running), visit(running)
    bob.tab.locator("#reviewer").fill("Bob")
    bob.tab.keyboard.press("Escape")
    row = ada.decide("a")
    bob.tab.wait_for_selector("#card .state.good", timeout=15_000)  # what the other one said arrives by itself
    assert bob.row() == row
    assert bob.decide("k") == row
    assert digits.decisions.state[row] == CONFLICT
    ada.tab.wait_for_function(
        "() => document.querySelector('#facts').textContent.includes('Conflicts')", timeout=15_000
    )
    ada.tab.locator("[name=state]").select_option("conflict")
    ada.tab.wait_for_selector("#card .state.bad")
    said = ada.tab.locator("#card .state.bad").inner_text()
    assert "Ada: changed to" in said
    assert "Bob: kept" in said
    ada.decide("k")
    assert digits.decisions.state[row] == SETTLED


def test_a_browser_closed_in_between_loses_nothing(digits: Case, start: Any, visit: Any) -> None:
    running = start(digits)
    page = visit(running)
    rows = [page.decide("a") for _ in range(2)]
    rows.append(page.row())
    page.tab.keyboard.press("k")
    page.tab.close()  # at once
    deadline = time.monotonic() + 10
    while digits.decisions.state[rows].tolist() != [SETTLED] * 3 and time.monotonic() < deadline:
        digits.decisions.refresh()
        time.sleep(0.05)
    assert digits.decisions.state[rows].tolist() == [SETTLED] * 3
    again = visit(running)
    assert again.row() not in rows
    assert again.tab.locator("#facts dd").first.inner_text().startswith("3")


def test_a_server_that_went_away_is_told(digits: Case, browser: Any) -> None:
    running = Running(digits)
    page = Opened(browser, running.address)
    row = page.row()
    running.stop()
    page.tab.keyboard.press("a")
    page.tab.wait_for_selector("#trouble:visible")
    assert "does not answer" in page.tab.locator("#trouble").inner_text()
    assert page.row() == row  # not as if it had been saved
    page.context.close()


def test_hostile_data_do_not_run(tmp_path: Path, start: Any, visit: Any) -> None:
    bad = "<img src=x onerror=window.hacked=1>"
    classes = (bad, "</script><script>window.hacked=1</script>", "\u202egood")
    lines = [f'"{bad} text {i} of a row that is long enough","{classes[i % 3]}"' for i in range(30)]
    source = tmp_path / "evil.csv"
    source.write_text("text,label\n" + "\n".join(lines) + "\n")
    reader = {"cache": str(tmp_path / "cache"), "input": "text"}
    from unswayed.data.entry import look
    from unswayed.data.labels import order_classes, read_labels

    raw, _ = look(source, **reader)
    labels = read_labels(raw.columns["label"])
    names = order_classes(labels.used())
    config = Config(str(source), reader=reader).as_json()
    audit, _ = make_audit(torch.from_numpy(labels.encode(names)), names, config=config)
    audit = replace(audit, about={**audit.about, "scores": {"neighbours": bad}}, verdict=bad)
    page = visit(start(open_case(audit.save(tmp_path / "audit"))))
    for _ in range(3):
        page.decide("a")
    page.press("o")
    page.press("Escape")
    assert page.tab.evaluate("window.hacked") is None
    assert bad in page.tab.locator("blockquote").inner_text()
    assert page.tab.locator("img").count() == 0


@pytest.mark.parametrize("width", [360, 700, 1000, 1280, 1900])
def test_nothing_is_wider_than_the_window(digits: Case, start: Any, visit: Any, width: int) -> None:
    page = visit(start(digits), width=width)
    assert page.tab.evaluate("document.documentElement.scrollWidth") <= width
    page.decide("a")
    assert page.tab.locator("#card .actions").is_visible()
    if folder := os.environ.get("UNSWAYED_SHOTS"):
        page.tab.screenshot(path=f"{folder}/review-{width}.png", full_page=True)


def test_sounds_play_by_the_space_bar(tmp_path: Path, start: Any, visit: Any) -> None:
    soundfile = pytest.importorskip("soundfile")
    pytest.importorskip("datasets")
    wave = 0.2 * torch.sin(torch.arange(8000) / 5).numpy()
    for i in range(12):
        place = tmp_path / "sounds" / ("yes" if i % 2 else "no") / f"{i}.wav"
        place.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(place, wave, 8000)
    config = Config(str(tmp_path / "sounds"), reader={"cache": str(tmp_path / "cache")}).as_json()
    given = torch.tensor([0] * 6 + [1] * 6)
    audit, _ = make_audit(given, ("no", "yes"), config=config, neighbours=3)
    page = visit(start(open_case(audit.save(tmp_path / "audit"))))
    page.tab.wait_for_function("() => document.querySelector('audio').duration > 0.9")
    page.press("Space")
    page.tab.wait_for_function("() => document.querySelector('audio').currentTime > 0")
    assert page.tab.evaluate("document.querySelector('audio').error") is None
