// Figures as people read them. Bytes are 1024-based, as everywhere in Bulkhead.

const BYTES = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
const BITS = ["bit/s", "kbit/s", "Mbit/s", "Gbit/s", "Tbit/s"];

function scaled(value, base, units) {
  let size = Math.abs(value), index = 0;
  while (size >= base * 0.9995 && index < units.length - 1) {
    size /= base;
    index += 1;
  }
  const digits = index === 0 || size >= 100 ? 0 : size >= 10 ? 1 : 2;
  return `${value < 0 ? "−" : ""}${trimmed(size.toFixed(digits))} ${units[index]}`;
}

const trimmed = (digits) => (digits.includes(".") ? digits.replace(/\.?0+$/, "") : digits);

export const bytes = (value) => (value === null || value === undefined ? "–" : scaled(value, 1024, BYTES));
export const bits = (value) => (value === null || value === undefined ? "–" : scaled(value, 1000, BITS));
export const rate = (value) => `${bytes(value)}/s`;
export const number = (value, digits = 0) => Number(value).toLocaleString("en", { maximumFractionDigits: digits });
export const percent = (part, whole) => (whole > 0 ? (100 * part) / whole : 0);
export const cores = (value) => `${trimmed(Number(value).toFixed(value < 0.1 ? 3 : 2))} ${value === 1 ? "core" : "cores"}`;
export const short = (digest) => digest.replace(/^sha256:/, "").slice(0, 12);
export const plural = (count, one, many = `${one}s`) => `${number(count)} ${count === 1 ? one : many}`;

export function duration(seconds) {
  if (!Number.isFinite(seconds) || seconds < 0) return "–";
  if (seconds < 1) return `${Math.round(seconds * 1000)} ms`;
  if (seconds < 60) return `${Math.floor(seconds)} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ${Math.floor(seconds % 60)} s`;
  if (seconds < 86400) return `${Math.floor(seconds / 3600)} h ${Math.floor((seconds % 3600) / 60)} min`;
  return `${Math.floor(seconds / 86400)} d ${Math.floor((seconds % 86400) / 3600)} h`;
}

export const roughly = (seconds) => duration(seconds).split(" ").slice(0, 2).join(" ");

export function ago(when) {
  const seconds = Date.now() / 1000 - when;
  return seconds < 5 ? "just now" : `${roughly(seconds)} ago`;
}

const two = (value) => String(value).padStart(2, "0");

export function clock(when) {
  const date = new Date(when * 1000);
  return `${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}`;
}

const MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

export function dayOf(when) {
  const date = new Date(when * 1000);
  return `${date.getDate()} ${MONTHS[date.getMonth()]}`;
}

export function moment(when) {
  const date = new Date(when * 1000);
  const day = `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())}`;
  return date.toDateString() === new Date().toDateString() ? clock(when) : `${day} ${clock(when)}`;
}

// "512M", "1.5 GiB", "2g" -> bytes; M and G are 2^20 and 2^30 as on the command line. NaN where it is none.
export function parseBytes(words) {
  const match = /^\s*([0-9]+(?:\.[0-9]+)?)\s*([kmgt]?)(i?b)?\s*$/i.exec(words);
  if (!match) return NaN;
  const power = "kmgt".indexOf(match[2].toLowerCase()) + 1;
  return Math.round(Number(match[1]) * (match[2] && /^b$/i.test(match[3] ?? "") ? 1000 : 1024) ** power);
}

// A plan in a line: "512 MiB · 2 × 2 GHz · 5 GiB".
export function planLine(plan) {
  const cpus = `${number(plan.cpus, 2)} ${plan.ghz ? `× ${number(plan.ghz, 2)} GHz` : plan.cpus === 1 ? "core" : "cores"}`;
  return `${bytes(plan.memory)} · ${cpus} · ${bytes(plan.disk)}`;
}

export function money(value, currency) {
  try {
    return new Intl.NumberFormat("en", { style: "currency", currency, maximumFractionDigits: 4, minimumFractionDigits: 2 }).format(Number(value));
  } catch {
    return `${value} ${currency}`;
  }
}
