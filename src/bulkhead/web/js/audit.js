// What can be reached from within: an instance, or a level.

import * as api from "./api.js";
import * as live from "./live.js";
import { fill, h, text } from "./dom.js";
import { button, empty, facts, head, simpleTable, wall } from "./parts.js";
import { problems } from "./say.js";
import { moment, number } from "./units.js";

const LEVELS = ["chroot", "container", "vm", "unikernel"];

// Runs audits and shows the last one; `path` is asked with `body`.
export function auditor(words, begin) {
  const report = h("div", empty("audit", "Nothing was tried yet", words, begin));
  const element = h("div", report);
  let aborter = null;
  element.run = async (path, body) => {
    aborter?.abort();
    aborter = new AbortController();
    const { signal } = aborter;
    const step = h("p.muted", "Trying…");
    fill(report, h("div.empty", { role: "status" }, h("progress", { "aria-label": "Audit" }), step));
    try {
      const found = await api.operate(path, body, (one) => text(step, one.label), signal);
      fill(report, shown(found));
    } catch (error) {
      if (!signal.aborted) fill(report, h("div.body", problems(error)));
    }
  };
  element.close = () => aborter?.abort();
  return element;
}

function shown(report) {
  const reached = report.exploits.filter((exploit) => exploit.reachable);
  return h("div.stack",
    h("div.body.pair", h("div", h("div.muted.small", "Score"), h("div.score", report.score === null ? "–" : `${report.score} of 100`), h("div.muted.small", report.complete ? "" : "The report is not complete.")),
      facts([["Of", report.instance || report.level], ["Wall", wall(report.level)], ["Image", report.image], ["Kernel", report.kernel], ["When", moment(report.when)]])),
    report.deductions.some((one) => one.points) && h("div.body", h("h2", "What it costs"), h("dl.receipt.narrow", report.deductions.filter((one) => one.points).map((one) => [h("dt", one.group), h("dd", `−${number(one.points, 1)} of at most ${number(one.most, 1)}`)]))),
    report.raises.length > 0 && h("div.body", h("h2", "What would raise it"), h("ul", report.raises.map((line) => h("li.break", line)))),
    report.notes.length > 0 && h("div.body", h("div.notice.warn", report.notes.map((note) => h("span", note)))),
    simpleTable("Findings", ["What can be reached", ["Of", "hide-narrow"], ["Points", "right"]], report.findings.map((finding) => h("tr", h("td.break", h("span.name", finding.title), finding.detail && h("div.small.muted", finding.detail), finding.hint && h("div.small", finding.hint)), h("td.hide-narrow.nowrap", `${finding.group}, ${finding.side}`), h("td.right.nowrap", finding.weight ? `−${number(finding.weight, 1)}` : "0")))),
    report.calls.length > 0 && simpleTable("System calls", ["System calls, tried as", "ABI", ...Object.keys(report.calls[0].counts).map((name) => [name, "right"])], report.calls.map((call) => h("tr", h("td", call.user), h("td", call.abi), Object.values(call.counts).map((count) => h("td.right", number(count)))))),
    h("div.body", h("h2", `Published exploits whose interfaces are reachable: ${reached.length} of ${report.exploits.length}`), h("p.small.muted", "Reachable is not the same as exploitable: the kernel may have been mended.")),
    simpleTable("Exploits", ["Exploit", "Reachable", ["What it lacks", "hide-narrow"]], [...report.exploits].sort((one, other) => Number(other.reachable) - Number(one.reachable)).map((exploit) => h("tr", h("td.break", h("span.mono", exploit.cve), h("div.small.muted", exploit.title)), h("td", exploit.reachable ? h("span.bad", "yes") : h("span.good", "no")), h("td.hide-narrow.break.muted", exploit.missing.join(", "))))));
}

export function audit() {
  const running = [...live.instances.values()].filter((instance) => instance.state === "running");
  const what = h("select", { "aria-label": "What to audit" },
    running.length && h("optgroup", { label: "Instances" }, running.map((instance) => h("option", { value: `i ${instance.spec.id}` }, instance.spec.name))),
    h("optgroup", { label: "Levels, by an instance made for it" }, LEVELS.map((level) => h("option", { value: `l ${level}` }, level))));
  const run = () => {
    const [kind, key] = what.value.split(" ");
    return kind === "i" ? result.run(`/v1/instances/${api.ref(key)}/audit`, {}) : result.run("/v1/audit", { level: key });
  };
  const result = auditor("An audit tries from within what the wall should keep away: system calls, devices, files, addresses of others.", null);
  const element = h("div", head("Audit"), h("section.card", h("div.filters", what, button("Audit", "audit", run, ".primary")), result));
  return { title: "Audit", element, leave: result.close };
}
