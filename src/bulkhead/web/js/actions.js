// What can be done to an instance.

import * as api from "./api.js";
import * as live from "./live.js";
import { confirm, field, form } from "./dialog.js";
import { h } from "./dom.js";
import { done, failed } from "./say.js";
import { bytes } from "./units.js";

// In addresses instances go by their names, and where two tenants have the same by their ids.
export function reference(instance) {
  const same = [...live.instances.values()].filter((other) => other.spec.name === instance.spec.name);
  return same.length > 1 ? instance.spec.id : instance.spec.name;
}

const at = (instance, verb = "") => `/v1/instances/${api.ref(instance.spec.id)}${verb ? `/${verb}` : ""}`;

// A handler of a button: it rests while the work is done, and errors are told.
export function act(work) {
  return async (event) => {
    const target = event.currentTarget;
    target.disabled = true;
    try {
      await work();
    } catch (error) {
      failed(error);
    } finally {
      target.disabled = false;
    }
  };
}

async function simple(instance, verb, past, body) {
  await api.post(at(instance, verb), body);
  done(`${instance.spec.name} is ${past}.`);
  await live.refresh();
}

export const actions = {
  start: (instance) => simple(instance, "start", "running"),
  stop: (instance) => simple(instance, "stop", "stopped"),
  restart: (instance) => simple(instance, "restart", "running again"),
  pause: (instance) => simple(instance, "pause", "paused"),
  unpause: (instance) => simple(instance, "unpause", "running again"),
  kill: (instance) => simple(instance, "kill", "killed"),

  remove(instance) {
    const runs = ["running", "paused", "starting"].includes(instance.state);
    const { name } = instance.spec;
    return confirm(`Delete ${name}?`, {
      words: ["The instance ", h("b", name), ` and its disk of ${bytes(instance.spec.plan.disk)} are deleted`, runs ? ", and the program that runs in it is ended first." : ".", " Volumes and snapshots stay."],
      action: `Delete ${name}`,
      async submit() {
        await api.remove(at(instance), { force: runs });
        done(`${name} is deleted.`);
        await live.refresh();
      },
    });
  },

  snapshot(instance) {
    const name = h("input", { type: "text", spellcheck: false, placeholder: "chosen for you" });
    const memory = h("input", { type: "checkbox" });
    return form(`Snapshot of ${instance.spec.name}`, {
      fields: [field("Name", name), instance.spec.isolation === "vm" && instance.state === "running" && h("label.check", memory, "with the memory, so that it can go on where it was")],
      action: "Take a snapshot",
      progress: true,
      async submit(step, signal) {
        const made = await api.operate(at(instance, "snapshots"), { name: name.value || null, memory: memory.checked }, step, signal);
        done(`Snapshot ${instance.spec.name}/${made.name} is taken.`);
        return made;
      },
    });
  },
};
