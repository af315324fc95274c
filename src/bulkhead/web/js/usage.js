// What has been used in a month, and the invoice for it.

import * as api from "./api.js";
import { fill, h, icon, text } from "./dom.js";
import { me } from "./me.js";
import { asked, card, empty, head, simpleTable } from "./parts.js";
import { bytes, money, number } from "./units.js";

const day = (when) => new Date(when * 1000).toISOString().slice(0, 10);
const hours = (seconds) => `${number(seconds / 3600, 2)} h`;
const COLUMNS = [["up", (row) => hours(row.uptime_seconds)], ["CPU used", (row) => hours(row.cpu_seconds)], ["memory sold", (row) => `${number(row.memory_gib_hours_sold, 2)} GiB h`], ["memory used", (row) => `${number(row.memory_gib_hours_used, 2)} GiB h`], ["disk sold", (row) => `${number(row.disk_gib_hours_sold + row.volume_gib_hours_sold + row.snapshot_gib_hours, 2)} GiB h`], ["in", (row) => bytes(row.received)], ["out", (row) => bytes(row.sent)], ["disk operations", (row) => (row.disk_reads === null ? "–" : number(row.disk_reads + row.disk_writes))]];
const BY = { instance: "instance", plan: "plan", tenant: "tenant", day: "day" };

// The last twelve months, the latest first: ["2026-11", from, to] in seconds of UTC.
function months() {
  const now = new Date();
  return Array.from({ length: 12 }, (_, back) => {
    const begin = new Date(Date.UTC(now.getUTCFullYear(), now.getUTCMonth() - back, 1));
    return [begin.toISOString().slice(0, 7), begin / 1000, Date.UTC(begin.getUTCFullYear(), begin.getUTCMonth() + 1, 1) / 1000];
  });
}

export function usage() {
  const spans = months();
  const month = h("select", { "aria-label": "Month", onchange: show }, spans.map(([name]) => h("option", { value: name }, name)));
  const by = h("select", { "aria-label": "Summed by", onchange: show }, Object.entries(BY).filter(([key]) => key !== "tenant" || !me().tenant).map(([key, words]) => h("option", { value: key }, `by ${words}`)));
  const told = h("span.told");
  const table = h("div"), bill = h("div");
  const save = h("button", { type: "button", onclick: () => keep(rows, by.value, month.value) }, icon("download"), "CSV");
  let rows = [];

  function show() {
    const [name, from, to] = spans.find(([value]) => value === month.value);
    fill(table, asked(() => api.get("/v1/usage", { from, to, by: by.value }), (found) => {
      rows = found.rows;
      save.disabled = !rows.length;
      text(told, `${day(found.from)} to ${day(found.to - 1)}, UTC`);
      if (!rows.length) return empty("usage", "Nothing was used", `There is no use in ${name}.`);
      const sum = total(rows);
      return simpleTable("Use", [BY[by.value], ...COLUMNS.map(([label]) => [label, "right"])], [...rows.map((row) => line(label(row, by.value), row)), rows.length > 1 && line(h("b", "all"), sum)].filter(Boolean));
    }));
    fill(bill, invoice(name));
  }
  show();
  const element = h("div", head("Usage"), h("div.stack", h("section.card", h("div.filters", month, by, save, told), table), bill));
  return { title: "Usage", element };
}

const line = (name, row) => h("tr", h("td.break", name), COLUMNS.map(([, read]) => h("td.right.nowrap", read(row))));
const label = (row, by) => (by === "day" ? day(row.from) : by === "instance" ? [h("span.name", row.name || row.id.slice(0, 12)), ["volume", "snapshot"].includes(row.kind) && h("span.sub", row.kind), !me().tenant && row.tenant && row.tenant !== "default" && h("span.sub", row.tenant)] : row[by] || "–");

function total(rows) {
  const sum = {};
  for (const row of rows) for (const [key, value] of Object.entries(row)) if (typeof value === "number") sum[key] = (sum[key] ?? 0) + value;
  return sum;
}

// A cell that a spreadsheet would take for a formula is made one that it does not.
function keep(rows, by, month) {
  const keys = Object.keys(rows[0]);
  const cell = (value) => { const words = typeof value === "string" && /^[=+\-@\t\r]/.test(value) ? `'${value}` : String(value); return /[",\n]/.test(words) ? `"${words.replaceAll('"', '""')}"` : words; };
  const lines = [keys, ...rows.map((row) => keys.map((key) => row[key]))].map((row) => row.map(cell).join(","));
  download(new Blob([`${lines.join("\r\n")}\r\n`], { type: "text/csv" }), `usage-${month}-by-${by}.csv`);
}

function download(blob, name) {
  const address = URL.createObjectURL(blob);
  const link = h("a", { href: address });
  link.download = name;
  link.click();
  URL.revokeObjectURL(address);
}

function invoice(month) {
  // Where nobody has set a price there is nothing to ask for.
  const load = async () => ((await api.get("/v1/prices")).length ? api.get(`/v1/invoices/month/${month}`) : null);
  return card("Invoice", asked(load, (found) => {
    if (!found) return empty("usage", "No price is set", "An invoice is use at a price.", h("p.small", h("code", "bulkhead price set month 5.00 EUR --plan small")));
    const show = (amount) => money(amount, found.currency);
    const pdf = h("button", { type: "button", onclick: async () => download(await api.download(`/v1/invoices/month/${month}`, { format: "pdf" }), `invoice-${month}.pdf`) }, icon("download"), "PDF");
    return h("div", h("div.body", h("div.head", h("div.grow", h("b", found.number ? `Number ${found.number}, ${found.issued}` : "A draft: the month's use so far"), h("div.muted.small", `${found.seller.name ?? ""} to ${found.recipient.join(", ")}`)), pdf)),
      simpleTable("Lines of the invoice", ["Plan", "For", ["Quantity", "right"], ["Price", "right"], ["Amount", "right"]], [...found.lines.map((row) => h("tr", h("td.break", row.plan ?? "all"), h("td", row.label), h("td.right.nowrap", number(row.quantity, 3)), h("td.right.nowrap", show(row.price)), h("td.right.nowrap", show(row.amount)))),
        sum("Net", show(found.net)), sum(`Tax ${number(found.tax_percent, 2)} %`, show(found.tax)), sum(h("b", "Total"), h("b", show(found.total)))]));
  }));
}

const sum = (name, amount) => h("tr", h("td", name), h("td"), h("td"), h("td"), h("td.right.nowrap", amount));
