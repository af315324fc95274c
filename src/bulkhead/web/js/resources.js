// Networks and volumes.

import * as api from "./api.js";
import * as live from "./live.js";
import { confirm, field, form } from "./dialog.js";
import { fill, h } from "./dom.js";
import { me, may } from "./me.js";
import { asked, button, empty, head, simpleTable, tool } from "./parts.js";
import { query } from "./router.js";
import { done } from "./say.js";
import { ago, bytes, parseBytes, plural } from "./units.js";

const all = () => [...live.instances.values()];
const names = (found) => (found.length ? found.map((instance) => instance.spec.name).join(", ") : "–");
const owner = (item) => (!me().tenant && item.tenant && item.tenant !== "default" ? ` (${item.tenant})` : "");
const qualified = (item) => (!me().tenant && item.tenant && item.tenant !== "default" ? `${item.tenant}@${item.name}` : item.name);

// Whoever sees all tenants looks at one, and makes things for one.
function ownerFilter(changed) {
  if (me().tenant || !may("tenants")) return { element: null, value: () => undefined, field: () => ({ element: null, value: () => null }) };
  const asked = query().get("tenant") ?? "";
  const chosen = h("select", { "aria-label": "Tenant", onchange: changed }, h("option", { value: asked }, asked || "All tenants"));
  const element = h("div.filters", { hidden: true }, chosen);
  let names = [];
  const begin = async () => {
    names = (await api.get("/v1/tenants")).map((one) => one.tenant.name);
    fill(chosen, h("option", { value: "" }, "All tenants"), names.map((name) => h("option", { value: name }, name)));
    chosen.value = names.includes(asked) ? asked : "";
    element.hidden = names.length < 2;
  };
  begin().catch(() => {}); // the list tells what is wrong
  return {
    element,
    value: () => chosen.value || undefined,
    field() {
      const select = h("select", names.map((name) => h("option", { value: name }, name)));
      select.value = chosen.value || "default";
      return { element: names.length > 1 ? field("Tenant", select) : null, value: () => select.value || null };
    },
  };
}

export function networks() {
  const whose = ownerFilter(() => list.again());
  const list = asked(() => live.withInstances(api.get("/v1/networks", { tenant: whose.value() })), (found, again) => {
    if (!found.length) return empty("networks", "No network", "Instances of one network reach each other by name.", may("networks") && button("Create a network", "plus", () => create(again), ".primary"));
    return simpleTable("Networks", ["Name", "IPv4", ["IPv6", "hide-narrow"], "Instances", ""], found.map((network) => {
      const using = all().filter((instance) => instance.spec.network === network.name && same(instance, network));
      return h("tr", h("td.break", h("span.name", network.name), owner(network)), h("td.nowrap.mono", network.subnet4), h("td.nowrap.mono.hide-narrow", network.subnet6), h("td.break", names(using)),
        h("td.tools", may("networks") && network.name !== "default" && tool(`Delete ${network.name}`, "trash", () => drop("network", "networks", network, using, again))));
    }));
  });
  return { title: "Networks", element: h("div", head("Networks", { actions: may("networks") && button("Create", "plus", () => create(list.again), ".primary") }), h("section.card", whose.element, list)) };

  function create(again) {
    const name = h("input", { type: "text", required: true, spellcheck: false });
    const subnet4 = h("input", { type: "text", spellcheck: false, placeholder: "from the pool" });
    const subnet6 = h("input", { type: "text", spellcheck: false, placeholder: "from the pool" });
    const tenant = whose.field();
    return form("Create a network", {
      fields: [h("div.pair", field("Name", name), tenant.element), !me().tenant && h("div.pair", field("IPv4 subnet", subnet4), field("IPv6 subnet", subnet6))],
      action: "Create",
      async submit() {
        await api.post("/v1/networks", { name: name.value, subnet4: subnet4.value || null, subnet6: subnet6.value || null, tenant: tenant.value() });
        done(`Network ${name.value} is created.`);
        again();
      },
    });
  }
}

const same = (instance, item) => (instance.spec.tenant ?? "default") === (item.tenant ?? "default");

export function volumes() {
  const whose = ownerFilter(() => list.again());
  const list = asked(() => live.withInstances(api.get("/v1/volumes", { tenant: whose.value() })), (found, again) => {
    if (!found.length) return empty("volumes", "No volume", "A volume is a disk that outlives the instances it is mounted in.", may("volumes") && button("Create a volume", "plus", () => create(again), ".primary"));
    return simpleTable("Volumes", ["Name", ["Size", "right"], "Mounted in", "Created", ""], found.map((volume) => {
      const using = all().filter((instance) => same(instance, volume) && instance.spec.mounts.some((mount) => mount.kind === "volume" && mount.source === volume.name));
      return h("tr", h("td.break", h("span.name", volume.name), owner(volume)), h("td.right.nowrap", bytes(volume.size)), h("td.break", names(using)), h("td.nowrap.muted", ago(volume.created)),
        h("td.tools", may("volumes") && tool(`Delete ${volume.name}`, "trash", () => drop("volume", "volumes", volume, using, again))));
    }));
  });
  return { title: "Volumes", element: h("div", head("Volumes", { actions: may("volumes") && button("Create", "plus", () => create(list.again), ".primary") }), h("section.card", whose.element, list)) };

  function create(again) {
    const name = h("input", { type: "text", required: true, spellcheck: false });
    const size = h("input", { type: "text", spellcheck: false, placeholder: "10G" });
    const tenant = whose.field();
    return form("Create a volume", {
      fields: [h("div.pair", field("Name", name), field("Size", size, "For example 512M or 10G.")), tenant.element],
      action: "Create",
      async submit() {
        const wanted = size.value.trim() ? parseBytes(size.value) : null;
        if (Number.isNaN(wanted)) throw new api.Problem({ detail: `${size.value} is no size`, hint: "for example 512M or 10G" });
        await api.post("/v1/volumes", { name: name.value, size: wanted, tenant: tenant.value() });
        done(`Volume ${name.value} is created.`);
        again();
      },
    });
  }
}

function drop(noun, route, item, using, again) {
  const lost = noun === "volume" ? ` and the ${bytes(item.size)} of data that it may hold are` : " is";
  return confirm(`Delete ${item.name}?`, {
    words: [`The ${noun} `, h("b", item.name), `${lost} deleted.`, using.length ? ` ${plural(using.length, "instance")} of it: ${names(using)}.` : ""],
    action: `Delete ${item.name}`,
    async submit() {
      await api.remove(`/v1/${route}/${api.ref(qualified(item))}`);
      done(`The ${noun} ${item.name} is deleted.`);
      again();
    },
  });
}
