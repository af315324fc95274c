// What the page tells: short messages, and what only a screen reader needs to be told.

import { h, icon } from "./dom.js";

const SECONDS = 6;

export function announce(words) {
  const region = document.getElementById("said");
  region.textContent = "";
  // A reader speaks of changes: the same words twice are none.
  requestAnimationFrame(() => { region.textContent = words; });
}

function show(kind, ...content) {
  const close = h("button.quiet.icon-only", { onclick: () => toast.remove(), "aria-label": "Dismiss" }, icon("close"));
  const toast = h(`div.toast.${kind}`, { role: kind === "bad" ? "alert" : "status" }, h("div", content), close);
  document.getElementById("toasts").append(toast);
  return toast;
}

export const clear = () => document.getElementById("toasts").replaceChildren();

export function done(words) {
  const toast = show("ok", words);
  setTimeout(() => toast.remove(), SECONDS * 1000);
}

// An error stays until it is dismissed, so that its hint can be read.
export function failed(error) {
  console.assert(error instanceof Error);
  const [first] = error.problems ?? [{ what: error.message, hint: "" }];
  show("bad", h("b", first.what), first.hint && h("div.muted.small", first.hint));
}

// Everything that is wrong with what was entered, where it was entered.
export function problems(error) {
  const found = error.problems ?? [{ what: error.message, hint: "" }];
  return h("div.notice.bad", { role: "alert", tabIndex: -1 }, h("ul", found.map((one) => h("li", h("b", one.what), one.hint && h("div.hint", one.hint)))));
}
