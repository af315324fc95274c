// Secrets: their names and where they are used. Nothing shows what is in one, not even to whoever made it.

import * as api from "./api.js";
import { confirm, field, form } from "./dialog.js";
import { h } from "./dom.js";
import { me, may } from "./me.js";
import { asked, button, empty, head, simpleTable, tool } from "./parts.js";
import { done } from "./say.js";
import { ago, bytes, plural } from "./units.js";

const foreign = (secret) => !me().tenant && secret.tenant !== "default";
const usersOf = (secret, instances) => instances.filter(({ spec }) => spec.tenant === secret.tenant && spec.secrets?.some((use) => use.source === secret.name));
const names = (found) => (found.length ? found.map(({ spec }) => spec.name).join(", ") : "–");

export function secrets() {
  // Asked for together: a list that came before the instances would show that nobody uses any.
  const both = async () => {
    const [found, instances] = await Promise.all([api.get("/v1/secrets"), api.get("/v1/instances")]);
    return found.map((secret) => ({ ...secret, users: usersOf(secret, instances) }));
  };
  const list = asked(both, (found, again) => {
    if (!found.length) return empty("secrets", "No secret", "A secret is a value that instances get as a file in their own memory, and that nothing shows.", may("secrets") && button("Create a secret", "plus", () => create(again), ".primary"));
    return simpleTable("Secrets", ["Name", ["Size", "right"], "Used by", ["Changed", "hide-narrow"], ""], found.map((secret) => h("tr",
      h("td.break", h("span.name", secret.name), foreign(secret) && ` (${secret.tenant})`), h("td.right.nowrap", bytes(secret.size)), h("td.break", names(secret.users)), h("td.nowrap.muted.hide-narrow", ago(secret.updated)),
      h("td.tools", may("secrets") && tool(`Delete ${secret.name}`, "trash", () => drop(secret, again))))));
  });
  return { title: "Secrets", element: h("div", head("Secrets", { actions: may("secrets") && button("Create", "plus", () => create(list.again), ".primary") }), h("section.card", list)) };
}

// Any text becomes base64 of its UTF-8.
const packed = (words) => btoa(Array.from(new TextEncoder().encode(words), (byte) => String.fromCharCode(byte)).join(""));

function create(again) {
  const name = h("input", { type: "text", required: true, spellcheck: false, autocomplete: "off" });
  const value = h("input", { type: "password", required: true, spellcheck: false, autocomplete: "new-password" });
  const replace = h("input", { type: "checkbox" });
  return form("Create a secret", {
    fields: [field("Name", name), field("Value", value, "It is not shown again."), h("label.check", replace, "Put it in the place of the one that is there")],
    action: "Create",
    async submit() {
      await api.post("/v1/secrets", { name: name.value, data: packed(value.value), replace: replace.checked });
      value.value = "";
      done(`Secret ${name.value} is kept.`);
      again();
    },
  });
}

function drop(secret, again) {
  const using = secret.users;
  return confirm(`Delete ${secret.name}?`, {
    words: ["The secret ", h("b", secret.name), " and its value are deleted.", using.length ? ` ${plural(using.length, "instance")} of it: ${names(using)}.` : ""],
    action: `Delete ${secret.name}`,
    async submit() {
      await api.remove(`/v1/secrets/${api.ref(foreign(secret) ? `${secret.tenant}@${secret.name}` : secret.name)}`);
      done(`The secret ${secret.name} is deleted.`);
      again();
    },
  });
}
