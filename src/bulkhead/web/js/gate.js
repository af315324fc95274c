// Signing in.

import * as session from "./session.js";
import { field } from "./dialog.js";
import { fill, h } from "./dom.js";
import { announce, problems } from "./say.js";

export function gate(app, enter, words = "") {
  const token = h("input", { type: "password", name: "token", autocomplete: "off", spellcheck: false, required: true });
  const errors = h("div");
  const button = h("button.primary", { type: "submit" }, "Sign in");
  const form = h("form", { onsubmit: send },
    h("div.brand", h("span.mark", { "aria-hidden": "true" }, h("i"), h("i"), h("i")), "Bulkhead"),
    h("h1", "Sign in"),
    words && h("div.notice", { role: "status" }, words),
    field("Token", token, "It is kept in this tab until you sign out or close it."),
    errors, button,
    h("p.small.muted", "A token comes from the operator, or on the host from ", h("code", "bulkhead web"), "."));
  fill(app, h("main.gate", { id: "content" }, form));
  announce("Sign in");
  document.title = "Sign in · Bulkhead";
  token.focus();

  async function send(event) {
    event.preventDefault();
    button.disabled = true;
    const tried = token.value.trim();
    try {
      session.use(tried);
      await enter();
    } catch (error) {
      session.use("");
      token.select();
      fill(errors, problems(error)).firstChild.focus();
    } finally {
      button.disabled = false;
    }
  }
}
