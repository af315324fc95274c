// Another plan for an instance, with its price before and after; another wall, with how it went.

import * as api from "./api.js";
import * as live from "./live.js";
import { field, form, open } from "./dialog.js";
import { fill, h } from "./dom.js";
import { facts, wall } from "./parts.js";
import { pricesOf } from "./prices.js";
import { done } from "./say.js";
import { bytes, duration, number, parseBytes } from "./units.js";

const at = (instance, verb = "") => `/v1/instances/${api.ref(instance.spec.id)}${verb}`;

// As it is now: a button may have been made before its last change.
const latest = (instance) => live.instances.get(instance.spec.id) ?? instance;

// What of a plan can be entered: how it is shown, and how read.
const size = (value) => bytes(value);
const plain = (value) => String(value);
const FIELDS = {
  memory: ["Memory", size, parseBytes], disk: ["Disk", size, parseBytes],
  cpus: ["Cores", plain, Number], ghz: ["GHz of a core", plain, Number],
  iops: ["Disk operations per second", plain, Number], bandwidth: ["Bandwidth, Mbit/s", (value) => plain(value / 1e6), (words) => Math.round(Number(words) * 1e6)],
  pids: ["Processes", plain, Number],
};
const shown = (name, value) => (value === null || value === undefined ? "" : FIELDS[name][1](value));

export async function changePlan(asked) {
  const instance = latest(asked);
  const { spec } = instance;
  const [plans, prices] = await Promise.all([api.get("/v1/plans"), pricesOf(spec.tenant)]);
  const named = h("select", { onchange: choose }, h("option", { value: "" }, spec.plan_name ? `${spec.plan_name}, as it is` : "its own"), plans.filter(({ name }) => name !== spec.plan_name).map(({ name }) => h("option", { value: name }, name)));
  const inputs = Object.fromEntries(Object.keys(FIELDS).map((name) => [name, h("input", { type: "text", spellcheck: false, autocomplete: "off", oninput: tell })]));
  const told = h("div.notice", { role: "status" });
  const base = () => plans.find(({ name }) => name === named.value)?.plan ?? spec.plan;

  function choose() {
    for (const name of Object.keys(FIELDS)) {
      inputs[name].value = shown(name, base()[name]);
      inputs[name].placeholder = base()[name] === null ? (name === "ghz" ? "the host's" : "no limit") : "";
    }
    tell();
  }

  // What is asked for beyond the named plan; everything wrong at once.
  function entered() {
    const wrong = [], found = {};
    for (const [name, [label, , read]] of Object.entries(FIELDS)) {
      const words = inputs[name].value.trim();
      if (words === shown(name, base()[name])) continue;
      const value = words ? read(words) : NaN;
      if (!words) wrong.push({ what: `${label}: a limit cannot be taken away`, hint: "choose a plan that has none, or enter another" });
      else if (!Number.isFinite(value)) wrong.push({ what: `${label} ${words} is no number`, hint: name === "memory" || name === "disk" ? "for example 512M or 10G" : "" });
      else found[name] = value;
    }
    return { found, wrong };
  }

  function tell() {
    const { found, wrong } = entered();
    const after = { ...base(), ...found };
    const changed = Object.keys(FIELDS).filter((name) => after[name] !== spec.plan[name]);
    const say = (name, value) => (value === null || value === undefined ? "no limit" : FIELDS[name][1](value));
    const before = prices?.monthly(spec.plan_name, spec.plan), then = prices?.monthly(named.value || spec.plan_name, after);
    fill(told, wrong.length ? h("span.hint", wrong[0].what) : changed.length || named.value ? [changed.map((name) => h("span", `${FIELDS[name][0]}: ${say(name, spec.plan[name])} → `, h("b", say(name, after[name])))), (before || then) && h("span", `Price: ${before ?? "none"} → `, h("b", then ?? "none"))] : [h("span.hint", "Nothing is changed yet."), before && h("span", `Price: ${before}`)]);
  }

  choose();
  return form(`Another plan for ${spec.name}`, {
    fields: [field("Plan", named, "Its figures can be changed below. It counts at once, also while it runs."), h("div.pair", Object.entries(inputs).map(([name, input]) => field(FIELDS[name][0], input))), told],
    action: "Change the plan", wide: true,
    async submit() {
      const { found, wrong } = entered();
      if (wrong.length) throw new api.Problem({ detail: wrong[0].what, problems: wrong });
      if (!named.value && !Object.keys(found).length) throw new api.Problem({ detail: "nothing is changed", hint: "choose a plan, or enter another figure" });
      await api.patch(at(instance), { plan: { ...(named.value ? { name: named.value } : {}), ...found } });
      done(`${spec.name} has another plan.`);
      await live.refresh();
    },
  });
}

export async function moveWall(asked) {
  const instance = latest(asked);
  const { spec } = instance;
  const [{ levels }, networks, tenants] = await Promise.all([api.get("/v1/isolation"), api.get("/v1/networks"), api.get("/v1/tenants")]);
  const allowed = tenants.find((one) => one.tenant.name === spec.tenant)?.tenant.levels ?? levels.map(({ level }) => level);
  const others = levels.filter(({ level }) => level !== spec.isolation && level !== "unikernel" && allowed.includes(level));
  const ORDER = ["chroot", "container", "vm"];
  const stronger = ({ level }) => ORDER.indexOf(level) > ORDER.indexOf(spec.isolation);
  const first = others.find((one) => one.works && stronger(one)) ?? others.find(({ works }) => works);
  const chosen = () => content.querySelector("input:checked")?.value ?? "";
  const about = h("div");
  const tell = () => {
    const found = levels.find(({ level }) => level === chosen());
    fill(about, found?.not_isolated?.length ? h("div.notice", h("b", `What a ${found.level} does not isolate`), h("ul", found.not_isolated.map((line) => h("li.small", line)))) : null);
  };
  const content = h("div.choices", others.map((one) => h("label.choice", h("input", { type: "radio", name: "wall", value: one.level, checked: one === first, disabled: !one.works, onchange: tell }), h("b", wall(one.level)), !one.works && h("span.small.muted", `not on this host: ${one.reason}`))));
  const network = h("select", h("option", { value: "" }, `as it is (${spec.network})`), networks.filter((one) => one.tenant === spec.tenant && one.name !== spec.network).map((one) => h("option", { value: one.name }, one.name)), h("option", { value: "none" }, "none"));
  const within = h("input", { type: "text", inputmode: "numeric", value: "120" });
  tell();
  const moved = await form(`Another wall for ${spec.name}`, {
    fields: [h("p", "It is stopped, and started again behind the other wall with the same disk. Where that fails it goes on behind this one."), h("fieldset", h("legend.label", `From ${spec.isolation} to`), content), about, h("div.pair", field("Network", network), field("Seconds to be well", within, "Until its health check passes; else it is led back."))],
    action: "Move it", progress: true, wide: true,
    async submit(step, signal) {
      const seconds = Number(within.value);
      if (!chosen()) throw new api.Problem({ detail: "there is no other wall for it here", hint: "bulkhead doctor tells what each lacks" });
      if (!(seconds > 0)) throw new api.Problem({ detail: `${within.value} is no number of seconds`, hint: "for example 120" });
      return api.operate(at(instance, "/move"), { isolation: chosen(), network: network.value || null, within: seconds }, step, signal);
    },
  });
  if (!moved) return;
  await live.refresh();
  const ran = moved.well > 0 || moved.downtime > 0;
  open(`${spec.name} is behind another wall`, { body: h("div.body", facts([
    ["From", wall(moved.source)], ["To", wall(moved.instance.spec.isolation)],
    ran && ["Not answering for", duration(moved.downtime)], ran && ["Well after", duration(moved.well)],
    ["Disk", moved.copied ? `${bytes(moved.copied)} of files were copied to a fresh one` : "handed over as it was"],
  ]), moved.dropped.length > 0 && h("div.notice.warn", h("b", `${number(moved.dropped.length)} ${moved.dropped.length === 1 ? "thing" : "things"} could not come along`), h("ul", moved.dropped.map((line) => h("li.break", line))))) });
}
