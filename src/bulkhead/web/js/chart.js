// Charts of use against the plan, by uPlot: the past from the meter's bins, and what is measured now.

import { fill, h } from "./dom.js";
import { SPANS, joined } from "./history.js";
import { now as present } from "./live.js";
import { colour, onTheme } from "./theme.js";
import { clock, dayOf, duration } from "./units.js";

let library = null;

function load() {
  library ??= (async () => {
    if (document.body.dataset.missing) throw new Error("missing");
    const link = h("link", { "data-for": "uplot" });
    link.rel = "stylesheet";
    link.setAttribute("href", new URL("../vendor/uPlot.css", import.meta.url).pathname);
    document.head.append(link);
    return (await import("../vendor/uPlot.js")).default;
  })();
  return library;
}

// `series`: [{ label, key }]; `format` says a value.
export function chart({ title, series, format, binary = false }) {
  const now = h("span.now");
  const plot = h("div.plot", { role: "img", "aria-label": title });
  const legend = series.length > 1 && h("div.legend", series.map(({ label }, index) => h("span", { style: { "--c": `var(--series-${index + 1})` } }, label)));
  const element = h("section.chart", h("header", h("h3", title), now), plot, legend);
  let drawn = null;
  let data = [[], ...series.map(() => [])];
  let most = null;
  let gone = false;
  let span = SPANS.minutes;

  const build = async () => {
    let uPlot;
    try {
      uPlot = await load();
    } catch {
      fill(plot, h("p.small.muted", "Charts need uPlot, which is not installed: run scripts/setup on the host."));
      return;
    }
    if (gone) return;
    drawn?.destroy();
    plot.replaceChildren();
    drawn = new uPlot(options(uPlot, { plot, series, format, binary, limit: () => most, span: () => span }), data, plot);
  };
  const size = new ResizeObserver(() => drawn?.setSize({ width: plot.clientWidth, height: plot.clientHeight }));
  size.observe(plot);
  const silence = onTheme(build);
  build();

  return {
    element,
    // `past`: bins of `over`, one of SPANS; `live`: figures of now; `allowed`: what the plan allows, null for no limit.
    update({ past, live, over, allowed }) {
      most = allowed;
      span = over;
      const keys = series.map(({ key }) => key);
      const has = (point) => point[keys[0]] !== null && point[keys[0]] !== undefined;
      data = columns(joined(past, over.live ? live : [], has), keys);
      drawn?.setData(data);
      const last = live.findLast(has);
      const values = keys.map((key) => (last ? format(last[key]) : "–")).join("  ·  ");
      fill(now, values, most ? h("span.of", ` of ${format(most)}`) : null);
      const known = data[0].length ? `, known for ${duration(present() - data[0][0])}` : "";
      plot.setAttribute("aria-label", `${title} over ${over.words}${known}, now ${values}${most ? ` of ${format(most)}` : ""}`);
    },
    close() {
      gone = true;
      size.disconnect();
      silence();
      drawn?.destroy();
    },
  };
}

// As uPlot takes them: times, then each series; between two lines a moment without a figure.
function columns(lines, keys) {
  const found = [[], ...keys.map(() => [])];
  for (const line of lines) {
    if (found[0].length) {
      found[0].push((found[0].at(-1) + line[0][0]) / 2);
      for (const values of found.slice(1)) values.push(null);
    }
    for (const [when, point] of line) {
      found[0].push(when);
      keys.forEach((key, index) => found[index + 1].push(point[key]));
    }
  }
  return found;
}

// Ticks of bytes are powers of two.
const POWERS = Array.from({ length: 50 }, (_, power) => 2 ** power);

const SCALE = 66; // pixels beside the chart

function options(uPlot, { plot, series, format, binary, limit, span }) {
  const [line, ink, edge] = [colour("line"), colour("muted"), colour("bad")];
  const font = "11px system-ui, sans-serif";
  const axis = { stroke: ink, font, grid: { stroke: line, width: 1 }, ticks: { show: false } };
  return {
    width: plot.clientWidth || 320, height: plot.clientHeight || 132, padding: [8, 4, 0, 0],
    cursor: { y: false, drag: { setScale: false }, points: { size: 6 } },
    legend: { show: false },
    scales: {
      // All of the span, or from the first figure that is known: then a tenth of it at least.
      x: { time: true, range: (_, first) => [Math.max(present() - span().seconds, Math.min(first ?? Infinity, present() - span().seconds / 10)), present()] },
      // The plan's limit is always in the picture where use comes near it.
      y: { range: (_, __, top) => [0, reach(top, limit())] },
    },
    axes: [
      { ...axis, grid: { show: false }, size: 22, space: 70, values: (self, ticks) => ticks.map((tick) => (cut(self, tick) ? "" : label(tick, ticks[1] - ticks[0]))) },
      { ...axis, size: SCALE, space: 30, ...(binary ? { incrs: POWERS } : {}), values: (_, ticks) => ticks.map((tick) => (tick === 0 ? "0" : format(tick))) },
    ],
    series: [{}, ...series.map((_, index) => ({ stroke: colour(`series-${index + 1}`), width: 1.6, points: { show: false }, fill: index === 0 && series.length === 1 ? faded(colour("series-1")) : undefined }))],
    hooks: { draw: [(self) => drawLimit(self, limit(), edge, uPlot.pxRatio)] },
  };
}

const label = (tick, step) => (step >= 86400 || (step > 3600 && clock(tick) === "00:00:00") ? dayOf(tick) : clock(tick).slice(0, step < 60 ? 8 : 5));
// Whether what stands below a tick would reach beyond the chart's right edge.
const cut = ({ width, scales: { x } }, tick) => ((x.max - tick) / (x.max - x.min)) * (width - SCALE) < 24;
const reach = (top, limit) => (limit && (top ?? 0) > limit * 0.3 ? limit * 1.08 : Math.max((top ?? 0) * 1.25, limit ? limit * 0.02 : 1));
const faded = (found) => found.replace(/^rgb\((.*)\)$/, (_, parts) => (parts.includes(",") ? `rgba(${parts}, 0.12)` : `rgb(${parts} / 0.12)`)).replace(/^(color\(.*)\)$/, "$1 / 0.12)");

function drawLimit(self, limit, edge, ratio) {
  if (!limit || limit > self.scales.y.max) return;
  const { ctx, bbox } = self;
  const y = Math.round(self.valToPos(limit, "y", true));
  ctx.save();
  ctx.strokeStyle = edge;
  ctx.setLineDash([4 * ratio, 4 * ratio]);
  ctx.lineWidth = ratio;
  ctx.beginPath();
  ctx.moveTo(bbox.left, y);
  ctx.lineTo(bbox.left + bbox.width, y);
  ctx.stroke();
  ctx.restore();
}
