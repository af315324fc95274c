// Dialogs: the browser's own, which keep the focus inside and give it back.

import { fill, h, icon } from "./dom.js";
import { problems } from "./say.js";

let count = 0;

export function open(title, { body, footer, wide = false, onClose }) {
  const id = `dialog-${++count}`;
  const close = h("button.quiet.icon-only", { type: "button", onclick: () => dialog.close(), "aria-label": "Close" }, icon("close"));
  const dialog = h(`dialog${wide ? ".wide" : ""}`, { "aria-labelledby": id });
  dialog.append(h("header", h("h2", { id }, title), close), body);
  if (footer) dialog.append(footer);
  dialog.addEventListener("close", () => { dialog.remove(); onClose?.(); });
  document.body.append(dialog);
  dialog.showModal();
  return dialog;
}

// Whoever asked is not signed in any more.
export const closeAll = () => document.querySelectorAll("dialog").forEach((dialog) => dialog.close());

// A form in a dialog: `submit(report)` does the work; its errors are shown in place, and the dialog stays.
export function form(title, { fields, action, danger = false, submit, wide, progress = false }) {
  return new Promise((resolve) => {
    const errors = h("div");
    const report = h("div", { hidden: true });
    const button = h(`button.primary${danger ? ".danger" : ""}`, { type: "submit" }, action);
    const aborter = new AbortController();
    const cancel = h("button", { type: "button", onclick: () => dialog.close() }, "Cancel");
    const content = h("form", { onsubmit: send }, h("div.body", fields, errors, report), h("footer", cancel, button));
    let result = null;
    const dialog = open(title, { body: content, wide, onClose: () => { aborter.abort(); resolve(result); } });
    (content.querySelector("input:not([type=radio]), select, textarea") ?? (danger ? cancel : button)).focus();

    async function send(event) {
      event.preventDefault();
      fill(errors);
      button.disabled = true;
      button.classList.add("busy");
      try {
        result = (await submit((step) => tell(step), aborter.signal)) ?? true;
        dialog.close();
      } catch (error) {
        if (error.name === "AbortError") return;
        fill(errors, problems(error)).firstChild.focus();
      } finally {
        button.disabled = false;
        button.classList.remove("busy");
        report.hidden = true;
      }
    }

    function tell(step) {
      if (!progress) return;
      report.hidden = false;
      const bar = h("progress", { max: step.total || 1, "aria-label": step.label });
      if (step.total) bar.value = step.done;
      fill(report, h("div.small.muted", step.label), bar);
    }
  });
}

// Asks before something is lost; the button says what is.
export function confirm(title, { words, action, submit, check }) {
  return form(title, { fields: [h("p", words), check ?? null], action, danger: true, submit });
}

export function field(label, control, help) {
  const id = control.id || `field-${++count}`;
  control.id = id;
  const note = help ? h("span.help", { id: `${id}-help` }, help) : null;
  if (note) control.setAttribute("aria-describedby", note.id);
  return h("div.field", h("label", { htmlFor: id }, label), control, note);
}
