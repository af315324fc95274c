// Create an instance: image, wall, plan with its price, and what else it needs.

import * as api from "./api.js";
import * as live from "./live.js";
import { field } from "./dialog.js";
import { fill, h, icon } from "./dom.js";
import { me } from "./me.js";
import { asked, empty, head, wall, wallWords } from "./parts.js";
import { pricesOf } from "./prices.js";
import { go, link } from "./router.js";
import { done, problems } from "./say.js";
import { bytes, number, planLine } from "./units.js";

const PURPOSES = { chroot: "Builds and tests of your own: the network, processes and users are the host's.", container: "Starts in milliseconds; the kernel is shared.", vm: "For foreign or hostile programs.", unikernel: "One program that is its own system." };
const KINDS = { rootfs: ["container", "vm", "chroot"], disk: ["vm"], unikernel: ["unikernel"] };

export function create() {
  const load = async () => {
    const [images, plans, networks, volumes, isolation, prices, tenants] = await Promise.all([api.get("/v1/images"), api.get("/v1/plans"), api.get("/v1/networks"), api.get("/v1/volumes"), api.get("/v1/isolation"), pricesOf(), api.get("/v1/tenants")]);
    return { images: images.filter((image) => image.kind !== "kernel" && image.references.length), plans, networks, volumes, levels: isolation.levels, prices, tenants: tenants.map((one) => one.tenant) };
  };
  const element = h("div", head("Create an instance", { crumb: h("a", { href: "#/instances" }, "Instances") }), asked(load, (have) => (have.images.length ? form(have) : empty("images", "There is no image to make it of", "Pull one from a registry first.", h("a.button.primary", { href: "#/images" }, "Images")))));
  return { title: "Create an instance", element };
}

function form({ images, plans, networks, volumes, levels, prices, tenants }) {
  // Whoever sees all tenants says for which it is; a tenant's own things are all that it sees.
  const tenant = h("select", { onchange: update }, tenants.map((one) => h("option", { value: one.name }, one.name)));
  tenant.value = me().tenant || "default";
  const allowed = () => tenants.find((one) => one.name === tenant.value)?.levels ?? levels.map((one) => one.level);
  const image = h("select", { required: true, onchange: update }, images.flatMap((one) => one.references.map((name) => h("option", { value: name }, name))));
  const name = h("input", { type: "text", spellcheck: false, autocomplete: "off", placeholder: "chosen for you", oninput: update });
  const command = h("input.mono", { type: "text", spellcheck: false, autocomplete: "off", oninput: update });
  const ports = h("input", { type: "text", spellcheck: false, placeholder: "8080:80", autocomplete: "off" });
  const environment = h("textarea.mono", { spellcheck: false, placeholder: "NAME=value", rows: 3 });
  const network = h("select", h("option", { value: "" }, "as usual"), networks.map((one) => h("option", { value: one.name }, one.name)), h("option", { value: "none" }, "none"));
  const volume = h("select", h("option", { value: "" }, "no volume"), volumes.map((one) => h("option", { value: one.name }, `${one.name}, ${bytes(one.size)}`)));
  const target = h("input", { type: "text", spellcheck: false, placeholder: "/data", autocomplete: "off" });
  const restart = h("select", [["no", "no"], ["on-failure", "when it fails"], ["always", "always"]].map(([value, label]) => h("option", { value }, label)));
  const start = h("input", { type: "checkbox", checked: true });
  const errors = h("div");
  const receipt = h("div.body.stack");
  const walls = h("div.choices"), sizes = h("div.choices");
  const submit = h("button.primary", { type: "submit" }, "Create");
  const content = h("form.create", { onsubmit: send },
    h("div.card",
      h("div.section", tenants.length > 1 && field("Tenant", tenant), field("Image", image), h("div.pair", field("Name", name), field("Command", command, "As a shell reads it; empty: what the image says."))),
      h("fieldset.section", h("legend.unseen", "Wall"), h("div.label", "Wall"), walls),
      h("fieldset.section", h("legend.unseen", "Plan"), h("div.label", "Plan"), sizes),
      h("div.section", h("div.pair", field("Network", network), field("Published ports", ports, "HOST:PORT, with commas between them.")), h("div.pair", field("Volume", volume), field("Mounted at", target)), h("div.pair", field("Restart", restart), field("Environment", environment, "One on a line.")))),
    h("aside.card", h("header", h("h2", "What you get")), receipt, h("div.section", errors, h("label.check", start, "Start it at once"), submit)));

  for (const [index, { name: planName, plan }] of plans.entries()) sizes.append(choice("plan", planName, index === 0, [h("b", planName), h("span.small", planLine(plan)), prices?.words(planName, plan) && h("span.price.small", prices.words(planName, plan))]));
  const chosen = (group) => content.querySelector(`input[name=${group}]:checked`)?.value ?? "";
  let kind = null;

  function choice(group, value, checked, words, disabled = false) {
    return h("label.choice", h("input", { type: "radio", name: group, value, checked, disabled, onchange: update }), words);
  }

  function update() {
    const picked = images.find((one) => one.references.includes(image.value));
    const wanted = `${picked.kind ?? "rootfs"} of ${tenant.value}`;
    if (kind !== wanted) {
      kind = wanted;
      let first = true;
      fill(walls, (KINDS[picked.kind] ?? KINDS.rootfs).filter((level) => allowed().includes(level)).map((level) => {
        const found = levels.find((one) => one.level === level);
        if (!found) return null;
        const checked = found.works && first;
        if (checked) first = false;
        return choice("isolation", level, checked, [h("b", wall(level)), h("span.small.muted", found.works ? PURPOSES[level] : `not on this host: ${found.reason}`)], !found.works);
      }));
    }
    command.placeholder = [...(picked.config?.entrypoint ?? []), ...(picked.config?.cmd ?? [])].join(" ") || "what the image says";
    const named = plans.find((one) => one.name === chosen("plan"));
    const level = chosen("isolation");
    const price = named && prices?.monthly(named.name, named.plan);
    fill(receipt, h("dl.receipt", [["Image", image.value], ["Wall", level], ["", wallWords(level)], ...(named ? [["Memory", bytes(named.plan.memory)], ["CPU", `${number(named.plan.cpus, 2)}${named.plan.ghz ? ` × ${number(named.plan.ghz, 2)} GHz` : named.plan.cpus === 1 ? " core" : " cores"}`], ["Disk", bytes(named.plan.disk)], ["Processes", number(named.plan.pids)]] : [])].map(([key, value]) => [h("dt", key), h(key ? "dd" : "dd.small.muted", value)])),
      price ? h("div.total", h("span", "Price"), h("span", price)) : null,
      h("p.small.muted", "Each of these is a hard limit."));
  }

  async function send(event) {
    event.preventDefault();
    fill(errors);
    submit.disabled = true;
    try {
      const made = await api.post("/v1/instances", request(), { start: start.checked });
      await live.refresh();
      done(`${made.spec.name} is ${start.checked ? "running" : "created"}.`);
      if (content.isConnected) go(`/${link("instances", made.spec.name).slice(2)}`); // else it is of no interest any more
    } catch (error) {
      fill(errors, problems(error)).firstChild.focus();
    } finally {
      submit.disabled = false;
    }
  }

  function request() {
    const wrong = [];
    const published = ports.value.split(",").map((word) => word.trim()).filter(Boolean).map((word) => {
      const match = /^(?:(\S+):)?(\d{1,5}):(\d{1,5})(?:\/(tcp|udp))?$/.exec(word);
      if (!match) wrong.push({ what: `${word} is no published port`, hint: "write HOST:PORT, for example 8080:80" });
      return match && { host_ip: match[1] ?? "", host_port: Number(match[2]), port: Number(match[3]), protocol: match[4] ?? "tcp" };
    });
    if (volume.value && !target.value.startsWith("/")) wrong.push({ what: `the volume ${volume.value} is mounted nowhere`, hint: "say where, for example /data" });
    if (wrong.length) throw new api.Problem({ type: "refused", detail: wrong[0].what, problems: wrong });
    return {
      ...(me().tenant ? {} : { tenant: tenant.value }), image: image.value, isolation: chosen("isolation"), plan: { name: chosen("plan") }, name: name.value.trim() || null,
      command: command.value.trim() ? ["/bin/sh", "-c", command.value] : [],
      network: network.value || null, ports: published, restart: { kind: restart.value },
      mounts: volume.value ? [{ kind: "volume", source: volume.value, target: target.value }] : [],
      env: environment.value.split("\n").map((line) => line.trim()).filter(Boolean),
    };
  }

  update();
  return content;
}
