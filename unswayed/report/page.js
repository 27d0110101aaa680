"use strict";
// The page is whole without this script, but for the gallery. Everything that comes from users is set as text, never as HTML.

const KEY = "unswayed-theme";
const BATCH = 48;
const TINY = 96; // images smaller than this are enlarged without smoothing

const root = document.documentElement;

function make(name, className, text) {
  const element = document.createElement(name);
  if (className) element.className = className;
  if (text !== undefined) element.textContent = text;
  return element;
}

function percent(share, digits = 1) {
  return (100 * share).toFixed(digits);
}

function say(value, unit) {
  return unit === "%" ? percent(value) : value.toFixed(2).replace("-", "\u2212");
}

// Light or dark: as the system says, until the reader says otherwise.

function stored() {
  try { return localStorage.getItem(KEY); } catch { return null; }
}

function isDark() {
  return (root.dataset.theme || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";
}

function setUpTheme() {
  const button = document.getElementById("theme");
  const name = () => {
    button.lastElementChild.textContent = isDark() ? "Light" : "Dark";
    button.setAttribute("aria-label", `Switch to ${isDark() ? "light" : "dark"} colours`);
  };
  button.hidden = false;
  button.addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    try { localStorage.setItem(KEY, root.dataset.theme); } catch { /* a page without storage forgets */ }
    name();
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", name);
  name();
}

// Curves: one arm alone, and the values under the pointer or at the epoch chosen by arrow keys.

function setUpLegend(part) {
  const buttons = part.querySelectorAll("[data-only]");
  buttons.forEach((button) => button.addEventListener("click", () => {
    const alone = button.getAttribute("aria-pressed") !== "true";
    buttons.forEach((each) => each.setAttribute("aria-pressed", String(alone && each.dataset.only === button.dataset.only)));
    part.querySelectorAll(".plot g").forEach((line) => {
      line.classList.toggle("dim", alone && line.dataset.arm !== button.dataset.only);
    });
  }));
}

function setUpReader(reader, chart, arms) {
  const cursor = make("span", "cursor"), values = make("div", "values");
  const { xs, lines, unit, axis } = chart;
  const first = xs[0], last = Math.max(xs[xs.length - 1], first + 1);
  const hues = new Map([...reader.parentElement.querySelectorAll("g")].map((g) => [Number(g.dataset.arm), g]));
  let at = xs.length - 1;

  function show(index) {
    at = Math.min(xs.length - 1, Math.max(0, index));
    const place = 100 * (xs[at] - first) / (last - first);
    cursor.style.left = `${place}%`;
    values.style.left = place <= 50 ? `calc(${place}% + .75rem)` : "auto";
    values.style.right = place > 50 ? `calc(${100 - place}% + .75rem)` : "auto";
    const found = lines.filter((line) => line.means[at] !== null && !hues.get(line.arm).classList.contains("dim"))
      .sort((a, b) => b.means[at] - a.means[at]);
    values.replaceChildren(make("b", "", `${axis} ${xs[at]}`), ...found.map((line) => {
      const row = make("p", hues.get(line.arm).classList[0]);
      row.append(make("span", "", arms[line.arm]), make("strong", "", say(line.means[at], unit)));
      return row;
    }));
    reader.replaceChildren(cursor, values);
    const spoken = found.map((line) => `${arms[line.arm]} ${say(line.means[at], unit)}${unit && " percent"}`).join(", ");
    reader.setAttribute("aria-valuenow", xs[at]);
    reader.setAttribute("aria-valuetext", `${axis.toLowerCase()} ${xs[at]}: ${spoken}`);
  }

  reader.addEventListener("pointermove", (event) => {
    const box = reader.getBoundingClientRect();
    const x = first + (last - first) * (event.clientX - box.left) / box.width;
    let nearest = 0;
    xs.forEach((each, i) => { if (Math.abs(each - x) < Math.abs(xs[nearest] - x)) nearest = i; });
    show(nearest);
  });
  reader.addEventListener("pointerleave", () => reader.replaceChildren());
  reader.addEventListener("blur", () => reader.replaceChildren());
  reader.addEventListener("keydown", (event) => {
    const moves = { ArrowLeft: at - 1, ArrowDown: at - 1, ArrowRight: at + 1, ArrowUp: at + 1, Home: 0, End: xs.length - 1 };
    if (!(event.key in moves)) return;
    event.preventDefault();
    show(reader.hasChildNodes() ? moves[event.key] : at);
  });
}

// Matrices: those of one arm, and the cell under the pointer in words.

function setUpMatrices(part) {
  const choice = part.querySelector("[data-matrices]");
  if (!choice) return;
  const all = part.querySelectorAll(".matrices[data-arm]");
  const choose = () => all.forEach((each) => { each.hidden = each.dataset.arm !== choice.value; });
  choice.addEventListener("change", choose);
  choose();
  all.forEach((each) => each.addEventListener("pointerover", (event) => {
    const cell = event.target.closest("tbody td");
    if (!cell) return;
    const heads = cell.closest("table").tHead.rows[0].cells;
    const share = cell.textContent ? `${cell.textContent} %` : "below 0.5 %";
    cell.closest("figure").querySelector(".readout").textContent =
      `${cell.parentElement.cells[0].textContent} → ${heads[cell.cellIndex].textContent}: ${share}`;
  }));
}

// The gallery: sorted, filtered, and put on the page batch by batch.

const show = {
  image(content, sample) {
    const image = make("img");
    image.decoding = "async";
    image.alt = `Row ${sample.row}`;
    image.addEventListener("load", () => image.classList.toggle("tiny", image.naturalWidth <= TINY && image.naturalHeight <= TINY));
    image.addEventListener("error", () => image.replaceWith(make("div", "none", "the image cannot be read")));
    image.src = content;
    return image;
  },
  audio(content, sample) {
    const audio = make("audio");
    audio.controls = true;
    audio.preload = "none";
    audio.setAttribute("aria-label", `Row ${sample.row}`);
    audio.src = content;
    return audio;
  },
  text: (content) => make("blockquote", "", content),
  none: (content) => make("div", "none", content),
};

function card(sample, shelf) {
  const item = make("li");
  const [kind, content] = shelf.contents[sample.content];
  const labels = make("p", "labels");
  labels.append(make("span", "hidden", "given "), make("span", "soft", shelf.classes[sample.given]), make("i", "", "→"),
    make("span", "hidden", "suggested "), make("span", "", shelf.classes[sample.suggested]));
  const sure = sample.probability === null ? "" : ` · ${percent(sample.probability, 0)}\u00a0% sure`;
  const about = make("p", "about");
  if (sample.suspicion !== null) about.append(make("span", "", `suspicion ${sample.suspicion.toPrecision(3)}`));
  about.append(make("span", "", `row ${sample.row}${sure}`));
  if (sample.wrong !== null) {
    about.append(make("span", `truth ${sample.wrong ? "yes" : "no"}`, sample.wrong ? "wrong in truth" : "right in truth"));
  }
  item.append(show[kind](content, sample), labels, about);
  item.dataset.row = sample.row;
  return item;
}

function setUpGallery(section, shelf) {
  const of = (name) => section.querySelector(`[data-of="${name}"]`);
  const list = of("samples"), status = of("status"), more = of("more"), turn = of("turn");
  let chosen = [], shown = 0, gallery, samples;

  function count(key) {
    const counts = new Map();
    samples.forEach((sample) => counts.set(sample[key], (counts.get(sample[key]) || 0) + 1));
    return [...counts].sort(([a], [b]) => a - b);
  }

  function offer(key) {
    const choice = of(key), before = choice.value;
    const options = count(key).map(([label, n]) => {
      const option = make("option", "", `${shelf.classes[label]} (${n})`);
      option.value = label;
      return option;
    });
    const any = make("option", "", "any");
    any.value = "";
    choice.replaceChildren(any, ...options);
    choice.value = options.some((option) => option.value === before) ? before : "";
  }

  function pick() {
    gallery = shelf.galleries[of("gallery").value];
    samples = gallery.rows.map(([row, given, suggested, suspicion, probability, wrong, content], rank) =>
      ({ row, given, suggested, suspicion, probability, wrong, content, rank }));
    of("truth").parentElement.hidden = !samples.some((sample) => sample.wrong !== null);
    offer("given");
    offer("suggested");
    arrange();
  }

  function arrange() {
    const key = of("sort").value, sign = turn.getAttribute("aria-pressed") === "true" ? -1 : 1;
    const value = key === "suspicion" ? (sample) => sample.rank : (sample) => sample[key];
    chosen = samples
      .filter((sample) => ["given", "suggested"].every((name) => of(name).value === "" || sample[name] === Number(of(name).value)))
      .sort((a, b) => sign * (value(a) - value(b)) || a.rank - b.rank);
    shown = 0;
    list.replaceChildren();
    extend();
  }

  function extend() {
    list.append(...chosen.slice(shown, shown + BATCH).map((sample) => card(sample, shelf)));
    shown = list.children.length;
    more.hidden = shown >= chosen.length;
    more.textContent = `Show ${Math.min(BATCH, chosen.length - shown)} more`;
    const known = chosen.filter((sample) => sample.wrong !== null);
    const fit = samples.length < gallery.found ? `, of ${gallery.found} found (the page holds no more)` : "";
    const truth = known.length && of("truth").checked
      ? ` Of these ${chosen.length}, ${known.filter((sample) => sample.wrong).length} are wrong in truth, which no arm saw.` : "";
    status.textContent = `${shown} of ${chosen.length} shown${fit}.${truth}`;
  }

  of("gallery").addEventListener("change", pick);
  ["given", "suggested", "sort"].forEach((name) => of(name).addEventListener("change", arrange));
  turn.addEventListener("click", () => {
    turn.setAttribute("aria-pressed", String(turn.getAttribute("aria-pressed") !== "true"));
    arrange();
  });
  of("truth").addEventListener("change", () => {
    list.classList.toggle("hide-truth", !of("truth").checked);
    arrange();
  });
  more.addEventListener("click", extend);
  section.querySelector(".controls").hidden = false;
  pick();
}

function setUp() {
  setUpTheme();
  const data = JSON.parse(document.getElementById("data").textContent);
  document.querySelectorAll("[data-part]").forEach((part) => {
    const own = data[part.dataset.part];
    setUpLegend(part);
    part.querySelectorAll(".reader").forEach((reader) => setUpReader(reader, own.charts[reader.dataset.chart], own.arms));
    setUpMatrices(part);
    const gallery = part.querySelector(".gallery");
    if (gallery) setUpGallery(gallery, own);
  });
  const opened = new Set();
  addEventListener("beforeprint", () => document.querySelectorAll("details:not([open])").forEach((each) => { opened.add(each); each.open = true; }));
  addEventListener("afterprint", () => opened.forEach((each) => { each.open = false; opened.delete(each); }));
}

if (["light", "dark"].includes(stored())) root.dataset.theme = stored();
document.addEventListener("DOMContentLoaded", setUp);
