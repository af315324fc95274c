// The host, or for a tenant what it has of it.

import * as api from "./api.js";
import * as live from "./live.js";
import { reference } from "./actions.js";
import { fill, h, icon, text } from "./dom.js";
import { eventRows } from "./events.js";
import { me, may } from "./me.js";
import { asked, empty, facts, head, simpleTable, standing, wall } from "./parts.js";
import { link } from "./router.js";
import { bytes, number, percent, plural } from "./units.js";

export function overview() {
  const sums = h("div.tiles");
  const recent = eventRows(() => true, 10);
  const troubles = h("div");
  const element = h("div", head(me().tenant ? me().tenant : "Overview", { actions: may("instances") && h("a.button.primary", { href: "#/create" }, icon("plus"), "Create") }),
    h("div.stack", troubles, sums, h("div.grid2", may("host") && h("section.card", h("header", h("h2", "Host")), hostPart()), h("section.card", h("header", h("h2", "Lately"), h("a.small", { href: "#/events" }, "All events")), recent.element))));
  let host = null;

  function update() {
    fill(sums, tiles(host));
    fill(troubles, wrong());
  }
  const load = async () => {
    if (!may("host")) return;
    host = await api.get("/v1/info").then((info) => info.host).catch(() => null);
    update();
  };
  load();
  update();
  const silence = live.listen((what) => { if (what === "events") recent.update(); else if (what !== "connected") update(); });
  return { title: "Overview", element, leave: silence };
}

function wrong() {
  const found = [...live.instances.values()].filter((instance) => ["failed", "unhealthy"].includes(standing(instance)[0]));
  if (!found.length) return null;
  return h("div.notice.bad", h("b", `${plural(found.length, "instance")} ${found.length === 1 ? "needs" : "need"} a look`), h("span", found.slice(0, 12).map((instance, index) => [index ? ", " : "", h("a", { href: link("instances", reference(instance)) }, instance.spec.name), ` ${standing(instance)[1]}`])));
}

const tile = (title, figure, small, ...more) => h("section.tile", h("h2", title), h("span.figure", figure, " ", h("small", small)), more);

function meter(label, whole, sold, used, format) {
  const share = (value) => `${Math.min(100, percent(value, whole))}%`;
  return [h("div.meter", { role: "img", "aria-label": `${label}: ${format(sold)} sold and ${format(used)} used of ${format(whole)}` }, h("i", { style: { width: share(sold) } }), h("i.used", { style: { width: share(used) } })),
    h("dl.key", h("dt.sold", "sold"), h("dd", format(sold)), h("dt.used", "used"), h("dd", format(used)), h("dt", "free"), h("dd", format(Math.max(0, whole - sold))))];
}

function tiles(host) {
  const all = [...live.instances.values()];
  const running = all.filter((instance) => instance.state === "running");
  const outer = all.filter((instance) => !instance.spec.inside);
  const sum = (list, read) => list.reduce((total, instance) => total + (read(instance) ?? 0), 0);
  const alive = outer.filter((instance) => instance.state === "running" || instance.state === "paused");
  const used = (key) => sum(alive, (instance) => live.latest(instance.spec.id)?.[key]);
  const counts = h("dl.key", ["running", "paused", "created", "exited"].map((state) => [h("dt", h("a", { href: `#/instances?state=${state}` }, state)), h("dd", number(all.filter((instance) => instance.state === state).length))]));
  const shown = [tile("Instances", number(running.length), `running, of ${all.length}`, counts)];
  const core = (value) => number(value, 2);
  const sold = { cpus: sum(outer, (one) => one.spec.plan.cpus), memory: sum(outer, (one) => one.spec.plan.memory), disk: sum(outer, (one) => one.spec.plan.disk) };
  if (host) {
    shown.push(tile("CPU", core(used("cpu")), `of ${plural(host.cores, "core")}`, meter("CPU", host.cores, sold.cpus, used("cpu"), core)));
    shown.push(tile("Memory", bytes(used("memory")), `of ${bytes(host.memory)}`, meter("Memory", host.memory, sold.memory, used("memory"), bytes)));
  } else {
    shown.push(tile("CPU", core(used("cpu")), `of ${plural(sold.cpus, "core")}`, meter("CPU", sold.cpus, sold.cpus, used("cpu"), core)));
    shown.push(tile("Memory", bytes(used("memory")), `of ${bytes(sold.memory)}`, meter("Memory", sold.memory, sold.memory, used("memory"), bytes)));
  }
  shown.push(tile("Disk", bytes(used("disk")), `of ${bytes(sold.disk)}`, meter("Disk", sold.disk, sold.disk, used("disk"), bytes)));
  return shown;
}

function hostPart() {
  return asked(() => Promise.all([api.get("/v1/info"), api.get("/v1/isolation")]), ([info, isolation]) => h("div.body.stack",
    facts([["Bulkhead", info.version], ["Kernel", info.host.kernel], ["Cores", `${info.host.cores} at ${number(info.host.ghz, 2)} GHz`], ["Memory", bytes(info.host.memory)], ["cgroups", info.cgroups]]),
    h("ul.fields", isolation.levels.map((level) => h("li", wall(level.level), h("span.muted", level.works ? (level.reason ? `  ${level.reason}` : "  works") : `  does not work: ${level.reason}`))))));
}
