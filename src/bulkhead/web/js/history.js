// What an instance has used before anybody looked: bins of the meter, joined with the live figures.

import * as api from "./api.js";

const GIB = 2 ** 30;
const HOUR = 3600;

// How far back, in which bins, and how often they are asked for again (s).
export const SPANS = {
  minutes: { label: "10 minutes", words: "the last ten minutes", bin: "a minute", by: "minute", seconds: 600, again: 60, live: true },
  day: { label: "Day", words: "the last day", bin: "an hour", by: "hour", seconds: 86400, again: 300 },
  month: { label: "Month", words: "the last 30 days", bin: "a day", by: "day", seconds: 30 * 86400, again: 300 },
};
const HOLE = 15; // seconds between two live figures that are no longer one line

// Bins of an instance within a span: [{ begin, end, cpu, memory, ... }], a rate or a mean each.
export async function binsOf(instance, span, now) {
  const { spec } = instance;
  // What runs within a VM is part of what the VM uses.
  if (spec.inside || (instance.state === "created" && !instance.started)) return [];
  const length = { minute: 60, hour: HOUR, day: 86400 }[span.by];
  const from = Math.floor((now - span.seconds) / length) * length;
  const { rows } = await api.get("/v1/usage", { ref: spec.id, by: span.by, from });
  return bins(rows, spec.created, spec.plan.disk);
}

export function bins(rows, created, size) {
  return rows.map((row, index) => bin(row, rows[index - 1], rows[index + 1], { created, size })).filter((one) => one !== null);
}

// A row tells for how long it ran, and not when: where it did not run all the time, next to where it ran before or after.
function bin(row, before, after, { created, size }) {
  const ran = row.uptime_seconds;
  if (ran <= 0) return null;
  const joined = before && before.to === row.from && before.uptime_seconds > 0;
  const whole = row.to - row.from;
  let begin = row.from, end = row.to;
  if (ran < whole - 1) {
    if (!joined && after?.from === row.to && after.uptime_seconds > 0) begin = end - ran;
    else if (!after) {
      begin = joined ? begin : Math.max(begin, created);
      end = Math.min(end, begin + ran);
    }
  }
  // The disk is there whether it runs or not; for how long is known of whole bins, of others by what was sold.
  const { disk_gib_hours_used: used, disk_gib_hours_sold: sold } = row;
  const disk = after && row.from >= created ? (used * GIB * HOUR) / whole : sold > 0 ? (used / sold) * size : null;
  const rate = (amount) => (amount === null ? null : amount / ran);
  return {
    begin, end,
    cpu: rate(row.cpu_seconds), memory: rate(row.memory_gib_hours_used * GIB * HOUR), disk,
    received: rate(row.received), sent: rate(row.sent), read: rate(row.disk_read), written: rate(row.disk_written),
    reads: rate(row.disk_reads), writes: rate(row.disk_writes),
  };
}

// Parts of lines, none of which touches another: [[[when, point], ...], ...]. Bins are steps, and end where live figures
// begin; what nobody has measured is between two parts.
export function joined(past, live, has) {
  const runs = [];
  let before = null;
  for (const point of live) {
    if (!has(point)) continue;
    const run = runs.at(-1);
    if (run && point.when - before.when <= HOLE) run.push(point);
    else runs.push([point]);
    before = point;
  }
  const covered = runs.map((run) => [run[0].when, run.at(-1).when]);
  const pieces = [...past.filter(has).flatMap((one) => rest(one, covered)), ...runs.map((run) => run.map((point) => [point.when, point]))];
  pieces.sort((one, other) => one[0][0] - other[0][0]);
  const lines = [];
  for (const piece of pieces) {
    const last = lines.at(-1);
    if (last && piece[0][0] - last.at(-1)[0] <= HOLE) last.push(...piece);
    else lines.push([...piece]);
  }
  return lines;
}

// A bin without what is covered by something better.
function rest(bin, covered) {
  let left = [[bin.begin, bin.end]];
  for (const [first, last] of covered) {
    left = left.flatMap(([begin, end]) => [[begin, Math.min(end, first)], [Math.max(begin, last), end]].filter(([one, other]) => other - one > 0.5));
  }
  return left.map(([begin, end]) => [[begin, bin], [end, bin]]);
}
