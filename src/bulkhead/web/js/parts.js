// Small parts that every view is made of.

import { fill, h, icon, text } from "./dom.js";
import { bytes, percent } from "./units.js";

const WALLS = { chroot: [1, "a file system of its own"], container: [2, "namespaces, a shared kernel"], vm: [3, "a kernel of its own"], unikernel: [4, "one program, a kernel of its own"] };
const CHANGING = new Set(["creating", "starting", "stopping", "deleting"]);
// Of what is on a host of the fleet that does not answer: the reason is with it.
const AWAY = { unheard: ["changing", "host does not answer"], lost: ["failed", "lost with its host"], waiting: ["changing", "waits for a place"], recovering: ["changing", "recovering"] };
export const isAway = (instance) => instance.state in AWAY;

export function wall(level) {
  const [bars, words] = WALLS[level] ?? [0, ""];
  return h("span.wall", { title: words }, h("i", { "aria-hidden": "true" }, [1, 2, 3, 4].map((number) => h(`b${number <= bars ? ".on" : ""}`))), level);
}

export const wallWords = (level) => WALLS[level]?.[1] ?? "";

// How an instance is, in one word and a colour that does not stand alone.
export function standing(instance) {
  if (instance.state === "exited") {
    const exit = instance.exit;
    if (!exit) return ["exited", "exited"];
    if (exit.oom) return ["failed", "out of memory"];
    if (exit.error) return ["failed", "failed"];
    if (exit.code && !instance.stop_requested) return ["failed", `exited (${exit.code})`];
    return ["exited", exit.code ? `exited (${exit.code})` : "exited"];
  }
  if (instance.state === "running" && instance.health === "unhealthy") return ["unhealthy", "unhealthy"];
  if (instance.state === "running" && instance.health) return ["running", instance.health];
  if (isAway(instance)) return AWAY[instance.state];
  return [CHANGING.has(instance.state) ? "changing" : instance.state, instance.state];
}

export function state(instance) {
  const element = h("span.state");
  return updateState(element, instance);
}

export function updateState(element, instance) {
  const [kind, words] = standing(instance);
  element.dataset.state = kind;
  element.title = instance.reason ?? "";
  text(element, words);
  return element;
}

const level = (share) => (share >= 97 ? "full" : share >= 80 ? "high" : "");

// A figure with its limit and a bar.
export function use(label) {
  const now = h("span"), limit = h("span.of"), fillBar = h("i");
  const bar = h("span.bar", { role: "img" }, fillBar);
  const element = h("span.use", now, limit, bar);
  element.update = (value, whole, format = bytes) => {
    const known = value !== null && value !== undefined;
    text(now, known ? format(value) : "–");
    text(limit, known && whole ? ` of ${format(whole)}` : "");
    const share = known ? Math.min(100, percent(value, whole)) : 0;
    fillBar.style.width = `${share}%`;
    bar.dataset.level = level(share);
    bar.hidden = !whole || !known;
    bar.setAttribute("aria-label", known ? `${label}: ${Math.round(share)} % of the plan` : `${label}: not known`);
  };
  return element;
}

export function head(title, { actions, crumb, beside } = {}) {
  return h("div.head", h("div.grow", crumb && h("div.crumb.small", crumb), h("h1", { tabIndex: -1 }, title, beside && [" ", beside])), actions && h("div.actions", actions));
}

export function card(title, content, tools) {
  return h("section.card", h("header", h("h2", title), tools), content);
}

export function facts(rows) {
  return h("dl.facts", rows.filter(Boolean).map(([name, value]) => [h("dt", name), h("dd", value === "" || value === null || value === undefined ? "–" : value)]));
}

export function empty(picture, title, words, ...more) {
  return h("div.empty", icon(picture), h("h2", title), h("p", words), more);
}

export function button(label, picture, onclick, kind = "") {
  return h(`button${kind}`, { type: "button", onclick }, picture && icon(picture), label);
}

export function tool(label, picture, onclick) {
  return h("button.quiet.icon-only", { type: "button", onclick, "aria-label": label, title: label }, icon(picture));
}

// One of a few: [[value, label], ...].
let groups = 0;
export function segments(label, choices, value, chosen) {
  const name = `segments-${++groups}`;
  return h("fieldset.segments", h("legend.unseen", label), choices.map(([key, words]) => h("label", h("input", { type: "radio", name, value: key, checked: key === value, onchange: () => chosen(key) }), h("span", words))));
}

// Run something a button asked for: it cannot be asked twice, and says it when it fails.
export function guarded(work, failed) {
  return async (event) => {
    const target = event?.currentTarget;
    if (target) target.disabled = true;
    try {
      await work(event);
    } catch (error) {
      failed(error);
    } finally {
      if (target) target.disabled = false;
    }
  };
}

export function headings(names) {
  return h("thead", h("tr", names.map((name) => (Array.isArray(name) ? h(`th.${name[1]}`, { scope: "col" }, name[0]) : h("th", { scope: "col" }, name || h("span.unseen", "actions"))))));
}

export function simpleTable(label, names, rows) {
  return h("div.scroll", { tabIndex: 0, role: "region", "aria-label": label }, h("table", headings(names), h("tbody", rows)));
}

// What stands where an answer has not come yet; readers of screens hear it too.
export const waiting = () => h("div.empty", { role: "status" }, h("p.muted", "Loading…"));

// Content that is asked for: what stands there until it comes, and when it does not.
export function asked(load, show) {
  const element = h("div", waiting());
  let asking = 0;
  const again = async () => {
    const mine = asking += 1; // an answer that is overtaken by a later one is old
    try {
      const found = await load();
      if (mine === asking) fill(element, show(found, again));
    } catch (error) {
      if (error.name === "AbortError" || mine !== asking) return;
      const [first] = error.problems ?? [{ what: error.message, hint: "" }];
      fill(element, h("div.empty", h("h2", first.what), first.hint && h("p", first.hint), button("Try again", "restart", again)));
    }
  };
  element.again = again;
  again();
  return element;
}
