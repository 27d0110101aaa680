// Elements, numbers and words. Everything that comes from data is set as text, never as HTML.

const SVG = "http://www.w3.org/2000/svg";

export function make(name, className, text) {
  const element = document.createElement(name);
  if (className) element.className = className;
  if (text !== undefined && text !== null) element.textContent = text;
  return element;
}

export function draw(name, attributes) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  return element;
}

export const element = (id) => document.getElementById(id);

export function percent(share) {
  if (share > 0 && share < 0.01) return "< 1\u202f%";
  if (share < 1 && share > 0.99) return "> 99\u202f%";
  return `${Math.round(100 * share)}\u202f%`;
}

export function count(number) {
  return Math.round(number).toLocaleString("en").replaceAll(",", "\u202f");
}

export const some = (number, what) => `${count(number)} ${what}${Math.round(number) === 1 ? "" : "s"}`;

export function say(label) {
  return label === null || label === "" ? "no label" : label;
}

// What a decision means, for a line, a card and a screen reader.
export function spoken(verdict, label) {
  const words = { keep: "kept", accept: "changed to", other: "changed to", both: "both may be right", none: "none fits", skip: "skipped" };
  return verdict === "accept" || verdict === "other" ? `${words[verdict]} ${label}` : words[verdict];
}
