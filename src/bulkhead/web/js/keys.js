// The keyboard's shortcuts. None fires while something is typed.

import { h } from "./dom.js";
import { open } from "./dialog.js";
import { may } from "./me.js";
import { go } from "./router.js";

const GO = { o: ["/", "overview"], i: ["/instances", "instances"], m: ["/images", "images"], n: ["/networks", "networks"], v: ["/volumes", "volumes"], k: ["/secrets", "secrets"], s: ["/snapshots", "snapshots"], p: ["/plans", "plans"], e: ["/events", "events"], u: ["/usage", "usage"], a: ["/audit", "audit"], t: ["/tenants", "tenants"] };
let going = 0;
const NEEDS = { "/tenants": "tenants", "/audit": "host" };
const offered = () => Object.entries(GO).filter(([, [path]]) => !NEEDS[path] || may(NEEDS[path]));

export function watchKeys() {
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || busy(event.target) || !document.querySelector(".shell")) return;
    if (Date.now() < going && GO[event.key]) {
      going = 0;
      go(GO[event.key][0]);
    } else if (event.key === "g") {
      going = Date.now() + 1500;
      return;
    } else if (event.key === "?") showKeys();
    else if (event.key === "c") go("/create");
    else if (event.key === "/") {
      const find = document.querySelector("input[type=search]");
      if (!find) return;
      find.focus();
      find.select();
    } else return;
    event.preventDefault();
  });
}

const busy = (target) => document.querySelector("dialog[open]") || target.closest?.("input, select, textarea, .xterm, [contenteditable]");

export function showKeys() {
  const row = (keys, words) => [h("dt", keys.map((key) => [h("kbd", key), " "])), h("dd", words)];
  const rows = [row(["?"], "this list"), row(["/"], "find in a list"), row(["c"], "create an instance"), ...offered().map(([key, [, words]]) => row(["g", key], words)), row(["Esc"], "close a dialog"), row(["Ctrl", "Shift", "F6"], "leave the terminal")];
  open("Keys", { body: h("div.body", h("dl.keys", rows)) });
}
