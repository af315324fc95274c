// Loading xterm.js. It makes <style> elements and style attributes, which the page's policy forbids for good reason:
// here they become style sheets and properties, which are no markup.

let loading = null;

function adopt() {
  const make = document.createElement.bind(document);
  document.createElement = (name, ...rest) => {
    const wanted = String(name).toLowerCase();
    if (wanted === "style") return sheet(make("span"));
    const element = make(name, ...rest);
    if (wanted === "span") {
      element.setAttribute = (key, value) => {
        if (key === "style") element.style.cssText = value;
        else Element.prototype.setAttribute.call(element, key, value);
      };
    }
    return element;
  };
}

// A hidden element in the place of a <style>; what it is given as its text goes into a sheet of the document's.
function sheet(element) {
  const rules = new CSSStyleSheet();
  document.adoptedStyleSheets.push(rules);
  element.hidden = true;
  Object.defineProperty(element, "textContent", { set: (text) => rules.replaceSync(text), get: () => "" });
  Object.defineProperty(element, "sheet", { value: rules });
  element.remove = () => {
    const at = document.adoptedStyleSheets.indexOf(rules);
    if (at >= 0) document.adoptedStyleSheets.splice(at, 1);
    Element.prototype.remove.call(element);
  };
  return element;
}

export function load() {
  loading ??= (async () => {
    if (document.body.dataset.missing) throw new Error("the terminal needs xterm.js, which is not installed: run scripts/setup on the host");
    adopt();
    const link = document.createElement("link");
    link.rel = "stylesheet";
    link.href = new URL("../vendor/xterm.css", import.meta.url).href;
    document.head.append(link);
    const [{ Terminal }, { FitAddon }] = await Promise.all([import("../vendor/xterm.js"), import("../vendor/xterm-fit.js")]);
    return { Terminal, FitAddon };
  })();
  return loading;
}
