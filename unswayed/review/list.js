// A list of any length of which only the visible lines exist. Lines are asked for in pages and forgotten again.

import { make } from "./make.js";

const PAGE = 100;
const KEPT = 60; // pages remembered
const BEYOND = 6; // lines drawn above and below what is seen
const TALLEST = 8e6; // pixels: browsers lose count beyond some millions, so longer lists scroll in larger steps
const PATIENCE = 60; // ms: a page that is only passed by is not asked for

export class List {
  constructor(box, { load, fill, choose }) {
    Object.assign(this, { box, load, fill, choose, total: 0, place: -1, turn: 0 });
    this.spacer = make("div", "spacer");
    this.spacer.setAttribute("role", "presentation");
    box.append(this.spacer);
    this.pages = new Map(); // number -> lines, or the promise of them
    this.drawn = new Map(); // place -> element
    this.height = 0;
    box.addEventListener("scroll", () => this.later(), { passive: true });
    box.addEventListener("click", (event) => {
      const line = event.target.closest("[data-place]");
      if (line) this.choose(Number(line.dataset.place));
    });
    new ResizeObserver(() => this.later()).observe(box);
  }

  // Forget all lines; the next `line` or drawing asks anew.
  async reset(total) {
    this.turn += 1;
    this.pages.clear();
    this.drawn.forEach((line) => line.remove());
    this.drawn.clear();
    this.total = total;
    this.place = -1;
    this.box.removeAttribute("aria-activedescendant");
    this.height = parseFloat(getComputedStyle(this.box).getPropertyValue("--line")) * parseFloat(getComputedStyle(document.documentElement).fontSize);
    this.spacer.style.height = `${Math.min(TALLEST, total * this.height)}px`;
    this.box.scrollTop = 0;
    this.show();
  }

  get ratio() {
    const view = this.box.clientHeight, tall = this.spacer.clientHeight;
    return tall > view ? Math.max(1, (this.total * this.height - view) / (tall - view)) : 1;
  }

  get top() {
    return this.box.scrollTop * this.ratio;
  }

  later() {
    if (this.waiting) return;
    this.waiting = requestAnimationFrame(() => { this.waiting = 0; this.show(); });
  }

  show() {
    const top = this.top, first = Math.max(0, Math.floor(top / this.height) - BEYOND);
    const last = Math.min(this.total, Math.ceil((top + this.box.clientHeight) / this.height) + BEYOND);
    for (const [place, line] of this.drawn) {
      if (place < first || place >= last) { line.remove(); this.drawn.delete(place); }
    }
    const shift = this.box.scrollTop - top;
    for (let place = first; place < last; place += 1) {
      const line = this.drawn.get(place) ?? this.add(place);
      line.style.transform = `translateY(${place * this.height + shift}px)`;
    }
    clearTimeout(this.asking);
    const missing = [...new Set([...this.drawn.keys()].map((place) => Math.floor(place / PAGE)))].filter((page) => !this.pages.has(page));
    if (missing.length) this.asking = setTimeout(() => missing.forEach((page) => this.ask(page).catch(() => {})), this.pages.size ? PATIENCE : 0);
  }

  add(place) {
    const line = make("div", "line");
    line.id = `line-${place}`;
    line.dataset.place = place;
    line.setAttribute("role", "option");
    line.setAttribute("aria-setsize", this.total);
    line.setAttribute("aria-posinset", place + 1);
    line.setAttribute("aria-selected", String(place === this.place));
    const known = this.pages.get(Math.floor(place / PAGE));
    if (Array.isArray(known)) this.write(line, known[place % PAGE]);
    else line.setAttribute("aria-busy", "true");
    this.drawn.set(place, line);
    this.spacer.append(line);
    return line;
  }

  write(line, found) {
    if (!found) return;
    line.removeAttribute("aria-busy");
    line.dataset.at = found.at;
    this.fill(line, found);
  }

  ask(page) {
    const known = this.pages.get(page);
    if (known) return Promise.resolve(known);
    const turn = this.turn;
    const promise = this.load(page * PAGE, PAGE).then((found) => {
      if (turn !== this.turn) return [];
      this.pages.set(page, found.lines);
      if (this.pages.size > KEPT) {
        const seen = new Set([...this.drawn.keys(), this.place].map((place) => Math.floor(place / PAGE)));
        for (const old of [...this.pages.keys()].filter((each) => !seen.has(each)).slice(0, this.pages.size - KEPT)) this.pages.delete(old);
      }
      this.drawn.forEach((line, place) => { if (Math.floor(place / PAGE) === page) this.write(line, found.lines[place % PAGE]); });
      return found.lines;
    }, (error) => { if (turn === this.turn) this.pages.delete(page); throw error; });
    this.pages.set(page, promise);
    return promise;
  }

  async line(place) {
    const lines = await this.ask(Math.floor(place / PAGE));
    return lines[place % PAGE];
  }

  select(place) {
    this.drawn.get(this.place)?.setAttribute("aria-selected", "false");
    this.place = place;
    const view = this.box.clientHeight, y = place * this.height, top = this.top;
    const room = view > 5 * this.height ? 2 * this.height : 0; // to see what comes next
    if (y - room < top) this.box.scrollTop = Math.max(0, y - room) / this.ratio;
    else if (y + this.height + room > top + view) this.box.scrollTop = (y + this.height + room - view) / this.ratio;
    this.show();
    const line = this.drawn.get(place);
    line?.setAttribute("aria-selected", "true");
    if (line) this.box.setAttribute("aria-activedescendant", line.id);
  }

  // A row has changed: its line too, if it is known.
  update(found) {
    for (const lines of this.pages.values()) {
      const i = Array.isArray(lines) ? lines.findIndex((each) => each.at === found.at) : -1;
      if (i >= 0) lines[i] = found;
    }
    this.drawn.forEach((line) => { if (Number(line.dataset.at) === found.at) this.write(line, found); });
  }
}
