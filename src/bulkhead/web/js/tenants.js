// Tenants with their quotas, users and tokens, and the trail of who did what.

import * as api from "./api.js";
import { confirm, field, form, open } from "./dialog.js";
import { h } from "./dom.js";
import { may } from "./me.js";
import { asked, button, card, empty, head, simpleTable, tool } from "./parts.js";
import { done } from "./say.js";
import { bytes, moment, number, parseBytes } from "./units.js";

const QUOTA = [["instances", number], ["memory", bytes], ["cpus", (value) => number(value, 2)], ["disk", bytes], ["volumes", number], ["networks", number], ["ports", number], ["images", bytes]];
const SIZES = ["memory", "disk", "images"];
const DAY = 86400;

export function tenants() {
  const list = asked(() => api.get("/v1/tenants"), (found, again) => simpleTable("Tenants", ["Name", ...QUOTA.slice(0, 4).map(([name]) => name), "Walls", ""], found.map((one) => row(one, again))));
  const users = asked(() => Promise.all([api.get("/v1/users"), api.get("/v1/tokens")]), ([people, tokens], again) => (people.length ? simpleTable("Users", ["User", "Role", "Tenant", "Tokens", ""], people.map((user) => person(user, tokens, again))) : empty("tenants", "No user", "A user signs in by a token, and sees a tenant's things or everybody's.")));
  const trail = asked(() => api.get("/v1/trail", { most: 100 }), (found) => (found.length ? simpleTable("The trail", ["When", "Who", "What", ["On", "hide-narrow"], "Result"], found.reverse().map((entry) => h("tr", h("td.nowrap.muted", moment(entry.when)), h("td.break", entry.user), h("td.break.mono", entry.action), h("td.break.hide-narrow", entry.targets.join(", ")), h(entry.result === "ok" ? "td.nowrap" : "td.nowrap.bad", entry.result)))) : empty("events", "Nobody has changed anything", "Every change is written down here, with who made it.")));
  const admin = may("tenants");
  return { title: "Tenants", element: h("div", head("Tenants", { actions: admin && button("Create", "plus", () => create(list.again), ".primary") }), h("div.stack", h("section.card", list), card("Users and tokens", users, admin && button("Add a user", "plus", () => addUser(users.again))), card("Who did what", trail))) };
}

function row({ tenant, used }, again) {
  return h("tr", h("td.name", tenant.name), QUOTA.slice(0, 4).map(([name, say]) => h("td.nowrap", say(used[name] ?? 0), h("span.muted", tenant.quota[name] === null ? "" : ` of ${say(tenant.quota[name])}`))), h("td", tenant.levels.join(", ")),
    h("td.tools", may("tenants") && tenant.name !== "default" && h("span.split", tool(`Quota of ${tenant.name}`, "plans", () => quota(tenant, again)), tool(`Delete ${tenant.name}`, "trash", () => remove(tenant.name, "tenant", "tenants", again)))));
}

function person(user, tokens, again) {
  const own = tokens.filter((token) => token.user === user.name);
  return h("tr", h("td.name", user.name), h("td", user.role), h("td", user.tenant ?? "all"), h("td", own.length ? own.map((token) => h("div.small", h("span.mono", token.id), token.label && ` ${token.label}`, h("span.muted", token.expires ? ` until ${moment(token.expires)}` : ""), tool(`Revoke ${token.id}`, "close", () => revoke(token, again)))) : "–"),
    h("td.tools", may("tenants") && h("span.split", button("Token", "plus", () => issue(user, again)), tool(`Delete ${user.name}`, "trash", () => remove(user.name, "user", "users", again)))));
}

function quotaFields(have = {}) {
  const inputs = Object.fromEntries(QUOTA.map(([name]) => [name, h("input", { type: "text", placeholder: "no limit", spellcheck: false, value: have[name] === null || have[name] === undefined ? "" : SIZES.includes(name) ? bytes(have[name]) : String(have[name]) })]));
  const read = () => Object.fromEntries(QUOTA.map(([name]) => {
    const words = inputs[name].value.trim();
    const value = words ? (SIZES.includes(name) ? parseBytes(words) : Number(words)) : null;
    if (Number.isNaN(value)) throw new api.Problem({ detail: `${name} ${words} is no number`, hint: SIZES.includes(name) ? "for example 512M or 10G" : "" });
    return [name, value];
  }));
  return [h("div.pair", QUOTA.map(([name]) => field(name, inputs[name]))), read];
}

function create(again) {
  const name = h("input", { type: "text", required: true, spellcheck: false, pattern: "[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?" });
  const [fields, read] = quotaFields();
  return form("Create a tenant", { fields: [field("Name", name, "Small letters, digits and dashes."), fields], action: "Create", wide: true, async submit() {
    await api.post("/v1/tenants", { name: name.value, quota: read() });
    done(`Tenant ${name.value} is created.`);
    again();
  } });
}

function quota(tenant, again) {
  const [fields, read] = quotaFields(tenant.quota);
  return form(`Quota of ${tenant.name}`, { fields: [fields], action: "Change", wide: true, async submit() {
    await api.patch(`/v1/tenants/${api.ref(tenant.name)}`, { quota: read() });
    done(`The quota of ${tenant.name} is changed.`);
    again();
  } });
}

function addUser(again) {
  const name = h("input", { type: "text", required: true, spellcheck: false });
  const role = h("select", ["tenant", "viewer", "operator", "admin"].map((one) => h("option", { value: one }, one)));
  const tenant = h("input", { type: "text", spellcheck: false });
  return form("Add a user", { fields: [field("Name", name), h("div.pair", field("Role", role), field("Tenant", tenant, "Of the role tenant; a viewer without one sees all."))], action: "Add", async submit() {
    await api.post("/v1/users", { name: name.value, role: role.value, tenant: tenant.value.trim() || null });
    done(`User ${name.value} is added.`);
    again();
  } });
}

async function issue(user, again) {
  const label = h("input", { type: "text", spellcheck: false, placeholder: "what it is for" });
  const days = h("select", [["1", "a day"], ["30", "30 days"], ["365", "a year"], ["", "never"]].map(([value, words]) => h("option", { value }, words)));
  let made = null;
  await form(`A token for ${user.name}`, { fields: [h("div.pair", field("Label", label), field("Ends after", days))], action: "Make it", async submit() {
    made = await api.post("/v1/tokens", { user: user.name, label: label.value, expires: days.value ? Date.now() / 1000 + Number(days.value) * DAY : null });
  } });
  if (!made) return;
  const shown = h("input.mono", { type: "text", readOnly: true, value: made.token, "aria-label": "Token", onfocus: (event) => event.target.select() });
  open(`The token of ${user.name}`, { body: h("div.body", h("p", "It is shown this once. Whoever has it can do what ", h("b", user.name), " may."), shown), wide: true, onClose: again });
  shown.focus();
}

function revoke(token, again) {
  return confirm(`Revoke the token ${token.id}?`, { words: ["Whoever uses the token ", h("b", token.label || token.id), ` of ${token.user} is signed out at once.`], action: `Revoke ${token.id}`, async submit() {
    await api.remove(`/v1/tokens/${api.ref(token.id)}`);
    done(`Token ${token.id} is good for nothing now.`);
    again();
  } });
}

function remove(name, noun, route, again) {
  return confirm(`Delete the ${noun} ${name}?`, { words: [`The ${noun} `, h("b", name), noun === "user" ? " and all tokens of it are deleted." : " is deleted. It must have no instances, volumes and users any more."], action: `Delete ${name}`, async submit() {
    await api.remove(`/v1/${route}/${api.ref(name)}`);
    done(`The ${noun} ${name} is deleted.`);
    again();
  } });
}

