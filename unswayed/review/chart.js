// The curve of errors found by labels checked, and the learning curve of one row.

import { count, draw, make, percent, some } from "./make.js";

function nice(most) {
  const unit = 10 ** Math.floor(Math.log10(Math.max(most, 1)));
  return [1, 1.2, 1.6, 2, 2.4, 3, 4, 5, 6, 8, 10].map((step) => step * unit).find((top) => top >= most) ?? most;
}

const path = (points, x, y) => points.map(([a, b], i) => `${i ? "L" : "M"}${x(a).toFixed(1)} ${y(b).toFixed(1)}`).join("");

export function budget(box, progress) {
  const { path: done, ahead } = progress;
  const here = done[done.length - 1], end = ahead[ahead.length - 1];
  const wide = Math.max(10, end[0], here[0]), high = nice(Math.max(1, end[1], here[1]));
  const x = (n) => 1000 * n / wide, y = (n) => 1000 - 1000 * n / high;
  const words = `${some(here[1], "error")} found in ${some(here[0], "label")} checked; about ${count(end[1])} are expected after ${count(end[0])}.`;
  const picture = draw("svg", { viewBox: "0 0 1000 1000", preserveAspectRatio: "none", role: "img", "aria-label": words });
  for (const part of [0, 0.5, 1]) picture.append(draw("path", { class: "grid", d: `M0 ${1000 * part}H1000` }));
  picture.append(draw("path", { class: "ahead", d: path(ahead, x, y) }));
  picture.append(draw("path", { class: "done", d: path(done, x, y) }));
  const parts = [picture];
  for (const part of [0, 0.5, 1]) {
    const label = make("span", "up", Number.isInteger(high * part) || high >= 20 ? count(high * part) : (high * part).toFixed(1));
    label.style.top = `${100 - 100 * part}%`;
    parts.push(label);
  }
  for (const part of [0, 0.5, 1]) {
    const label = make("span", "across", count(wide * part));
    label.style.left = `${100 * part}%`;
    parts.push(label);
  }
  const dot = make("span", "here");
  dot.style.left = `${x(here[0]) / 10}%`;
  dot.style.top = `${y(here[1]) / 10}%`;
  parts.filter((part) => part !== picture).forEach((part) => part.setAttribute("aria-hidden", "true"));
  dot.setAttribute("aria-hidden", "true");
  box.replaceChildren(...parts, dot);
}

export function sparkline(values, label) {
  const x = (i) => values.length > 1 ? 1000 * i / (values.length - 1) : 0, y = (p) => 1000 - 1000 * p;
  const points = values.map((p, i) => [i, p]);
  const words = `Probability of ${label} in training: ${percent(values[0])} at first, ${percent(values[values.length - 1])} at the end.`;
  const picture = draw("svg", { viewBox: "0 0 1000 1000", preserveAspectRatio: "none", role: "img", "aria-label": words });
  for (const part of [0, 500, 1000]) picture.append(draw("path", { class: "grid", d: `M0 ${part}H1000` }));
  picture.append(draw("path", { class: "area", d: `${path(points, x, y)}L${x(values.length - 1)} 1000L0 1000Z` }));
  picture.append(draw("path", { class: "done", d: path(points, x, y) }));
  const box = make("div", "plot small-plot");
  box.append(picture);
  for (const part of [0, 0.5, 1]) {
    const tick = make("span", "up", percent(part));
    tick.style.top = `${100 - 100 * part}%`;
    tick.setAttribute("aria-hidden", "true");
    box.append(tick);
  }
  const first = make("span", "across", "epoch 1"), last = make("span", "across last", String(values.length));
  first.style.left = "0";
  last.style.left = "100%";
  [first, last].forEach((tick) => tick.setAttribute("aria-hidden", "true"));
  box.append(first, last);
  return box;
}
