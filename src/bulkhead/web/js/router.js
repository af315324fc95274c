// Addresses of views: #/instances/web/logs. What stands behind # never leaves the browser.

const routes = [];
let leave = null;
let host = null;
let changed = null;

// "/instances/:name/:tab?" -> view(parameters) => { title, element, leave?, focus? }
export function route(pattern, view) {
  const names = [];
  const source = pattern.replace(/\/:([a-z]+)(\?)?/g, (_, name, optional) => {
    names.push(name);
    return optional ? "(?:/([^/]+))?" : "/([^/]+)";
  });
  routes.push({ expression: new RegExp(`^${source}$`), names, view });
}

export const path = () => location.hash.replace(/^#/, "").split("?")[0] || "/";
export const query = () => new URLSearchParams(location.hash.split("?")[1] ?? "");

export function go(to) {
  if (location.hash === `#${to}`) show();
  else location.hash = to;
}

export const link = (...parts) => `#/${parts.map(encodeURIComponent).join("/")}`;

export function begin(element, onChange) {
  host = element;
  changed = onChange;
  window.addEventListener("hashchange", show);
  show();
}

export function end() {
  window.removeEventListener("hashchange", show);
  leave?.();
  leave = null;
}

export function show() {
  const where = path();
  for (const { expression, names, view } of routes) {
    const match = expression.exec(where);
    if (!match) continue;
    let parameters;
    try {
      parameters = Object.fromEntries(names.map((name, index) => [name, match[index + 1] === undefined ? undefined : decodeURIComponent(match[index + 1])]));
    } catch {
      break;
    }
    leave?.();
    leave = null;
    const made = view(parameters);
    leave = made.leave ?? null;
    host.replaceChildren(made.element);
    document.title = `${made.title} · Bulkhead`;
    changed(where, made.title);
    return;
  }
  go("/");
}
