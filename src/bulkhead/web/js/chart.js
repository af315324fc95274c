// Live charts of use against the plan, by uPlot.

import { fill, h, text } from "./dom.js";
import { colour, onTheme } from "./theme.js";
import { clock } from "./units.js";

const SECONDS = 300;
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

// `series`: [{ label, key }]; `limit`: what the plan allows, null for none; `format` says a value.
export function chart({ title, series, limit, format, binary = false }) {
  const now = h("span.now");
  const plot = h("div.plot", { role: "img", "aria-label": `${title} over the last five minutes` });
  const legend = series.length > 1 && h("div.legend", series.map(({ label }, index) => h("span", { style: { "--c": `var(--series-${index + 1})` } }, label)));
  const element = h("section.chart", h("header", h("h3", title), now), plot, legend);
  let drawn = null;
  let data = [[], ...series.map(() => [])];
  let most = limit;
  let gone = false;

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
    drawn = new uPlot(options(uPlot, { plot, series, format, binary, limit: () => most }), data, plot);
  };
  const size = new ResizeObserver(() => drawn?.setSize({ width: plot.clientWidth, height: plot.clientHeight }));
  size.observe(plot);
  const silence = onTheme(build);
  build();

  return {
    element,
    update(history, allowed = limit) {
      most = allowed;
      const points = history.filter((point) => point[series[0].key] !== null && point[series[0].key] !== undefined);
      data = [points.map((point) => point.when), ...series.map(({ key }) => points.map((point) => point[key]))];
      drawn?.setData(data);
      const last = points.at(-1);
      const values = series.map(({ key }) => (last ? format(last[key]) : "–")).join("  ·  ");
      fill(now, values, most ? h("span.of", ` of ${format(most)}`) : null);
      plot.setAttribute("aria-label", `${title} over the last five minutes, now ${values}${most ? ` of ${format(most)}` : ""}`);
    },
    close() {
      gone = true;
      size.disconnect();
      silence();
      drawn?.destroy();
    },
  };
}

// Ticks of bytes are powers of two.
const POWERS = Array.from({ length: 50 }, (_, power) => 2 ** power);

function options(uPlot, { plot, series, format, binary, limit }) {
  const [line, ink, edge] = [colour("line"), colour("muted"), colour("bad")];
  const font = "11px system-ui, sans-serif";
  const axis = { stroke: ink, font, grid: { stroke: line, width: 1 }, ticks: { show: false } };
  return {
    width: plot.clientWidth || 320, height: plot.clientHeight || 132, padding: [8, 4, 0, 0],
    cursor: { y: false, drag: { setScale: false }, points: { size: 6 } },
    legend: { show: false },
    scales: {
      // From the first figure that is known, a minute at least, five at most.
      x: { time: true, range: (_, first) => [Math.max(Date.now() / 1000 - SECONDS, Math.min(first ?? Infinity, Date.now() / 1000 - 60)), Date.now() / 1000] },
      // The plan's limit is always in the picture where use comes near it.
      y: { range: (_, __, top) => [0, reach(top, limit())] },
    },
    axes: [
      { ...axis, grid: { show: false }, size: 22, space: 70, values: (_, ticks) => ticks.map((tick) => clock(tick).slice(0, ticks[1] - ticks[0] < 60 ? 8 : 5)) },
      { ...axis, size: 66, space: 30, ...(binary ? { incrs: POWERS } : {}), values: (_, ticks) => ticks.map((tick) => (tick === 0 ? "0" : format(tick))) },
    ],
    series: [{}, ...series.map((_, index) => ({ stroke: colour(`series-${index + 1}`), width: 1.6, points: { show: false }, fill: index === 0 && series.length === 1 ? faded(colour("series-1")) : undefined }))],
    hooks: { draw: [(self) => drawLimit(self, limit(), edge, uPlot.pxRatio)] },
  };
}

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
