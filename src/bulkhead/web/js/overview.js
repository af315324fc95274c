// The host: sold, used, free, and what more fits. For a tenant what it has of it.

import * as api from "./api.js";
import * as live from "./live.js";
import { reference } from "./actions.js";
import { fill, h, icon } from "./dom.js";
import { eventRows } from "./events.js";
import { me, may } from "./me.js";
import { asked, facts, head, simpleTable, standing, waiting, wall } from "./parts.js";
import { link } from "./router.js";
import { bytes, number, percent, planLine, plural } from "./units.js";

const EVERY = 5000;

export function overview() {
  const sums = h("div.tiles"), troubles = h("div.stack"), room = h("div", waiting());
  const recent = eventRows(() => true, 10);
  const operator = may("host");
  const element = h("div", head(me().tenant || "Overview", { actions: may("instances") && h("a.button.primary", { href: "#/create" }, icon("plus"), "Create") }),
    h("div.stack", troubles, sums, h("div.grid2", operator && h("div.stack", h("section.card", h("header", h("h2", "What more fits")), room), h("section.card", h("header", h("h2", "Host")), about())), h("section.card", h("header", h("h2", "Lately"), h("a.small", { href: "#/events" }, "All events")), recent.element))));
  let host = null, plans = [], asking = false, when = 0;

  function update() {
    fill(sums, live.loaded ? counts() : ghost(), host ? host.resources.map(resource) : operator || !live.loaded ? [ghost(), ghost(), ghost()] : own());
    fill(troubles, wrong(), host?.warnings.map((words) => h("div.notice.warn", h("span", words))));
    if (host) fill(room, fits(host, plans));
  }

  // With the figures, but not as often: what is sold changes seldom.
  async function ask() {
    if (!operator || asking || document.hidden) return;
    asking = true;
    try {
      if (!plans.length) plans = await api.get("/v1/plans");
      host = await api.get("/v1/host");
      when = Date.now();
      update();
    } catch {
      when = Date.now(); // the frame tells that the daemon does not answer
    } finally {
      asking = false;
    }
  }
  ask();
  update();
  const silence = live.listen((what) => {
    if (what === "events") recent.update();
    else if (what === "instances") { update(); ask(); }
    else if (what === "stats") { if (operator) { if (Date.now() - when > EVERY) ask(); } else update(); }
  });
  return { title: "Overview", element, leave: silence };
}

function wrong() {
  const found = [...live.instances.values()].filter((instance) => ["failed", "unhealthy"].includes(standing(instance)[0]));
  if (!found.length) return null;
  return h("div.notice.bad", h("b", `${plural(found.length, "instance")} ${found.length === 1 ? "needs" : "need"} a look`), h("span", found.slice(0, 12).map((instance, index) => [index ? ", " : "", h("a", { href: link("instances", reference(instance)) }, instance.spec.name), ` ${standing(instance)[1]}`])));
}

const ghost = () => h("i.ghost", { "aria-hidden": "true" });
const tile = (title, figure, small, ...more) => h("section.tile", h("h2", title), h("span.figure", figure, " ", h("small", small)), more);

function counts() {
  const all = [...live.instances.values()];
  const of = (state) => all.filter((instance) => instance.state === state).length;
  return tile("Instances", number(of("running")), `running, of ${all.length}`, h("dl.key.plain", ["running", "paused", "created", "exited"].map((state) => [h("dt", h("a", { href: `#/instances?state=${state}` }, state)), h("dd", number(of(state)))])));
}

const NAMES = { memory: "Memory", cpu: "CPU", disk: "Disk" };

// Of all that can be sold: what is, and what of it is used.
function resource(one) {
  const say = one.unit === "bytes" ? bytes : (value) => `${number(value, 2)} ${one.unit}`;
  const title = NAMES[one.resource] ?? one.resource;
  const share = (value) => `${Math.max(0, Math.min(100, percent(value, one.sellable)))}%`;
  const oversold = one.free < 0;
  return tile(title, say(one.sold), `sold of ${say(one.sellable)}`,
    h("div.meter", { role: "img", "aria-label": `${title}: ${say(one.sold)} sold of ${say(one.sellable)}${one.used === null ? "" : `, ${say(one.used)} used`}` }, h("i", { style: { width: share(one.sold) } }), one.used !== null && h("i.used", { style: { width: share(one.used) } })),
    h("dl.key", h("dt.used", "used"), h("dd", one.used === null ? "not measured" : say(one.used)), h("dt", oversold ? "sold too much" : "free"), h(oversold ? "dd.bad" : "dd", say(Math.abs(one.free))),
      h("dt.none", "kept for the host"), h("dd", say(one.reserve)), one.ratio !== 1 && [h("dt.none", "sold over"), h("dd", `${number(one.ratio, 2)} times`)]));
}

// What a tenant has bought, and uses.
function own() {
  const outer = [...live.instances.values()].filter((instance) => !instance.spec.inside);
  const alive = outer.filter((instance) => instance.state === "running" || instance.state === "paused");
  return [["CPU", "cpus", "cpu", (value) => plural(Math.round(value * 100) / 100, "core")], ["Memory", "memory", "memory", bytes], ["Disk", "disk", "disk", bytes]].map(([title, plan, key, say]) => {
    const whole = outer.reduce((sum, instance) => sum + instance.spec.plan[plan], 0);
    const used = alive.reduce((sum, instance) => sum + (live.latest(instance.spec.id)?.[key] ?? 0), 0);
    return tile(title, say(used), `used of ${say(whole)}`, h("div.meter", { role: "img", "aria-label": `${title}: ${say(used)} used of ${say(whole)}` }, h("i.used", { style: { width: `${Math.min(100, percent(used, whole))}%` } })));
  });
}

function fits(host, plans) {
  const walls = Object.keys(host.plans[0]?.fits ?? {});
  const cell = ({ more, ends, reason }) => h("td.right", reason ? h("span.muted", { title: reason }, "–") : [h("b", number(more)), h("span.sub.wraps", more ? `then ${ends} ends` : `no ${ends} left`)]);
  return simpleTable("What more fits", ["Plan", ...walls.map((level) => [level, "right"])], host.plans.map(({ name, fits: found }) => {
    const named = plans.find((plan) => plan.name === name);
    return h("tr", h("td.break", h("span.name", name), named && h("span.sub.wraps", planLine(named.plan).split(" · ").map((part) => part.replaceAll(" ", "\u00a0")).join(" · "))), walls.map((level) => cell(found[level])));
  }));
}

function about() {
  return asked(() => Promise.all([api.get("/v1/info"), api.get("/v1/isolation")]), ([info, isolation]) => h("div.body.stack",
    facts([["Bulkhead", info.version], ["Kernel", info.host.kernel], ["Cores", `${info.host.cores} at ${number(info.host.ghz, 2)} GHz`], ["Memory", bytes(info.host.memory)], ["cgroups", info.cgroups]]),
    h("ul.levels", isolation.levels.map((level) => h("li", wall(level.level), h("span.muted", level.works ? level.reason || "works" : `does not work: ${level.reason}`))))));
}
