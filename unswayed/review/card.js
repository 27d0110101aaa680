// One row: what it is, what is said of it, and what can be done.

import { sparkline } from "./chart.js";
import { count, make, percent, say, spoken } from "./make.js";
import { preview } from "./server.js";

const TINY = 96; // pixels: smaller images are enlarged without smoothing

// The card as elements. `act(verdict, label)` decides, `visit(at)` shows another row, `choose()` opens the chooser.
export function drawCard(card, shows, { act, visit, choose, undo }) {
  const parts = [head(card), content(card, shows), labels(card), actions(card, { act, choose, undo })];
  if (card.others.length) parts.push(others(card, act));
  const why = make("section", "why");
  why.append(make("h3", "", card.opening), reasons(card));
  parts.push(why);
  if (card.neighbours.length) parts.push(neighbours(card, shows, visit));
  const grid = make("div", "evidence");
  if (card.curve) grid.append(block("While training", sparkline(card.curve, card.given), `Probability of ${card.given}, epoch by epoch.`));
  if (card.scores.length) grid.append(block("Scores", scores(card)));
  if (grid.children.length) parts.push(grid);
  if (card.history.length) parts.push(history(card));
  return parts;
}

function block(title, content, note) {
  const section = make("section", "block");
  section.append(make("h3", "", title), content);
  if (note) section.append(make("p", "note", note));
  return section;
}

function head(card) {
  const box = make("header", "row-head");
  const title = make("h2", "", `Row ${card.row}`);
  title.id = "card-title";
  const sure = make("p", "suspicion", `${percent(card.suspicion)} likely wrong`);
  box.append(title, make("span", `tag kind-${card.kind}`, card.kind), sure);
  if (card.state === "conflict") {
    const who = card.standing.filter((said) => said.verdict !== "skip").map((said) => `${said.reviewer}: ${spoken(said.verdict, said.label)}`);
    box.append(make("p", "state bad", `Reviewers disagree. ${who.join("; ")}.`));
  } else if (card.verdict) {
    const by = card.standing.filter((said) => said.verdict !== "skip").map((said) => said.reviewer);
    box.append(make("p", "state good", `Settled: ${spoken(card.verdict, card.label)} (${by.join(", ")}).`));
  } else if (card.state === "skipped") {
    box.append(make("p", "state", `Skipped by ${card.standing.map((said) => said.reviewer).join(", ")}.`));
  }
  return box;
}

function content(card, shows) {
  const box = make("div", `content ${shows ?? "none"}`);
  const { text, cells, trouble } = card.content;
  if (shows === "image") {
    const image = make("img");
    image.alt = `Row ${card.row}`;
    image.addEventListener("load", () => image.classList.toggle("tiny", Math.max(image.naturalWidth, image.naturalHeight) <= TINY));
    image.addEventListener("error", () => box.replaceChildren(make("p", "none", "This picture cannot be read.")));
    image.src = preview(card.at, true);
    box.append(image);
  } else if (shows === "audio") {
    const sound = make("audio");
    sound.controls = true;
    sound.preload = "metadata";
    sound.setAttribute("aria-label", `Sound of row ${card.row}`);
    sound.addEventListener("error", () => box.replaceChildren(make("p", "none", "This sound cannot be read.")));
    sound.src = preview(card.at, true);
    box.append(sound);
  } else if (cells) {
    const list = make("dl", "cells");
    for (const [name, value] of Object.entries(cells)) {
      const pair = make("div");
      pair.append(make("dt", "", name), make("dd", "", value));
      list.append(pair);
    }
    box.append(list);
  } else if (text !== undefined) {
    const quote = make("blockquote", text.length < 160 ? "brief" : "", text);
    quote.tabIndex = 0;
    quote.setAttribute("aria-label", `Text of row ${card.row}`);
    box.append(quote);
  } else {
    box.append(make("p", "none", trouble ?? "The audit knows labels and probabilities only: look the row up by its number."));
  }
  return box;
}

function labels(card) {
  const box = make("p", "labels");
  box.append(make("span", "hidden", "Given "), make("span", "given", say(card.given)));
  if (card.suggested !== card.given) {
    const arrow = make("i", "", "→");
    arrow.setAttribute("aria-hidden", "true");
    box.append(arrow, make("span", "hidden", ", suggested "), make("span", "suggested", card.suggested), make("span", "soft", percent(card.probability)));
  } else {
    box.append(make("span", "soft", "is also the likeliest label"));
  }
  return box;
}

function button(words, key, className, act, label) {
  const made = make("button", className, words);
  made.type = "button";
  made.append(make("kbd", "", key.toUpperCase()));
  made.setAttribute("aria-keyshortcuts", key);
  if (label) made.setAttribute("aria-label", label);
  made.addEventListener("click", act);
  return made;
}

function actions(card, { act, choose, undo }) {
  const box = make("div", "actions");
  box.setAttribute("role", "group");
  box.setAttribute("aria-label", "Decide");
  const same = card.suggested === card.given;
  if (!same) box.append(button(`Accept ${card.suggested}`, "a", "main", () => act("accept"), `Accept the suggested label ${card.suggested}`));
  if (card.given) box.append(button(`Keep ${card.given}`, "k", same ? "main" : "plain", () => act("keep"), `Keep the given label ${card.given}`));
  box.append(button("Other", "o", "plain", choose, "Choose another label"));
  if (card.given) box.append(button("Both", "b", "plain", () => act("both"), "Both labels may be right"));
  box.append(button("None fits", "n", "plain", () => act("none")));
  const aside = make("span", "aside"); // they wrap together
  aside.append(button("Skip", "s", "plain quiet", () => act("skip")), button("Undo", "u", "plain quiet", undo, "Undo my last decision"));
  box.append(aside);
  const chosen = { accept: "a", keep: "k", other: "o", both: "b", none: "n" }[card.verdict];
  box.querySelectorAll("button").forEach((each) => { if (each.getAttribute("aria-keyshortcuts") === chosen) each.classList.add("chosen"); });
  return box;
}

function others(card, act) {
  const box = make("div", "others");
  box.setAttribute("role", "group");
  box.setAttribute("aria-label", "Other likely labels");
  card.others.forEach((other, i) => {
    const made = make("button", "plain", "");
    made.type = "button";
    made.append(make("kbd", "", String(i + 1)), make("span", "", other.label));
    if (other.probability !== null) made.append(make("span", "soft", percent(other.probability)));
    made.setAttribute("aria-label", `Choose ${other.label}`);
    made.setAttribute("aria-keyshortcuts", String(i + 1));
    made.addEventListener("click", () => act("other", other.label));
    box.append(made);
  });
  return box;
}

function reasons(card) {
  const list = make("ul", "reasons");
  list.append(...card.reasons.map((reason) => make("li", "", reason)));
  return list;
}

function neighbours(card, shows, visit) {
  const list = make("ol", `near ${shows ?? "none"}`);
  for (const near of card.neighbours) {
    const tone = near.label === card.suggested && card.suggested !== card.given ? "like-suggested" : near.label === card.given ? "like-given" : "";
    const line = make("li"), made = make("button", `neighbour ${tone}`);
    made.type = "button";
    const alike = near.similarity === null ? "" : `, similarity ${near.similarity.toFixed(2)}`;
    made.setAttribute("aria-label", `Row ${near.row}, labelled ${say(near.label)}${alike}. Show it.`);
    if (shows === "image") {
      const image = make("img");
      image.alt = "";
      image.addEventListener("load", () => image.classList.toggle("tiny", Math.max(image.naturalWidth, image.naturalHeight) <= TINY));
      image.src = preview(near.at);
      made.append(image);
    } else if (near.excerpt) {
      made.append(make("span", "excerpt", near.excerpt));
    } else {
      made.append(make("span", "excerpt", `Row ${near.row}`));
    }
    const foot = make("span", "foot");
    foot.append(make("strong", "", say(near.label)));
    if (near.similarity !== null) foot.append(make("span", "soft", near.similarity.toFixed(2)));
    made.append(foot);
    made.addEventListener("click", () => visit(near.at));
    line.append(made);
    list.append(line);
  }
  return block("Most similar rows", list, "Nearest first, with their given labels and how similar they are (1 is the same).");
}

function scores(card) {
  const list = make("dl", "scores");
  for (const score of card.scores) {
    const line = make("div");
    const value = make("dd");
    const bar = make("span", "share"), fill = make("i");
    fill.style.width = `${100 * score.above}%`;
    bar.append(fill);
    value.append(bar, make("span", "", `above ${percent(score.above)} of rows`));
    const name = make("dt", "", score.name);
    if (score.words) name.append(make("span", "note", score.words));
    line.append(name, value);
    list.append(line);
  }
  return list;
}

function history(card) {
  const details = make("details", "history");
  details.append(make("summary", "", `History (${count(card.history.length)})`));
  const list = make("ol");
  for (const said of card.history) {
    const time = new Date(said.time).toLocaleString();
    list.append(make("li", said.undone ? "undone" : "", `${time}, ${said.reviewer}: ${spoken(said.verdict, said.label)}${said.undone ? " (taken back)" : ""}`));
  }
  details.append(list);
  return details;
}
