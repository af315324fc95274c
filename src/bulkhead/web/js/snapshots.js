// Snapshots: of one instance, or of all.

import * as api from "./api.js";
import * as live from "./live.js";
import { actions, reference } from "./actions.js";
import { confirm } from "./dialog.js";
import { h } from "./dom.js";
import { may } from "./me.js";
import { asked, empty, head, simpleTable, tool } from "./parts.js";
import { link } from "./router.js";
import { done } from "./say.js";
import { bytes, moment } from "./units.js";

const at = (snapshot, verb = "") => `/v1/instances/${api.ref(snapshot.spec.id)}/snapshots/${api.ref(snapshot.name)}${verb}`;

export function snapshotTable(instance) {
  const load = () => live.withInstances(api.get("/v1/snapshots", instance ? { instance: instance.spec.id } : undefined));
  const show = (found, again) => {
    const shown = found.filter((snapshot) => snapshot.state === "ready").sort((one, other) => other.created - one.created);
    if (!shown.length) return empty("camera", "No snapshot", "A snapshot keeps what an instance's disk holds at one moment. It can be put back, or be what a new instance begins with.", instance && may("instances") && h("button.primary", { type: "button", onclick: async () => { if (await actions.snapshot(instance)) again(); } }, "Take a snapshot"));
    return simpleTable("Snapshots", ["Name", "Size", "Memory", "Taken", ""], shown.map((snapshot) => row(snapshot, again)));
  };
  return asked(load, show);
}

function row(snapshot, again) {
  const instance = live.instances.get(snapshot.spec.id);
  return h("tr",
    h("td.break", instance ? h("a", { href: link("instances", reference(instance), "snapshots") }, snapshot.spec.name) : h("span.muted", snapshot.spec.name), h("span.muted", "/"), h("span.name", snapshot.name)),
    h("td.nowrap", bytes(snapshot.size)), h("td", snapshot.memory ? "yes" : "no"), h("td.nowrap.muted", moment(snapshot.created)),
    h("td.tools", may("instances") && h("span.split", instance && tool(`Restore ${snapshot.name}`, "restart", () => restore(snapshot, instance).then((good) => good && again())), tool(`Delete ${snapshot.name}`, "trash", () => drop(snapshot).then((good) => good && again())))));
}

function restore(snapshot, instance) {
  const runs = instance.state === "running" || instance.state === "paused";
  return confirm(`Put ${snapshot.spec.name}/${snapshot.name} back?`, {
    words: ["What ", h("b", snapshot.spec.name), ` has written since ${moment(snapshot.created)} is lost`, runs ? ", and the program that runs in it is ended first." : "."],
    action: `Restore ${snapshot.name}`,
    async submit(step, signal) {
      await api.operate(at(snapshot, "/restore"), { force: runs, memory: false }, step, signal);
      done(`${snapshot.spec.name} is as it was at ${moment(snapshot.created)}.`);
      await live.refresh();
    },
  });
}

function drop(snapshot) {
  return confirm(`Delete ${snapshot.spec.name}/${snapshot.name}?`, {
    words: ["The snapshot ", h("b", snapshot.name), " is deleted; the instance stays as it is."],
    action: `Delete ${snapshot.name}`,
    async submit() {
      await api.remove(at(snapshot));
      done(`Snapshot ${snapshot.name} is deleted.`);
    },
  });
}

export function snapshots() {
  const table = snapshotTable(null);
  const silence = live.listen((what, found) => { if (what === "events" && found.some((event) => event.kind === "snapshot")) table.again(); });
  return { title: "Snapshots", element: h("div", head("Snapshots"), h("section.card", table)), leave: silence };
}
