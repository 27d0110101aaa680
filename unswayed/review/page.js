// The review: a list, a card, keys, and how far one is.

import { drawCard } from "./card.js";
import { budget } from "./chart.js";
import { Chooser } from "./chooser.js";
import { List } from "./list.js";
import { count, element, make, percent, say, some, spoken } from "./make.js";
import { ask, preview, tell } from "./server.js";

const THEME = "unswayed-theme", NAME = "unswayed-reviewer";
const EVERY = 4000; // ms: how often decisions of others are asked for
const PATIENCE = 200; // ms: after the last of several quick decisions
const TINY = 96;
const root = document.documentElement;

const now = { about: null, filter: {}, card: null, last: 0, busy: false, turn: 0 };
let list, chooser;

// Storage may be switched off; then the page forgets.
const stored = (key) => { try { return localStorage.getItem(key); } catch { return null; } };
const store = (key, value) => { try { localStorage.setItem(key, value); } catch { /* forgotten */ } };

function tellReader(words) {
  element("told").textContent = words;
}

function trouble(error) {
  const box = element("trouble");
  const words = error ? error.message : now.about?.trouble ? `The data cannot be shown: ${now.about.trouble}` : "";
  box.textContent = words;
  box.hidden = !words;
}

// Light or dark: as the system says, until the reader says otherwise.

function setUpTheme() {
  const button = element("theme");
  const system = matchMedia("(prefers-color-scheme: dark)");
  if (["light", "dark"].includes(stored(THEME))) root.dataset.theme = stored(THEME);
  const dark = () => (root.dataset.theme ?? (system.matches ? "dark" : "light")) === "dark";
  const name = () => {
    button.lastElementChild.textContent = dark() ? "Light" : "Dark";
    button.setAttribute("aria-label", `Switch to ${dark() ? "light" : "dark"} colours`);
  };
  button.addEventListener("click", () => { root.dataset.theme = dark() ? "light" : "dark"; store(THEME, root.dataset.theme); name(); });
  system.addEventListener("change", name);
  name();
}

// The list

function fillLine(line, found) {
  const parts = [];
  if (now.about.shows === "image") {
    const image = make("img");
    image.alt = "";
    image.decoding = "async";
    image.addEventListener("load", () => image.classList.toggle("tiny", Math.max(image.naturalWidth, image.naturalHeight) <= TINY));
    image.src = preview(found.at);
    parts.push(image);
  }
  const labels = make("span", "pair"), under = make("span", "under");
  labels.append(make("span", "", say(found.given)));
  if (found.suggested !== found.given) {
    const arrow = make("i", "", "→");
    arrow.setAttribute("aria-hidden", "true");
    labels.append(arrow, make("span", "", found.suggested));
  }
  const done = found.state === "open" ? "" : found.state === "settled" ? spoken(found.verdict, found.label) : found.state;
  under.append(make("span", "", done || found.excerpt || `row ${found.row}`));
  const sure = make("span", "sure", percent(found.suspicion));
  const words = make("span", "words");
  words.append(labels, under);
  line.replaceChildren(...parts, words, sure);
  line.dataset.state = found.state;
  const suggestion = found.suggested === found.given ? "" : `, suggested ${found.suggested}`;
  line.setAttribute("aria-label", `Row ${found.row}, given ${say(found.given)}${suggestion}, ${percent(found.suspicion)} likely wrong, ${found.state === "open" ? "undecided" : done}`);
}

// The newest list asked for wins; an answer to an older one is dropped.
async function refilter({ keep = null } = {}) {
  const form = new FormData(element("filters"));
  now.turn += 1;
  const turn = now.turn;
  now.filter = { stamp: `${Date.now()}-${turn}` };
  for (const name of ["state", "kind", "given", "suggested", "order"]) now.filter[name] = form.get(name);
  const found = await ask("list", { ...now.filter, start: 0, count: 1 });
  if (turn !== now.turn) return;
  await list.reset(found.total);
  element("count").textContent = some(found.total, "row");
  tellReader(element("count").textContent);
  if (!found.total) { nothing(); return; }
  const place = keep === null ? null : (await ask("place", { ...now.filter, at: keep })).place;
  await go(place ?? 0);
}

function nothing() {
  now.card = null;
  const conflict = now.filter.state === "conflict";
  const words = conflict ? "No two reviewers disagree." : now.filter.state === "undecided" ? "Nothing is left to decide here." : "No row is like that.";
  element("card").replaceChildren(make("p", "none", words));
}

// The card

async function go(place) {
  if (place < 0 || place >= list.total) return;
  list.select(place);
  const turn = now.turn, line = await list.line(place);
  if (!line || turn !== now.turn || list.place !== place) return;
  await showCard(line.at, place);
}

async function showCard(at, place = null) {
  now.asked = at;
  const card = await ask(`card/${at}`);
  if (now.asked === at) putCard(card, place); // else another one was asked for meanwhile
}

function putCard(card, place) {
  const box = element("card"), moved = now.card?.at !== card.at, inside = box.contains(document.activeElement);
  now.card = card;
  const key = inside ? document.activeElement.getAttribute("aria-keyshortcuts") : null;
  box.replaceChildren(...drawCard(card, now.about.shows, { act, visit, choose: openChooser, undo }));
  box.setAttribute("aria-labelledby", "card-title");
  if (moved) { box.scrollTop = 0; if (!matchMedia("(min-width: 62rem)").matches) box.scrollIntoView({ block: "start" }); }
  if (inside) (box.querySelector(`.actions [aria-keyshortcuts="${key}"]`) ?? box).focus({ preventScroll: true }); // focus outlives its button
  trouble(null);
  if (place !== null && place + 1 < list.total && now.about.shows === "image") {
    list.line(place + 1).then((next) => { if (next) new Image().src = preview(next.at, true); }, () => {}); // to be there in time
  }
}

async function visit(at) {
  const { place } = await ask("place", { ...now.filter, at });
  if (place === null) await showCard(at);
  else await go(place);
}

// One thing at a time: a key that comes while a decision is on its way would hit a card that nobody has seen.
async function alone(work) {
  if (now.busy) return;
  now.busy = true;
  element("card").setAttribute("aria-busy", "true");
  try { await work(); } catch (error) { trouble(error); } finally { now.busy = false; element("card").removeAttribute("aria-busy"); }
}

const who = () => element("reviewer").value.trim() || now.about.reviewer;

function act(verdict, label = null) {
  return alone(async () => {
    const card = now.card;
    if (!card) return;
    const answer = await tell("decide", { at: card.at, verdict, label, reviewer: who(), list: now.filter, after: list.place });
    accept(answer);
    const said = answer.line.verdict ?? verdict;
    tellReader(`Row ${card.row}: ${answer.line.state === "conflict" ? "saved; reviewers disagree" : spoken(said, answer.line.label)}. ${figures(answer.progress)}`);
    const { place, card: next } = answer.next;
    if (place === null) {
      await showCard(card.at);
      tellReader(`Nothing is left to decide in this list. ${figures(answer.progress)}`);
      return;
    }
    now.asked = next.at;
    list.select(place);
    putCard(next, place);
  });
}

function undo() {
  return alone(async () => {
    const answer = await tell("undo", { reviewer: who() });
    if (!answer.line) { tellReader("There is nothing to undo."); return; }
    accept(answer);
    await visit(answer.line.at);
    tellReader(`Row ${answer.line.row}: taken back. ${figures(answer.progress)}`);
  });
}

function accept(answer) {
  list.update(answer.line);
  showCounts(answer.progress);
  lookAhead();
}

// The outlook takes longer than a key may: it follows, and several keys share one.
async function lookAhead() {
  now.stale = true;
  if (now.looking) return;
  now.looking = true;
  try {
    while (now.stale) {
      await new Promise((done) => { setTimeout(done, PATIENCE); });
      now.stale = false;
      showProgress((await ask("progress")).progress);
    }
  } catch (error) {
    trouble(error);
  } finally {
    now.looking = false;
  }
}

function openChooser() {
  if (now.card && !now.busy) chooser.open(now.about.classes.filter((label) => label !== now.card.given));
}

// Progress

const figures = (progress) => `${count(progress.settled)} checked, ${some(progress.found, "error")} found, about ${count(progress.remaining)} left.`;

function showCounts(progress) {
  if (progress.last < now.last) return; // overtaken by a newer answer
  now.last = progress.last;
  now.left = progress.left ?? now.left;
  const [, low, high] = now.left;
  const facts = [
    ["Checked", count(progress.settled), `of ${count(progress.rows)}`],
    ["Errors found", count(progress.found), progress.precision === null ? "" : `${percent(progress.precision)} of those checked`],
    ["Probably left", count(progress.remaining), `${count(low)} to ${count(high)}`],
    ["Share found", percent(progress.share), "of all errors, estimated"],
  ];
  if (progress.skipped) facts.push(["Skipped", count(progress.skipped), ""]);
  if (progress.conflicts) facts.push(["Conflicts", count(progress.conflicts), "reviewers disagree"]);
  element("facts").replaceChildren(...facts.map(([name, value, more]) => {
    const pair = make("div", name === "Conflicts" ? "bad" : "");
    const said = make("dd", "", value);
    if (more) said.append(make("span", "small", more));
    pair.append(make("dt", "", name), said);
    return pair;
  }));
  const meter = element("bar"), fill = make("i");
  fill.style.width = `${100 * progress.share}%`;
  meter.setAttribute("aria-label", "Errors found");
  meter.setAttribute("aria-valuemax", "100");
  meter.setAttribute("aria-valuenow", String(Math.round(100 * progress.share)));
  meter.setAttribute("aria-valuetext", `${percent(progress.share)} of all errors, estimated`);
  meter.replaceChildren(fill);
}

function showProgress(progress) {
  showCounts(progress);
  const advice = element("advice");
  advice.textContent = progress.advice;
  advice.classList.toggle("stop", progress.stop);
  budget(element("chart"), progress);
}

async function watch() {
  if (document.hidden || now.busy) return;
  try {
    const { progress, lines } = await ask("progress", { since: now.last });
    if (now.busy || progress.last <= now.last) return;
    lines.forEach((line) => list.update(line));
    showProgress(progress);
    if (now.card && lines.some((line) => line.at === now.card.at)) await showCard(now.card.at);
  } catch (error) {
    trouble(error);
  }
}

// Keys

function playing() {
  const sound = element("card").querySelector("audio");
  if (sound) { if (sound.paused) sound.play().catch(() => {}); else sound.pause(); }
  return Boolean(sound);
}

function offered(number) {
  const other = now.card?.others[number - 1];
  if (other) act("other", other.label);
}

function pages(step) {
  const view = Math.max(1, Math.floor(element("list").clientHeight / list.height) - 1);
  return go(Math.min(list.total - 1, Math.max(0, list.place + step * view)));
}

const KEYS = {
  a: () => { if (now.card) act(now.card.suggested === now.card.given ? "keep" : "accept"); },
  k: () => { if (now.card?.given) act("keep"); },
  o: openChooser,
  b: () => { if (now.card?.given) act("both"); },
  n: () => act("none"),
  s: () => act("skip"),
  u: undo,
  g: () => element("filters").elements.row.focus(),
  f: () => element("filters").elements.state.focus(),
  "?": () => element("help").showModal(),
  ArrowDown: () => go(Math.min(list.total - 1, list.place + 1)),
  ArrowUp: () => go(Math.max(0, list.place - 1)),
  Home: () => go(0),
  End: () => go(list.total - 1),
  PageDown: () => pages(1),
  PageUp: () => pages(-1),
};
const MOVES = new Set(["ArrowDown", "ArrowUp", "Home", "End", "PageDown", "PageUp"]);

function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
  if (event.target.closest("input, select, textarea, audio")) {
    if (event.key === "Escape") event.target.blur();
    return;
  }
  if (MOVES.has(event.key) && event.target.closest("blockquote")) return; // a long text scrolls
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  const digit = /^[1-9]$/.test(key) ? Number(key) : 0;
  if (key === " " && !event.target.closest("button, summary, a") && playing()) { event.preventDefault(); return; }
  if (!(key in KEYS) && !digit) return;
  event.preventDefault();
  if (event.repeat && !MOVES.has(key)) return;
  Promise.resolve(digit ? offered(digit) : KEYS[key]()).catch(trouble);
}

// Filters

function option(value, words) {
  const made = make("option", "", words);
  made.value = value;
  return made;
}

function setUpFilters() {
  const form = element("filters"), { kind, given, suggested, pair, row, state } = form.elements;
  const { about } = now;
  kind.append(option("", `all (${count(about.rows)})`), option("issues", `suspected (${count(about.issues)})`));
  for (const [name, rows] of Object.entries(about.kinds)) if (rows) kind.append(option(name, `${name} (${count(rows)})`));
  for (const select of [given, suggested]) select.append(option("", "any"), ...about.classes.map((name) => option(name, name)));
  pair.append(option("", "any"), ...about.pairs.map((each, i) => option(String(i), `${say(each.given)} → ${each.suggested} (${count(each.rows)})`)));
  pair.closest("label").hidden = !about.pairs.length;
  state.value = "undecided";
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("change", (event) => {
    if (event.target === row) return;
    if (event.target === pair) {
      const chosen = about.pairs[Number(pair.value)];
      given.value = pair.value === "" ? "" : chosen.given;
      suggested.value = pair.value === "" ? "" : chosen.suggested;
    } else if (event.target === given || event.target === suggested) {
      pair.value = "";
    }
    refilter().catch(trouble);
  });
  row.addEventListener("keydown", (event) => {
    if (event.key !== "Enter") return;
    event.preventDefault();
    const wanted = row.value.trim();
    if (!/^\d+$/.test(wanted)) { tellReader("A row is a whole number."); return; }
    ask("place", { ...now.filter, row: wanted }).then(async ({ place }) => {
      if (place === null) { tellReader(`Row ${wanted} is not in this list: change the filters.`); return; }
      row.value = "";
      row.blur();
      await go(place);
    }).catch(trouble);
  });
}

function setUpReviewer() {
  const name = element("reviewer");
  name.value = stored(NAME) ?? now.about.reviewer;
  name.addEventListener("change", () => { if (name.value.trim()) store(NAME, name.value.trim()); else name.value = now.about.reviewer; });
}

async function begin() {
  setUpTheme();
  now.about = await ask("about");
  const { about } = now;
  document.title = `${about.name} · unswayed review`;
  element("title").textContent = about.name;
  element("verdict").textContent = about.verdict;
  element("budget").textContent = about.budget;
  trouble(null);
  root.dataset.shows = about.shows ?? "none";
  chooser = new Chooser((label) => act("other", label));
  list = new List(element("list"), {
    load: (start, size) => ask("list", { ...now.filter, start, count: size }),
    fill: fillLine,
    choose: (place) => go(place).catch(trouble),
  });
  setUpReviewer();
  setUpFilters();
  showProgress(about.progress);
  element("help-button").addEventListener("click", () => element("help").showModal());
  document.addEventListener("keydown", onKey);
  await refilter();
  setInterval(watch, EVERY);
  root.dataset.ready = "yes";
}

begin().catch(trouble);
