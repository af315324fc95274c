// What has happened.

import * as live from "./live.js";
import { fill, h, icon, text } from "./dom.js";
import { empty, head, headings, waiting } from "./parts.js";
import { link } from "./router.js";
import { moment, plural } from "./units.js";

const SHOWN = 300;

// The rows of those events that `fits` lets through, the newest first.
export function eventRows(fits, most = SHOWN) {
  const body = h("tbody");
  const table = h("div.scroll", { tabIndex: 0, role: "region", "aria-label": "Events" }, h("table", headings(["When", "What", "Of", ["Details", "hide-narrow"]]), body));
  const soon = waiting(), nothing = empty("events", "Nothing has happened", "What is created, started, changed or ends within a day is shown here as it happens.");
  const instead = h("div");
  const element = h("div", table, instead);
  function update() {
    const found = live.events.filter(fits).slice(-most).reverse();
    table.hidden = found.length === 0;
    const wanted = found.length ? null : live.told ? nothing : soon;
    if (instead.firstChild !== wanted) fill(instead, wanted);
    fill(body, found.map(row));
    return found.length;
  }
  update();
  return { element, update };
}

function row(event) {
  const known = event.kind === "instance" && live.instances.has(event.id);
  const name = event.name || event.id.slice(0, 12);
  const details = Object.entries(event.attributes).map(([key, value]) => `${key} ${value}`).join(", ");
  return h("tr", h("td.nowrap.muted", moment(event.when)), h("td.nowrap", `${event.kind} ${event.action}`), h("td.break", known ? h("a", { href: link("instances", name) }, name) : name), h("td.hide-narrow.break.muted", details));
}

export function events() {
  let words = "";
  const told = h("span.told");
  const part = eventRows((event) => !words || `${event.kind} ${event.action} ${event.name} ${event.id} ${Object.values(event.attributes).join(" ")}`.toLowerCase().includes(words));
  const update = () => text(told, plural(part.update(), "event"));
  const find = h("input", { type: "search", placeholder: "Name, kind, action", "aria-label": "Find events", spellcheck: false, oninput: () => { words = find.value.toLowerCase(); update(); } });
  update();
  const silence = live.listen((what) => { if (what === "events") update(); });
  return { title: "Events", element: h("div", head("Events"), h("section.card", h("div.filters", h("div.find", icon("search"), find), told), part.element)), leave: silence };
}
