// Every instance in one table.

import * as live from "./live.js";
import { act, actions, reference } from "./actions.js";
import { h, icon, keyed, text } from "./dom.js";
import { groupRow, grouped, projectOf, serviceOf } from "./groups.js";
import { me, may } from "./me.js";
import { link, query } from "./router.js";
import { empty, head, isAway, state, tool, updateState, use, waiting, wall } from "./parts.js";
import { bits, cores, plural, roughly } from "./units.js";

const SORTS = {
  name: (instance) => instance.spec.name,
  state: (instance) => instance.state,
  cpu: (instance) => -(live.latest(instance.spec.id)?.cpu ?? -1),
  memory: (instance) => -(live.latest(instance.spec.id)?.memory ?? -1),
  disk: (instance) => -(live.latest(instance.spec.id)?.disk ?? -1),
  created: (instance) => -instance.spec.created,
};
// Kept while the page is open: whoever comes back finds the list as it was.
const chosen = { find: "", state: "", level: "", sort: "created", reverse: false };

export function instances() {
  if (query().has("state")) chosen.state = query().get("state");
  const body = h("tbody");
  const told = h("span.told", { role: "status" });
  const columns = headings(() => update());
  const table = h("table.cards", h("thead", h("tr", columns)), body);
  const region = h("div.scroll.list", { tabIndex: 0, role: "region", "aria-label": "Instances" }, table);
  const nothing = h("div");
  const element = h("div",
    head("Instances", { actions: may("instances") && h("a.button.primary", { href: "#/create" }, icon("plus"), "Create") }),
    h("section.card", filters(() => update(), told), region, nothing));

  function update() {
    const all = [...live.instances.values()];
    const shown = all.filter(matches).sort(ordered);
    keyed(body, grouped(shown), (one) => one.key, (one) => (one.instance ? row(one.instance) : groupRow(one, update)), (element, one) => (one.instance ? updateRow(element, one.instance) : element.update(one)));
    region.hidden = shown.length === 0;
    text(told, all.length === shown.length ? plural(all.length, "instance") : `${shown.length} of ${all.length}`);
    nothing.replaceChildren();
    if (!live.loaded) nothing.append(waiting());
    else if (all.length === 0) nothing.append(none());
    else if (shown.length === 0) nothing.append(empty("search", "Nothing matches", "No instance has what you look for.", h("button", { type: "button", onclick: () => { Object.assign(chosen, { find: "", state: "", level: "" }); element.querySelectorAll(".filters input, .filters select").forEach((control) => { control.value = ""; }); update(); } }, "Show all")));
  }

  update();
  const silence = live.listen((what) => { if (what === "instances" || what === "stats") update(); });
  return { title: "Instances", element, leave: silence };
}

const none = () => empty("instances", "No instance yet", "An instance is an image, behind a wall, with a plan that it cannot exceed.", may("instances") && h("a.button.primary", { href: "#/create" }, "Create the first"), h("p.small", "or on the host: ", h("code", "bulkhead run -d --name web nginx")));

function headings(update) {
  const sortable = (key, label, kind = "") => {
    const cell = h(`th${kind}`, { scope: "col" }, h("button", { type: "button", onclick: () => { chosen.reverse = chosen.sort === key && !chosen.reverse; chosen.sort = key; mark(); update(); } }, label));
    cell.dataset.sort = key;
    return cell;
  };
  const cells = [sortable("name", "Name"), sortable("state", "State"), h("th", { scope: "col" }, "Wall"), sortable("cpu", "CPU"), sortable("memory", "Memory"), sortable("disk", "Disk"), h("th", { scope: "col" }, "Network"), h("th.of-up", { scope: "col" }, "Up"), h("th", { scope: "col" }, h("span.unseen", "Actions"))];
  const mark = () => cells.forEach((cell) => (cell.dataset.sort === chosen.sort ? cell.setAttribute("aria-sort", chosen.reverse ? "descending" : "ascending") : cell.removeAttribute("aria-sort")));
  mark();
  return cells;
}

function filters(update, told) {
  const option = (value, label = value) => h("option", { value, selected: false }, label);
  const find = h("input", { type: "search", placeholder: "Name, image, label, address", "aria-label": "Find instances", value: chosen.find, spellcheck: false, oninput: () => { chosen.find = find.value; update(); } });
  const states = h("select", { "aria-label": "State", onchange: () => { chosen.state = states.value; update(); } }, option("", "Any state"), ["running", "paused", "created", "exited", ...([...live.instances.values()].some(isAway) ? ["lost", "waiting", "unheard", "recovering"] : [])].map((name) => option(name)));
  const levels = h("select", { "aria-label": "Wall", onchange: () => { chosen.level = levels.value; update(); } }, option("", "Any wall"), ["chroot", "container", "vm", "unikernel"].map((name) => option(name)));
  states.value = chosen.state;
  levels.value = chosen.level;
  return h("div.filters", h("div.find", icon("search"), find), states, levels, told);
}

function matches(instance) {
  const { spec, address } = instance;
  if (chosen.state && instance.state !== chosen.state) return false;
  if (chosen.level && spec.isolation !== chosen.level) return false;
  const words = [spec.name, spec.id, spec.image, spec.plan_name, spec.tenant, address?.ipv4, address?.ipv6, instance.host, ...Object.entries(spec.labels).map(([key, value]) => `${key}=${value}`)].join("\n").toLowerCase();
  return chosen.find.toLowerCase().split(/\s+/).every((word) => words.includes(word));
}

function ordered(one, other) {
  const key = SORTS[chosen.sort];
  const [a, b] = [key(one), key(other)];
  const order = a < b ? -1 : a > b ? 1 : one.spec.name < other.spec.name ? -1 : 1;
  return chosen.reverse ? -order : order;
}

function row(instance) {
  const { spec } = instance;
  const parts = { state: state(instance), wall: h("td.of-wall"), cpu: use("CPU"), memory: use("Memory"), disk: use("Disk"), host: h("span"), inward: h("span.rate"), outward: h("span.rate"), up: h("td.of-up.nowrap.small"), tools: h("td.tools") };
  const owner = !me().tenant && spec.tenant && spec.tenant !== "default" ? `${spec.tenant} · ` : "";
  const element = h(projectOf(instance) ? "tr.member" : "tr",
    h("td.first", h("a.name", { href: link("instances", reference(instance)) }, spec.name), h("span.sub", { title: spec.image }, `${serviceOf(instance) ? `${serviceOf(instance)} · ` : owner}${spec.image || "clone"}`, parts.host)),
    h("td.of-state", parts.state), parts.wall, h("td", { "data-label": "CPU" }, parts.cpu), h("td", { "data-label": "Memory" }, parts.memory), h("td", { "data-label": "Disk" }, parts.disk), h("td.rates", { "data-label": "Network" }, parts.inward, parts.outward), parts.up, parts.tools);
  element.parts = parts;
  return element;
}

function updateRow(element, instance) {
  const { parts } = element;
  const { spec } = instance;
  const runs = instance.state === "running" || instance.state === "paused";
  const now = runs ? live.latest(spec.id) : undefined;
  updateState(parts.state, instance);
  text(parts.host, instance.host ? ` · ${instance.host}` : "");
  if (parts.shownWall !== spec.isolation + spec.inside) {
    parts.shownWall = spec.isolation + spec.inside;
    const outer = spec.inside && live.instances.get(spec.inside);
    parts.wall.replaceChildren(wall(spec.isolation), ...(spec.inside ? [h("span.sub", `in ${outer ? outer.spec.name : "a VM"}`)] : []));
  }
  parts.cpu.update(now?.cpu, spec.plan.cpus, (value) => cores(value).split(" ")[0]);
  parts.memory.update(now?.memory, spec.plan.memory);
  parts.disk.update(now?.disk, now?.usage.disk_size ?? spec.plan.disk);
  const moves = now && now.received !== null;
  text(parts.inward, moves ? `↓ ${bits(now.received * 8)}` : "–");
  text(parts.outward, moves ? `↑ ${bits(now.sent * 8)}` : "");
  text(parts.up, runs && instance.started ? roughly(Date.now() / 1000 - instance.started) : "–");
  if (parts.shownState !== instance.state) {
    // The focus stays where it was, on whatever that button has become.
    const focused = parts.tools.contains(document.activeElement);
    parts.shownState = instance.state;
    parts.tools.replaceChildren(h("span.split", tools(instance)));
    if (focused) parts.tools.querySelector("button")?.focus();
  }
}

function tools(instance) {
  const name = instance.spec.name;
  const shown = [];
  if (may("instances") && ["created", "exited"].includes(instance.state)) shown.push(tool(`Start ${name}`, "play", act(() => actions.start(instance))));
  if (may("exec") && instance.state === "running") shown.push(h("a.button.quiet.icon-only", { href: link("instances", reference(instance), "terminal"), "aria-label": `Terminal of ${name}`, title: `Terminal of ${name}` }, icon("terminal")));
  if (may("instances") && ["running", "paused"].includes(instance.state)) shown.push(tool(`Stop ${name}`, "stop", act(() => actions.stop(instance))));
  if (may("instances") && !isAway(instance)) shown.push(tool(`Delete ${name}`, "trash", () => actions.remove(instance)));
  return shown;
}
