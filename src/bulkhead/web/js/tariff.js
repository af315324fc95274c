// Prices: what has been set, and setting another.

import * as api from "./api.js";
import { confirm, field, form } from "./dialog.js";
import { h } from "./dom.js";
import { may } from "./me.js";
import { asked, button, card, empty, simpleTable, tool } from "./parts.js";
import { done } from "./say.js";
import { money } from "./units.js";

// As docs/reference/metering.md names them; a test compares.
export const UNITS = {
  month: "a month", hour: "an hour", "cpu-hour": "a core for an hour, used", "ghz-hour": "a GHz of a core for an hour",
  "memory-gib-hour": "a GiB of memory for an hour", "memory-used-gib-hour": "a GiB of memory for an hour, used",
  "disk-gib-hour": "a GiB of disk for an hour", "disk-used-gib-hour": "a GiB of disk for an hour, used",
  "gb-received": "a GB received", "gb-sent": "a GB sent", "gb-read": "a GB read from disk", "gb-written": "a GB written to disk",
  "million-io": "a million disk operations", "volume-gib-hour": "a GiB of a volume for an hour", "volume-used-gib-hour": "a GiB of a volume for an hour, used", "snapshot-gib-hour": "a GiB of a snapshot for an hour",
};

export function tariff(changed) {
  const list = asked(() => api.get("/v1/prices"), (found, again) => {
    if (!found.length) return empty("usage", "No price is set", "What has no price is free.", may("host") && button("Set a price", "plus", () => setPrice(after(again)), ".primary"));
    return simpleTable("Prices", ["Plan", ["Amount", "right"], "For", ...(may("host") ? ["Tenant"] : []), "From", ""], found.map((price) => h("tr",
      h("td.break", price.plan ?? h("span.muted", "any")), h("td.right.nowrap", money(price.amount, price.currency)), h("td", UNITS[price.unit] ?? price.unit), may("host") && h("td.break", price.tenant ?? h("span.muted", "all")), h("td.nowrap.muted", price.valid_from),
      h("td.tools", may("host") && tool(`Take back ${money(price.amount, price.currency)} ${UNITS[price.unit] ?? price.unit}`, "trash", () => takeBack(price, after(again)))))));
  });
  const after = (again) => () => { again(); changed(); };
  return card("Prices", list, may("host") && button("Set a price", "plus", () => setPrice(after(list.again))));
}

async function setPrice(again) {
  const [plans, tenants] = await Promise.all([api.get("/v1/plans"), api.get("/v1/tenants")]);
  const plan = h("select", h("option", { value: "" }, "any"), plans.map(({ name }) => h("option", { value: name }, name)));
  const tenant = h("select", h("option", { value: "" }, "all"), tenants.map(({ tenant: one }) => h("option", { value: one.name }, one.name)));
  const unit = h("select", Object.entries(UNITS).map(([value, words]) => h("option", { value }, words)));
  const amount = h("input", { type: "text", inputmode: "decimal", required: true, placeholder: "5.00", autocomplete: "off" });
  const currency = h("input", { type: "text", required: true, placeholder: "EUR", spellcheck: false, autocomplete: "off" });
  const from = h("input", { type: "date", required: true, value: new Date().toISOString().slice(0, 10) });
  return form("Set a price", {
    fields: [h("div.pair", field("Amount", amount), field("Currency", currency)), field("For", unit), h("div.pair", field("Plan", plan), field("Tenant", tenant)), field("From", from, "The first day on which it counts, UTC.")],
    action: "Set the price",
    async submit() {
      await api.post("/v1/prices", { plan: plan.value || null, tenant: tenant.value || null, unit: unit.value, amount: amount.value.trim(), currency: currency.value.trim().toUpperCase(), valid_from: from.value });
      done("The price is set.");
      again();
    },
  });
}

function takeBack(price, again) {
  return confirm("Take the price back?", {
    words: ["The price ", h("b", `${money(price.amount, price.currency)} ${UNITS[price.unit] ?? price.unit}`), " is as if it had never been, for all that has not been billed. To make something free from a day on, set 0."],
    action: "Take it back",
    async submit() {
      await api.remove(`/v1/prices/${price.id}`);
      done("The price is taken back.");
      again();
    },
  });
}
