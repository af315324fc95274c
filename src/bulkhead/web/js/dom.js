// Building the page. Whatever an instance, an image or a log says becomes text nodes and plain attributes, never markup:
// there is no other way to put anything into the page than this file.

const SVG = "http://www.w3.org/2000/svg";
const PROPERTIES = new Set(["value", "checked", "disabled", "hidden", "selected", "open", "indeterminate", "readOnly", "required", "type", "htmlFor", "min", "max", "step", "placeholder", "name", "tabIndex", "spellcheck", "autocomplete", "multiple", "rows"]);
const ATTRIBUTES = /^(role|title|lang|dir|scope|colspan|for|aria-[a-z]+|data-[a-z-]+|pattern|inputmode|maxlength|list|label|viewBox|d|x|y|width|height|rx|points|cx|cy|r)$/;

// h("button.quiet", { onclick, "aria-label": "Close" }, "text", child, [children])
export function h(what, ...rest) {
  const [tag, ...classes] = what.split(".");
  const element = document.createElement(tag);
  if (classes.length) element.className = classes.join(" ");
  const first = rest[0];
  if (first && typeof first === "object" && !(first instanceof Node) && !Array.isArray(first)) {
    for (const [name, value] of Object.entries(rest.shift())) set(element, name, value);
  }
  return put(element, ...rest);
}

export function set(element, name, value) {
  if (value === undefined || value === null) return;
  if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
  else if (name === "class") element.classList.add(...value.split(" ").filter(Boolean));
  else if (name === "href") element.setAttribute("href", local(value));
  else if (name === "style") for (const [key, text] of Object.entries(value)) element.style.setProperty(key, text);
  else if (name === "id") element.id = value;
  else if (PROPERTIES.has(name)) element[name] = value;
  else if (ATTRIBUTES.test(name)) value === false ? element.removeAttribute(name) : element.setAttribute(name, value === true ? "" : String(value));
  else throw new Error(`no attribute ${name} is ever set`);
}

// Links lead to this page's own views.
function local(href) {
  if (!href.startsWith("#") && !href.startsWith("blob:")) throw new Error(`no link leads to ${href}`);
  return href;
}

export function put(element, ...children) {
  for (const child of children.flat(Infinity)) {
    if (child === null || child === undefined || child === false) continue;
    element.append(child instanceof Node ? child : document.createTextNode(String(child)));
  }
  return element;
}

export function fill(element, ...children) {
  element.replaceChildren();
  return put(element, ...children);
}

// Text that is the same stays untouched: selections and readers' places are kept.
export function text(element, value) {
  const wanted = String(value ?? "");
  if (element.textContent !== wanted) element.textContent = wanted;
}

// Keep `parent`'s children in step with `items`: one element per key, made once, moved and updated in place.
export function keyed(parent, items, key, make, update) {
  const have = (parent.keyedChildren ??= new Map());
  const wanted = new Set();
  let place = parent.firstChild;
  for (const item of items) {
    const name = key(item);
    wanted.add(name);
    let element = have.get(name);
    if (!element) have.set(name, (element = make(item)));
    update?.(element, item);
    if (element === place) place = place.nextSibling;
    else parent.insertBefore(element, place);
  }
  for (const [name, element] of have) {
    if (!wanted.has(name)) {
      element.remove();
      have.delete(name);
    }
  }
}

const ICONS = {
  host: "M3 4h18v6H3zM3 14h18v6H3zM7 7h.01M7 17h.01",
  instances: "M4 4h7v7H4zM13 4h7v7h-7zM4 13h7v7H4zM13 13h7v7h-7z",
  images: "M12 3l9 5-9 5-9-5zM3 12l9 5 9-5M3 16l9 5 9-5",
  networks: "M12 3v6M5 15v-3h14v3M12 9v3M3 15h4v5H3zM10 15h4v5h-4zM17 15h4v5h-4z",
  volumes: "M4 6c0-1.7 3.6-3 8-3s8 1.3 8 3-3.6 3-8 3-8-1.300-8-3zM4 6v12c0 1.700 3.600 3 8 3s8-1.300 8-3V6M4 12c0 1.700 3.600 3 8 3s8-1.300 8-3",
  snapshots: "M4 7h3l2-3h6l2 3h3v13H4zM12 17a4 4 0 100-8 4 4 0 000 8z",
  events: "M4 6h16M4 12h16M4 18h10",
  plans: "M4 20V10M10 20V4M16 20v-8M22 20H2",
  usage: "M6 3h12v18l-3-2-3 2-3-2-3 2zM9 8h6M9 12h6",
  audit: "M12 3l8 3v6c0 5-3.500 8-8 9-4.500-1-8-4-8-9V6zM9 12l2 2 4-4",
  tenants: "M9 11a4 4 0 100-8 4 4 0 000 8zM2 21c0-4 3-6 7-6s7 2 7 6M17 11a3 3 0 100-6M22 20c0-3-1.500-5-4-5.500",
  plus: "M12 5v14M5 12h14",
  play: "M7 4l13 8-13 8z",
  stop: "M6 6h12v12H6z",
  restart: "M20 12a8 8 0 11-2.300-5.700M20 3v5h-5",
  pause: "M8 5v14M16 5v14",
  trash: "M4 7h16M9 7V4h6v3M6 7l1 14h10l1-14M10 11v6M14 11v6",
  terminal: "M4 5h16v14H4zM7 9l3 3-3 3M12 15h5",
  download: "M12 4v11M7 11l5 5 5-5M4 20h16",
  search: "M11 18a7 7 0 100-14 7 7 0 000 14zM16 16l5 5",
  menu: "M4 6h16M4 12h16M4 18h16",
  close: "M6 6l12 12M18 6L6 18",
  theme: "M12 17a5 5 0 100-10 5 5 0 000 10zM12 1v3M12 20v3M1 12h3M20 12h3M4.200 4.200l2.100 2.100M17.700 17.700l2.100 2.100M4.200 19.800l2.100-2.100M17.700 6.300l2.100-2.100",
  out: "M15 4h5v16h-5M10 8l-4 4 4 4M6 12h10",
  move: "M4 8h14M14 4l4 4-4 4M20 16H6M10 12l-4 4 4 4",
  secrets: "M8 16a4 4 0 100-8 4 4 0 000 8zM12 12h9v4M17 12v3",
  fold: "M6 9l6 6 6-6",
  help: "M12 21a9 9 0 100-18 9 9 0 000 18zM9.500 9.500a2.500 2.500 0 114 2c-1 .7-1.500 1.200-1.500 2.500M12 17h.01",
  logs: "M5 3h14v18H5zM8 8h8M8 12h8M8 16h5",
  camera: "M4 7h3l2-3h6l2 3h3v13H4zM12 17a4 4 0 100-8 4 4 0 000 8z",
};

export function icon(name) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", "0 0 24 24");
  svg.setAttribute("aria-hidden", "true");
  svg.setAttribute("class", "icon");
  const path = document.createElementNS(SVG, "path");
  path.setAttribute("d", ICONS[name]);
  svg.append(path);
  return svg;
}
