// One instance: what it uses of its plan, its terminal, log, events, snapshots, limits.

import * as api from "./api.js";
import * as live from "./live.js";
import { act, actions, reference } from "./actions.js";
import { auditor } from "./audit.js";
import { changePlan, moveWall } from "./change.js";
import { chartsOf } from "./charts.js";
import { fill, h, icon } from "./dom.js";
import { eventRows } from "./events.js";
import { logs } from "./logs.js";
import { me, may } from "./me.js";
import { asked, button, empty, facts, isAway, simpleTable, standing, state, updateState, waiting, wall, wallWords } from "./parts.js";
import { go, link, path } from "./router.js";
import { snapshotTable } from "./snapshots.js";
import { terminal } from "./terminal.js";
import { duration, moment, planLine } from "./units.js";

const MOVABLE = ["chroot", "container", "vm"];
const TABS = [["", "Use"], ["terminal", "Terminal", "exec"], ["logs", "Log"], ["snapshots", "Snapshots"], ["events", "Events"], ["limits", "Limits"], ["audit", "Audit", "host"], ["record", "Record"]];

export function instance({ name, tab = "" }) {
  const element = h("div");
  let body = null, shown = null, stop = () => {};
  const tools = h("div.actions");
  const standing = h("span.state"), sort = h("span.line");

  function begin() {
    const found = live.find(name);
    if (!found) {
      shown = null;
      stop();
      fill(element, live.loaded ? empty("instances", `There is no instance ${name}`, "It may have been deleted.", h("a.button", { href: "#/instances" }, "All instances")) : waiting());
      return;
    }
    if (shown === found.spec.id) return;
    shown = found.spec.id;
    const { spec } = found;
    fill(element,
      h("div.head.tall", h("div.grow", h("div.crumb.small", h("a", { href: "#/instances" }, "Instances")), h("h1", { tabIndex: -1 }, spec.name), h("div.line.small", standing, sort)), tools),
      h("nav.tabs", { "aria-label": `Parts of ${spec.name}` }, TABS.filter(([, , ability]) => !ability || may(ability)).map(([key, label]) => h("a", { href: link("instances", reference(found), ...(key ? [key] : [])), "aria-current": key === tab ? "page" : false }, label))));
    body = PARTS[tab] ? PARTS[tab](found) : PARTS[""](found);
    element.append(body.element);
    stop = () => { body?.close?.(); body = null; };
  }

  let drawn = "", told = "";
  function update() {
    begin();
    const found = live.instances.get(shown);
    if (!found) return;
    updateState(standing, found);
    const { spec } = found;
    const kind = JSON.stringify([spec.isolation, spec.image, spec.plan]);
    if (told !== kind) fill(sort, wall(spec.isolation), h("span.muted.break", spec.image || "clone"), h("span.muted", planLine(spec.plan)));
    told = kind;
    if (drawn !== found.state + found.spec.isolation) {
      drawn = found.state + found.spec.isolation;
      const focused = tools.contains(document.activeElement);
      fill(tools, buttons(found));
      if (focused) tools.querySelector("button")?.focus();
    }
    body?.update?.(found);
  }

  update();
  const silence = live.listen((what, detail) => { if (what === "instances" || what === "stats") update(); else if (what === "events") body?.event?.(detail); });
  return { title: name, element, leave: () => { silence(); stop(); } };
}

function buttons(found) {
  if (!may("instances") || isAway(found)) return [];
  const on = (label, picture, work) => button(label, picture, act(work));
  const { state: now } = found;
  const shown = [];
  if (now === "created" || now === "exited") shown.push(button("Start", "play", act(() => actions.start(found)), ".primary"));
  if (now === "running") shown.push(on("Restart", "restart", () => actions.restart(found)), on("Pause", "pause", () => actions.pause(found)));
  if (now === "paused") shown.push(button("Unpause", "play", act(() => actions.unpause(found)), ".primary"));
  if (now === "running" || now === "paused") shown.push(on("Stop", "stop", () => actions.stop(found)));
  if (now !== "deleting") shown.push(button("Plan", "plans", act(() => changePlan(found))), ...(MOVABLE.includes(found.spec.isolation) && !found.spec.inside && ["running", "exited", "created"].includes(now) ? [button("Move", "move", act(() => moveWall(found)))] : []), button("Snapshot", "camera", () => actions.snapshot(found)), button("Delete", "trash", async () => { if (await actions.remove(found) && path().startsWith("/instances/")) go("/instances"); }, ".danger"));
  return shown;
}

// --- use

function usePart(found) {
  const charts = chartsOf(found);
  const quiet = h("div", { hidden: true });
  const about = h("section.card");
  const element = h("div.stack", quiet, charts.element, about);
  let signature = "";

  return {
    element,
    update(now) {
      charts.update(now);
      quiet.hidden = now.state === "running" || now.state === "paused";
      const changed = JSON.stringify([now.state, now.reason, now.host, now.address, now.exit, now.restarts, now.health, now.spec]);
      if (signature !== changed) {
        signature = changed;
        fill(quiet, ended(now));
        fill(about, h("header", h("h2", "About")), h("div.body", described(now)));
      }
    },
    close: charts.close,
  };
}

function ended(now) {
  const { exit } = now;
  if (isAway(now)) return h("div.notice.warn", h("b", `${standing(now)[1]}.`), h("span.hint", now.reason));
  if (!exit) return h("div.notice", h("b", "It does not run."), h("span.hint", "It uses its disk, and nothing else of its plan."));
  const words = exit.oom ? "It needed more memory than its plan has, and was ended by the kernel." : exit.error || (exit.signal ? `It was ended by signal ${exit.signal}.` : `It ended with exit code ${exit.code}.`);
  return h(exit.code && !now.stop_requested ? "div.notice.bad" : "div.notice", h("b", words), h("span.hint", `${moment(exit.ended)}, after ${duration(exit.ended - exit.started)}. The log tells what it said.`));
}

function described(now) {
  const { spec, address } = now;
  return facts([
    ["Command", h("code", spec.argv.join(" "))],
    ["Wall", h("span", spec.isolation, h("span.muted", `: ${wallWords(spec.isolation)}`))],
    spec.choice && ["Chosen because", spec.choice.reason],
    spec.tenant && !me().tenant && ["Tenant", spec.tenant],
    ["Plan", `${spec.plan_name ? `${spec.plan_name}: ` : ""}${planLine(spec.plan)}`],
    address && ["Address", [address.ipv4, address.ipv6].filter(Boolean).join(", ")],
    ["Network", spec.network],
    spec.ports.length && ["Ports", spec.ports.map((port) => h("div", `${port.host_ip || "*"}:${port.host_port} → ${port.port}/${port.protocol}`))],
    spec.mounts.length && ["Mounts", spec.mounts.map((mount) => h("div", `${mount.source} at ${mount.target}${mount.read_only ? ", read-only" : ""}`))],
    Object.keys(spec.labels).length && ["Labels", Object.entries(spec.labels).map(([key, value]) => [h("span.tag", `${key}=${value}`), " "])],
    ["Restart", spec.restart.kind === "no" ? "no" : `${spec.restart.kind}${spec.restart.retries ? `, at most ${spec.restart.retries} times` : ""}; ${now.restarts} so far`],
    now.health && ["Health", now.health],
    now.start_seconds && ["Start took", duration(now.start_seconds)],
    now.host && ["Host", now.host],
    spec.created && ["Created", moment(spec.created)],
    ["Id", h("code", spec.id)],
  ]);
}

// --- the other parts

function terminalPart(found) {
  if (found.state !== "running") return { element: empty("terminal", "It does not run", "A terminal needs an instance that runs.", button("Start", "play", act(async () => { await actions.start(found); location.reload(); }), ".primary")) };
  return terminal(found);
}

function auditPart(found) {
  if (found.state !== "running") return { element: empty("audit", "It does not run", "An audit looks about from within an instance that runs.") };
  const run = () => result.run(`/v1/instances/${api.ref(found.spec.id)}/audit`, {});
  const result = auditor("It tries from within what the wall should keep away: system calls, devices, files, addresses of others.", button("Audit", "audit", run, ".primary"));
  return { element: h("section.card", result), close: result.close };
}

function limitsPart(found) {
  const load = () => api.get(`/v1/instances/${api.ref(found.spec.id)}/describe`);
  const show = (described) => h("div.stack",
    h("section.card", h("header", h("h2", "What is enforced, and by what")), simpleTable("Limits", ["Limit", "Value", "Enforced by"], described.limits.map((row) => h("tr", h("td", row.field), h("td.nowrap", row.value), h("td", row.mechanism))))),
    h("section.card", h("header", h("h2", "What this wall does not isolate")), h("div.body", h("ul.fields", described.not_isolated.map((line) => h("li", line))))));
  return { element: asked(load, show) };
}

function recordPart(found) {
  const load = () => api.get(`/v1/instances/${api.ref(found.spec.id)}`);
  return { element: h("section.card", asked(load, (record) => h("pre.raw", { tabIndex: 0, "aria-label": "The record as JSON" }, JSON.stringify(record, null, 2)))) };
}

function eventsPart(found) {
  const part = eventRows((event) => event.id === found.spec.id || event.name.startsWith(`${found.spec.name}/`));
  return { element: h("section.card", part.element), event: part.update };
}

function snapshotsPart(found) {
  const table = snapshotTable(found);
  return { element: h("section.card", table), event: (found) => { if (found.some((event) => event.kind === "snapshot")) table.again(); } };
}

const PARTS = { "": usePart, terminal: terminalPart, logs, snapshots: snapshotsPart, events: eventsPart, limits: limitsPart, audit: auditPart, record: recordPart };
