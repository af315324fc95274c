// Who is signed in. The token lives in sessionStorage: it ends with the tab, and no other site's page can reach it.

const KEY = "bulkhead.token";
let token = sessionStorage.getItem(KEY) ?? "";
const listeners = new Set();

// `bulkhead web` prints an address that ends in #token=...: what stands behind # is sent to no server.
const carried = /^#token=([A-Za-z0-9._~+/=-]+)$/.exec(location.hash);
if (carried) {
  use(carried[1]);
  history.replaceState(null, "", "#/");
}

// "" is none.
export function use(value) {
  token = value;
  if (value) sessionStorage.setItem(KEY, value);
  else sessionStorage.removeItem(KEY);
}

export const current = () => token;

// `words`: why, for whoever is asked to sign in again.
export function forget(words) {
  use("");
  for (const listener of listeners) listener(words);
}

export const onForgotten = (listener) => listeners.add(listener);
