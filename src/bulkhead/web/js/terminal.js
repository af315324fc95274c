// A terminal in an instance: a command beside the workload, or the workload's own.

import * as api from "./api.js";
import { fill, h, text } from "./dom.js";
import { problems, announce } from "./say.js";
import { Problem } from "./api.js";
import { Stream } from "./frames.js";
import { load } from "./xterm.js";

const THEME = { background: "#14171a", foreground: "#e4e7ea", cursor: "#63c7b7", cursorAccent: "#14171a", selectionBackground: "#35505a", black: "#14171a", brightBlack: "#78818a", red: "#ff8b7e", green: "#5fc983", yellow: "#e3ae55", blue: "#7db2f0", magenta: "#cf9cf0", cyan: "#63c7b7", white: "#d5d9dd", brightWhite: "#ffffff" };
const SHELL = ["/bin/sh", "-c", "if [ -x /bin/bash ]; then exec /bin/bash; else exec /bin/sh; fi"];

export function terminal(instance) {
  const { spec } = instance;
  const screen = h("div.screen");
  const status = h("span.small.muted", { role: "status" });
  const command = h("input.mono", { type: "text", spellcheck: false, autocomplete: "off", placeholder: "a shell", "aria-label": "Command" });
  const again = h("button", { type: "submit" }, "Connect");
  const errors = h("div");
  const element = h("div.stack", errors, h("section.terminal-box", { "aria-label": `Terminal in ${spec.name}` },
    h("header", h("form", { onsubmit: (event) => { event.preventDefault(); connect(); } }, command, again), status), screen),
    h("p.small.muted", "Ctrl + Shift + F6 leaves the terminal, so that Tab moves on."));
  let view = null, fit = null, stream = null, gone = false;
  const size = new ResizeObserver(() => { if (view && screen.clientWidth) fit.fit(); });

  async function begin() {
    let library;
    try {
      library = await load();
    } catch (error) {
      fill(errors, h("div.notice.warn", h("b", error.message)));
      return;
    }
    if (gone) return;
    view = new library.Terminal({ fontFamily: getComputedStyle(document.documentElement).getPropertyValue("--mono"), fontSize: 13, lineHeight: 1.15, theme: THEME, cursorBlink: false, scrollback: 5000, screenReaderMode: true, allowProposedApi: false });
    fit = new library.FitAddon();
    view.loadAddon(fit);
    view.open(screen);
    view.textarea.setAttribute("aria-label", `Terminal in ${spec.name}`);
    view.onData((words) => stream?.write(new TextEncoder().encode(words)));
    view.onBinary((words) => stream?.write(Uint8Array.from(words, (letter) => letter.charCodeAt(0))));
    view.onResize(({ rows, cols }) => stream?.resize(rows, cols));
    view.attachCustomKeyEventHandler((event) => {
      if (event.key !== "F6" || !event.ctrlKey || !event.shiftKey) return true;
      if (event.type === "keydown") command.focus();
      return false;
    });
    fit.fit();
    size.observe(screen);
    connect();
  }

  function connect() {
    fill(errors);
    stream?.close();
    view.reset();
    text(status, "connecting");
    const words = command.value.trim();
    const request = { command: words ? ["/bin/sh", "-c", words] : SHELL, tty: true, stdin: true, env: ["TERM=xterm-256color"], rows: view.rows, columns: view.cols };
    const mine = new Stream(`/v1/instances/${api.ref(spec.id)}/exec`, request, {
      opened() {
        if (mine !== stream) return;
        text(status, "connected");
        text(again, "New connection");
        view.focus();
      },
      data: (bytes, taken) => view.write(bytes, taken),
      exit(code, signal) {
        if (mine !== stream) return;
        end(signal ? `ended by signal ${signal}` : `exit code ${code}`);
      },
      problem(details) {
        if (mine !== stream) return;
        fill(errors, problems(new Problem(details)));
        end("failed");
      },
      closed(ended) {
        if (mine === stream && !ended && !gone) end("the connection was lost");
      },
    });
    stream = mine;
  }

  function end(words) {
    text(status, words);
    text(again, "Connect");
    view.write(`\r\n\x1b[2m[${words}]\x1b[0m\r\n`);
    announce(`Terminal: ${words}`);
  }

  begin();
  return {
    element,
    close() {
      gone = true;
      size.disconnect();
      stream?.close();
      view?.dispose();
    },
  };
}
