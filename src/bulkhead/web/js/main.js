// Where the page begins: signing in, the frame around every view, and the keys.

import * as api from "./api.js";
import * as live from "./live.js";
import * as router from "./router.js";
import * as session from "./session.js";
import { showKeys, watchKeys } from "./keys.js";
import { registerViews } from "./views.js";
import { closeAll } from "./dialog.js";
import { fill, h, icon, text } from "./dom.js";
import { announce, clear } from "./say.js";
import { gate } from "./gate.js";
import { me, setMe, may } from "./me.js";
import { beginTheme, nextTheme, themeWords } from "./theme.js";

const app = document.getElementById("app");
const NAV = [
  ["", [["/", "Overview", "host"], ["/instances", "Instances", "instances"], ["/images", "Images", "images"]]],
  ["Resources", [["/networks", "Networks", "networks"], ["/volumes", "Volumes", "volumes"], ["/secrets", "Secrets", "secrets"], ["/snapshots", "Snapshots", "snapshots"], ["/plans", "Plans", "plans"]]],
  ["Account", [["/events", "Events", "events"], ["/usage", "Usage", "usage"], ["/audit", "Audit", "audit", "host"], ["/tenants", "Tenants", "tenants", "tenants"]]],
];

async function begin() {
  beginTheme();
  // An address of a view stands behind #, so the link that skips the navigation moves the focus itself.
  document.querySelector(".skip").addEventListener("click", (event) => {
    event.preventDefault();
    document.getElementById("content")?.focus();
  });
  registerViews();
  session.onForgotten((words) => { leave(); gate(app, enter, words); });
  watchKeys();
  if (document.body.dataset.door === "token" && !session.current()) {
    gate(app, enter);
    return;
  }
  announce("Bulkhead is loading.");
  try {
    await enter();
  } catch (error) {
    if (error.status === 401) gate(app, enter);
    else unreachable(error);
  }
}

function unreachable(error) {
  announce(error.message);
  fill(app, h("main.gate", { id: "content" }, h("form", { onsubmit: (event) => { event.preventDefault(); location.reload(); } }, h("h1", error.message), error.hint && h("p.muted", error.hint), h("button.primary", "Try again"))));
}

// Throws where the token is none.
export async function enter() {
  setMe(await api.whoami());
  api.setSignedIn(true);
  live.start();
  frame();
}

function leave() {
  api.setSignedIn(false);
  live.stop();
  router.end();
  closeAll();
  clear();
}

function frame() {
  const main = h("main.content", { id: "content", tabIndex: -1 });
  const stale = h("div.stale", { role: "status", hidden: live.connected }, "The daemon does not answer. What is shown may be old; the page tries again by itself.");
  const view = h("div");
  const links = new Map();
  const side = h("aside.side", brand(), h("nav.nav", { "aria-label": "Views" }, NAV.map(([title, entries]) => {
    const shown = entries.filter(([, , , ability]) => !ability || may(ability));
    return shown.length ? [title && h("h2", title), shown.map(([path, label, picture]) => {
      const link = h("a", { href: `#${path}` }, icon(picture), label, path === "/instances" && h("span.count"));
      links.set(path, link);
      return link;
    })] : [];
  })), foot());
  const menu = h("button.quiet.icon-only", { "aria-expanded": "false", "aria-label": "Menu", onclick: () => toggle() }, icon("menu"));
  const toggle = (open = !side.hasAttribute("data-open")) => {
    side.toggleAttribute("data-open", open);
    menu.setAttribute("aria-expanded", String(open));
  };
  put();
  function put() {
    main.append(stale, view);
    fill(app, h("div.shell", h("header.top", brand(), menu), side, main));
  }
  live.listen((what) => {
    if (what === "connected") stale.hidden = live.connected;
    if (what === "instances") text(links.get("/instances").querySelector(".count"), live.instances.size || "");
  });
  let first = true;
  router.begin(view, (path, title) => {
    for (const [to, link] of links) {
      if (to === "/" ? path === "/" : path === to || path.startsWith(`${to}/`) || (to === "/instances" && path === "/create")) link.setAttribute("aria-current", "page");
      else link.removeAttribute("aria-current");
    }
    toggle(false);
    if (!first) {
      // Where a click leads, the focus and a reader follow.
      view.querySelector("[data-first-focus], h1")?.focus({ preventScroll: true });
      window.scrollTo(0, 0);
    }
    announce(title);
    first = false;
  });
}

const brand = () => h("a.brand", { href: "#/" }, h("span.mark", { "aria-hidden": "true" }, h("i"), h("i"), h("i")), "Bulkhead");

function foot() {
  const theme = h("button.quiet", { type: "button", onclick: () => { nextTheme(); text(label, themeWords()); announce(themeWords()); } }, icon("theme"));
  const label = h("span", themeWords());
  theme.append(label);
  const who = me();
  return h("div.foot",
    h("div.who.small", h("b", who.name), h("span.muted", who.words)),
    theme,
    h("button.quiet", { type: "button", onclick: showKeys }, icon("help"), "Keys"),
    session.current() && h("button.quiet", { type: "button", onclick: () => session.forget("You are signed out.") }, icon("out"), "Sign out"));
}

begin();
