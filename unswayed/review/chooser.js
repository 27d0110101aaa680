// The dialog in which any label is chosen: type to search, arrows to move, Enter to take.

import { element, make } from "./make.js";

const MOST = 200; // labels listed at once

export class Chooser {
  constructor(take) {
    Object.assign(this, { take, labels: [], found: [], at: 0 });
    this.dialog = element("chooser");
    this.words = element("chooser-words");
    this.list = element("chooser-list");
    this.words.addEventListener("input", () => this.search());
    this.words.addEventListener("keydown", (event) => {
      const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
      if (step) { event.preventDefault(); this.move(this.at + step); }
      if (event.key === "Enter") { event.preventDefault(); this.finish(this.found[this.at]); }
    });
    this.list.addEventListener("click", (event) => {
      const option = event.target.closest("[role=option]");
      if (option) this.finish(this.found[Number(option.dataset.at)]);
    });
    this.dialog.addEventListener("click", (event) => { if (event.target === this.dialog) this.dialog.close(); });
  }

  open(labels) {
    this.labels = labels;
    this.words.value = "";
    this.search();
    this.dialog.showModal();
    this.words.focus();
  }

  search() {
    const wanted = this.words.value.trim().toLowerCase();
    const starts = this.labels.filter((label) => label.toLowerCase().startsWith(wanted));
    const holds = wanted ? this.labels.filter((label) => label.toLowerCase().includes(wanted) && !starts.includes(label)) : [];
    this.found = [...starts, ...holds].slice(0, MOST);
    this.list.replaceChildren(...this.found.map((label, i) => {
      const option = make("li", "", label);
      option.id = `choice-${i}`;
      option.dataset.at = i;
      option.setAttribute("role", "option");
      return option;
    }));
    if (!this.found.length) this.list.append(make("li", "soft", "No label is called so."));
    this.move(0);
  }

  move(at) {
    if (!this.found.length) { this.words.removeAttribute("aria-activedescendant"); return; }
    this.at = Math.min(this.found.length - 1, Math.max(0, at));
    [...this.list.children].forEach((option, i) => option.setAttribute("aria-selected", String(i === this.at)));
    this.words.setAttribute("aria-activedescendant", `choice-${this.at}`);
    this.list.children[this.at].scrollIntoView({ block: "nearest" });
  }

  finish(label) {
    if (label === undefined) return;
    this.dialog.close();
    this.take(label);
  }
}
