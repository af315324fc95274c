// Named plans, and what they cost.

import * as api from "./api.js";
import { confirm, field, form } from "./dialog.js";
import { h } from "./dom.js";
import { may } from "./me.js";
import { asked, button, head, simpleTable, tool } from "./parts.js";
import { pricesOf } from "./prices.js";
import { tariff } from "./tariff.js";
import { done } from "./say.js";
import { bits, bytes, number, parseBytes, rate } from "./units.js";

export function plans() {
  const load = async () => ({ found: await api.get("/v1/plans"), prices: await pricesOf() });
  const list = asked(load, ({ found, prices }, again) => simpleTable("Plans", ["Name", "Memory", "CPU", "Disk", ["Operations", "hide-narrow"], ["Bandwidth", "hide-narrow"], prices && ["Price", "right"], ""].filter((name) => name !== null), found.map((named) => row(named, prices, again))));
  return { title: "Plans", element: h("div", head("Plans", { actions: may("host") && button("Create", "plus", () => create(list.again), ".primary") }), h("div.stack", h("section.card", list), tariff(() => list.again()))) };
}

function row({ name, plan }, prices, again) {
  return h("tr", h("td.name.break", name), h("td.nowrap", bytes(plan.memory)), h("td.nowrap", `${number(plan.cpus, 2)}${plan.ghz ? ` × ${number(plan.ghz, 2)} GHz` : ""}`), h("td.nowrap", bytes(plan.disk)),
    h("td.nowrap.hide-narrow", plan.iops ? `${number(plan.iops)}/s` : plan.disk_bps ? rate(plan.disk_bps) : "–"), h("td.nowrap.hide-narrow", plan.bandwidth ? bits(plan.bandwidth) : "–"),
    prices && h("td.right.nowrap", prices.words(name, plan) ?? "–"),
    h("td.tools", may("host") && tool(`Delete ${name}`, "trash", () => drop(name, again))));
}

function create(again) {
  const text = (placeholder, required = false) => h("input", { type: "text", spellcheck: false, placeholder, required });
  const entered = { name: text("", true), memory: text("512M", true), cpus: text("2", true), ghz: text("the host's"), disk: text("5G", true), iops: text("no limit"), bandwidth: text("no limit, in Mbit/s") };
  return form("Create a plan", {
    fields: [field("Name", entered.name), h("div.pair", field("Memory", entered.memory), field("Disk", entered.disk)), h("div.pair", field("Cores", entered.cpus), field("GHz of a core", entered.ghz)), h("div.pair", field("Disk operations per second", entered.iops), field("Bandwidth", entered.bandwidth))],
    action: "Create",
    async submit() {
      const value = (key, read = Number) => (entered[key].value.trim() ? read(entered[key].value) : null);
      const plan = { memory: value("memory", parseBytes), disk: value("disk", parseBytes), cpus: value("cpus"), ghz: value("ghz"), iops: value("iops"), bandwidth: value("bandwidth", (mbit) => Math.round(Number(mbit) * 1e6)) };
      const wrong = Object.entries(plan).filter(([, found]) => Number.isNaN(found)).map(([key]) => ({ what: `${key} ${entered[key].value} is no number`, hint: "" }));
      if (wrong.length) throw new api.Problem({ detail: wrong[0].what, problems: wrong });
      await api.post("/v1/plans", { name: entered.name.value, plan });
      done(`Plan ${entered.name.value} is created.`);
      again();
    },
  });
}

function drop(name, again) {
  return confirm(`Delete the plan ${name}?`, {
    words: ["The plan ", h("b", name), " can no longer be asked for; instances that have it keep what they have."],
    action: `Delete ${name}`,
    async submit() {
      await api.remove(`/v1/plans/${api.ref(name)}`);
      done(`Plan ${name} is deleted.`);
      again();
    },
  });
}
