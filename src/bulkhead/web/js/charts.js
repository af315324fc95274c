// An instance's use over time: of each part of its plan a chart.

import * as live from "./live.js";
import { chart } from "./chart.js";
import { fill, h } from "./dom.js";
import { SPANS, binsOf } from "./history.js";
import { segments } from "./parts.js";
import { bits, bytes, cores, number, rate } from "./units.js";

let chosen = "minutes"; // kept while the page is open

// What is shown of a plan: the chart, and its limit where that is known better than by the plan at the beginning.
function kinds() {
  const ops = (value) => `${number(value, 1)}/s`;
  return {
    cpu: [chart({ title: "CPU", series: [{ label: "used", key: "cpu" }], format: cores }), (plan) => plan.cpus],
    memory: [chart({ title: "Memory", series: [{ label: "used", key: "memory" }], format: bytes, binary: true }), (plan) => plan.memory],
    disk: [chart({ title: "Disk", series: [{ label: "used", key: "disk" }], format: bytes, binary: true }), (plan, last) => last?.usage.disk_size ?? plan.disk],
    network: [chart({ title: "Network", series: [{ label: "in", key: "received" }, { label: "out", key: "sent" }], format: (value) => bits(value * 8) }), (plan) => (plan.bandwidth ? plan.bandwidth / 8 : null)],
    throughput: [chart({ title: "Disk throughput", series: [{ label: "read", key: "read" }, { label: "written", key: "written" }], format: rate, binary: true }), (plan) => plan.disk_bps],
    operations: [chart({ title: "Disk operations", series: [{ label: "read", key: "reads" }, { label: "written", key: "writes" }], format: ops }), (plan) => plan.iops],
  };
}

export function chartsOf(found) {
  const { id } = found.spec;
  const charts = kinds();
  const note = h("span.small.muted");
  const grid = h("div.charts");
  const element = h("div.stack", { hidden: true }, h("div.over", segments("Time shown", Object.entries(SPANS).map(([key, { label }]) => [key, label]), chosen, (key) => { chosen = key; past = []; begin(); }), note), grid);
  let past = [], asked = 0, instance = found, gone = false, drawn = "";

  // What lies behind. Where it cannot be had the charts begin now; the frame tells that the daemon does not answer.
  async function begin() {
    const span = SPANS[chosen];
    asked = live.now();
    fill(note, span.live ? "Before you looked, the mean of each minute." : `The mean of ${span.bin} at a time.`);
    update(instance);
    let bins;
    try {
      bins = await binsOf(instance, span, live.now());
    } catch {
      return;
    }
    if (gone || span !== SPANS[chosen]) return;
    past = bins;
    update(instance);
  }

  function update(now) {
    instance = now;
    const history = live.histories.get(id) ?? [];
    const last = history.at(-1);
    const over = SPANS[chosen];
    const shown = Object.entries(charts).filter(([key]) => key !== "operations" || typeof last?.usage.disk_reads === "number");
    for (const [, [one, limit]] of shown) one.update({ past, live: history, over, allowed: limit(now.spec.plan, last) ?? null });
    const names = shown.map(([key]) => key).join();
    if (drawn !== names) grid.replaceChildren(...shown.map(([, [one]]) => one.element));
    drawn = names;
    element.hidden = now.state !== "running" && now.state !== "paused" && !history.length && !past.length && chosen === "minutes" && !now.started;
    if (live.now() - asked > over.again) begin();
  }

  begin();
  return {
    element, update,
    close() {
      gone = true;
      Object.values(charts).forEach(([one]) => one.close());
    },
  };
}
