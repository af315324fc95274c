// Images of the store.

import * as api from "./api.js";
import * as live from "./live.js";
import { confirm, field, form } from "./dialog.js";
import { h, icon } from "./dom.js";
import { may } from "./me.js";
import { asked, button, empty, head, simpleTable, tool } from "./parts.js";
import { done } from "./say.js";
import { ago, bytes, plural, short } from "./units.js";

export function images() {
  const list = asked(() => api.get("/v1/images"), (found, again) => {
    if (!found.length) return empty("images", "No image", "Instances are made of images: pull one from a registry, or make one on the host.", may("images") && button("Pull an image", "download", () => pull(again), ".primary"), h("p.small", h("code", "bulkhead image bootstrap debian:bookworm")));
    return simpleTable("Images", ["Name", ["Kind", "hide-narrow"], ["Size", "right"], ["Instances", "right"], "Created", ""], found.sort(byName).map((image) => row(image, again)));
  });
  const actions = may("images") && button("Pull", "download", () => pull(list.again), ".primary");
  return { title: "Images", element: h("div", head("Images", { actions }), h("section.card", list)) };
}

const byName = (one, other) => ((one.references[0] ?? "~") < (other.references[0] ?? "~") ? -1 : 1);
const users = (image) => [...live.instances.values()].filter((instance) => instance.spec.image_digest === image.digest);

function row(image, again) {
  const [first, ...rest] = image.references;
  return h("tr",
    h("td.break", h("span.name", first ?? "without a name"), h("span.sub", { title: image.digest }, [...rest, short(image.digest)].join(" · "))),
    h("td.hide-narrow", `${image.kind ?? "rootfs"}, ${image.architecture}`), h("td.right.nowrap", bytes(image.size)), h("td.right", users(image).length || "–"),
    h("td.nowrap.muted", image.created ? ago(image.created) : "–"),
    h("td.tools", may("images") && tool(`Remove ${first ?? short(image.digest)}`, "trash", () => remove(image, again))));
}

function pull(again) {
  const reference = h("input", { type: "text", required: true, spellcheck: false, autocomplete: "off", placeholder: "docker.io/library/nginx:1.27" });
  const user = h("input", { type: "text", spellcheck: false, autocomplete: "off" });
  const password = h("input", { type: "password", autocomplete: "off" });
  return form("Pull an image", {
    fields: [field("Image", reference, "Registry, name and tag."), h("details", h("summary", "The registry wants a login"), h("div.pair", field("User", user), field("Password", password)), h("p.small.muted", "They are sent with this one request and kept nowhere."))],
    action: "Pull",
    progress: true,
    async submit(step, signal) {
      const name = reference.value.trim();
      const registry = name.includes("/") && /[.:]|^localhost$/.test(name.split("/")[0]) ? name.split("/")[0] : "docker.io";
      const auth = user.value ? [{ registry, username: user.value, password: password.value }] : [];
      await api.operate("/v1/images/pull", { reference: name, policy: "always", auth }, step, signal);
      done(`${name} is in the store.`);
      again();
    },
  });
}

function remove(image, again) {
  const name = image.references[0] ?? image.digest;
  const using = users(image);
  return confirm(`Remove ${image.references[0] ?? short(image.digest)}?`, {
    words: ["The image ", h("b", image.references.join(", ") || short(image.digest)), ` of ${bytes(image.size)} is removed from the store.`, using.length ? ` ${plural(using.length, "instance")} of it: ${using.map((one) => one.spec.name).join(", ")}.` : ""],
    action: `Remove ${image.references[0] ?? short(image.digest)}`,
    async submit() {
      for (const reference of image.references.length ? image.references : [name]) await api.post("/v1/images/remove", { reference });
      done(`${name} is removed.`);
      again();
    },
  });
}
