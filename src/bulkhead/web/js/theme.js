// Light, dark, or as the system has it. Kept for the next visit.

const KEY = "bulkhead.theme";
const WORDS = { auto: "Theme: system", light: "Theme: light", dark: "Theme: dark" };
const ORDER = ["auto", "light", "dark"];
let theme = "auto";
const listeners = new Set();

export function beginTheme() {
  theme = ORDER.includes(localStorage.getItem(KEY)) ? localStorage.getItem(KEY) : "auto";
  apply();
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", tell);
}

export function nextTheme() {
  theme = ORDER[(ORDER.indexOf(theme) + 1) % ORDER.length];
  localStorage.setItem(KEY, theme);
  apply();
}

export const themeWords = () => WORDS[theme];

function apply() {
  document.documentElement.dataset.theme = theme;
  tell();
}

const tell = () => { for (const listener of [...listeners]) listener(); };

export function onTheme(listener) {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

// A colour of the style sheet as the canvas needs it.
export function colour(name) {
  const probe = document.createElement("span");
  probe.style.color = `var(--${name})`;
  document.body.append(probe);
  const found = getComputedStyle(probe).color;
  probe.remove();
  return found;
}
