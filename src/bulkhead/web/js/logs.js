// An instance's log, as it is written.

import * as api from "./api.js";
import { fill, h, icon, text } from "./dom.js";
import { clock } from "./units.js";

const MOST = 3000;
const TAIL = 500;
// Bytes that are no UTF-8 come as U+DC80 to U+DCFF; what a terminal would obey is dropped, for this is text.
const CONTROL = /\x1b\[[0-9;?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|\x1b.|[\x00-\x08\x0b-\x1f\x7f]/g;
const clean = (line) => line.replace(/[\uDC80-\uDCFF]/g, "\uFFFD").replace(/\r?\n$/, "").replace(CONTROL, "");

export function logs(instance) {
  const { spec } = instance;
  const lines = h("div.log", { tabIndex: 0, role: "log", "aria-label": `Log of ${spec.name}`, "aria-live": "off" });
  const told = h("span.told");
  let words = "", follow = true, times = false, aborter = null, count = 0;
  const open = new Map(); // stream -> the line that goes on

  const find = h("input", { type: "search", placeholder: "Show lines with", "aria-label": "Show lines with", spellcheck: false, oninput: () => { words = find.value.toLowerCase(); for (const line of lines.children) line.hidden = !fits(line); } });
  const fits = (line) => !words || line.lastChild.textContent.toLowerCase().includes(words);
  const follows = h("label.check", h("input", { type: "checkbox", checked: true, onchange: (event) => { follow = event.target.checked; if (follow) lines.scrollTop = lines.scrollHeight; } }), "Follow");
  const timed = h("label.check", h("input", { type: "checkbox", onchange: (event) => { times = event.target.checked; lines.querySelectorAll("time").forEach((time) => { time.hidden = !times; }); } }), "Times");
  const save = h("button", { type: "button", onclick: keep }, icon("download"), "Save");
  const element = h("section.card", h("div.filters", h("div.find", icon("search"), find), follows, timed, save, told), lines);

  let queue = [], drawing = 0;
  function draw() {
    drawing = 0;
    const fragment = document.createDocumentFragment();
    for (const entry of queue) {
      const going = open.get(entry.stream);
      if (going) going.lastChild.textContent += clean(entry.text);
      else {
        const line = h(entry.stream === "stderr" ? "div.err" : "div", h("time", { hidden: !times }, clock(entry.when)), h("span", clean(entry.text)));
        fragment.append(line);
        count += 1;
        if (entry.partial) open.set(entry.stream, line);
      }
      const line = open.get(entry.stream) ?? fragment.lastChild;
      if (line) line.hidden = !fits(line);
      if (!entry.partial) open.delete(entry.stream);
    }
    queue = [];
    lines.querySelector(".empty")?.remove();
    lines.append(fragment);
    while (lines.childElementCount > MOST) lines.firstChild.remove();
    text(told, count > MOST ? `the last ${MOST} lines` : "");
    if (follow) lines.scrollTop = lines.scrollHeight;
  }

  async function begin() {
    aborter = new AbortController();
    const { signal } = aborter;
    try {
      for await (const entry of api.lines("GET", `/v1/instances/${api.ref(spec.id)}/logs`, { query: { tail: TAIL, follow: true }, signal })) {
        queue.push(entry);
        // However much is written, the page is drawn once for each picture of the screen.
        drawing ||= requestAnimationFrame(draw);
      }
      text(told, "the log has ended");
      if (!count && !queue.length) fill(lines, h("div.empty", h("p", "Nothing was written to stdout or stderr.")));
    } catch (error) {
      if (!signal.aborted) text(told, error.message);
    }
  }

  async function keep() {
    const parts = [];
    for await (const entry of api.lines("GET", `/v1/instances/${api.ref(spec.id)}/logs`)) parts.push(entry.partial ? entry.text : `${entry.text.replace(/\n$/, "")}\n`);
    const address = URL.createObjectURL(new Blob(parts, { type: "text/plain" }));
    const link = h("a", { href: address });
    link.download = `${spec.name}.log`;
    link.click();
    URL.revokeObjectURL(address);
  }

  begin();
  return { element, close: () => { aborter?.abort(); cancelAnimationFrame(drawing); } };
}
