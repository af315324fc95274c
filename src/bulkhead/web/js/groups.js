// What `bulkhead up` has made of one compose file, as a group in the list of instances.

import { h, icon, text } from "./dom.js";
import { me } from "./me.js";
import { plural } from "./units.js";

const PROJECT = "bulkhead.compose.project", SERVICE = "bulkhead.compose.service";
const closed = new Set(); // kept while the page is open

export const projectOf = (instance) => instance.spec.labels[PROJECT] ?? "";
export const serviceOf = (instance) => instance.spec.labels[SERVICE] ?? "";

// Instances in their order, those of a project together behind its head: [{ key, instance } or { key, project, all }].
export function grouped(instances) {
  const found = new Map();
  for (const instance of instances) {
    const project = projectOf(instance);
    const key = project ? `project ${instance.spec.tenant}/${project}` : instance.spec.id;
    if (!found.has(key)) found.set(key, { key, project, all: [] });
    found.get(key).all.push(instance);
  }
  return [...found.values()].flatMap((group) => (group.project ? [group, ...(closed.has(group.key) ? [] : group.all.map(item))] : group.all.map(item)));
}

const item = (instance) => ({ key: instance.spec.id, instance });

export function groupRow(group, changed) {
  const told = h("span.muted");
  const toggle = h("button.quiet.fold", { type: "button", "aria-expanded": "true", onclick: () => { if (!closed.delete(group.key)) closed.add(group.key); changed(); } }, icon("fold"), h("span.name", group.project));
  const { tenant } = group.all[0].spec;
  const element = h("tr.group", h("td", { colspan: 9 }, h("div.line", toggle, !me().tenant && tenant !== "default" && h("span.muted", tenant), told)));
  element.update = ({ all }) => {
    const services = new Set(all.map(serviceOf)).size;
    const running = all.filter((instance) => instance.state === "running").length;
    text(told, `${plural(services, "service")}, ${running === all.length ? "all" : `${running} of ${all.length}`} running`);
    toggle.setAttribute("aria-expanded", String(!closed.has(group.key)));
  };
  return element;
}
