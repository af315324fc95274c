// The public API, and nothing else.

import * as session from "./session.js";

// A token that stops to be good signs out; one that is tried for the first time does not.
let signedIn = false;
export const setSignedIn = (now) => { signedIn = now; };

// What went wrong, as the API says it (RFC 9457), or what could not even be asked.
export class Problem extends Error {
  constructor(details) {
    super(details.detail || details.title || "something failed");
    this.kind = details.type ?? "error";
    this.status = details.status ?? 0;
    this.hint = details.hint ?? "";
    this.problems = details.problems?.length ? details.problems : [{ what: this.message, hint: this.hint }];
  }
}

const UNREACHABLE = { type: "unavailable", detail: "the daemon does not answer", hint: "it may be restarting: this page tries again" };

function headers(body) {
  const found = {};
  if (session.current()) found.Authorization = `Bearer ${session.current()}`;
  if (body !== undefined) found["Content-Type"] = "application/json";
  return found;
}

async function send(method, path, { body, query, signal } = {}) {
  const search = query ? `?${new URLSearchParams(Object.entries(query).filter(([, value]) => value !== undefined && value !== null && value !== ""))}` : "";
  let response;
  try {
    response = await fetch(`${path}${search}`, {
      method, signal, headers: headers(body), body: body === undefined ? undefined : JSON.stringify(body),
      cache: "no-store", credentials: "omit", redirect: "error", referrerPolicy: "no-referrer",
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem(UNREACHABLE);
  }
  if (response.ok) return response;
  throw await told(response);
}

async function told(response) {
  const details = await response.json().catch(() => ({ detail: `${response.status} ${response.statusText}` }));
  const problem = new Problem({ ...details, status: response.status });
  if (response.status === 401 && signedIn) session.forget("Your token is no longer good: it was removed, or has expired. Sign in with another one.");
  return problem;
}

async function call(method, path, options) {
  const response = await send(method, path, options);
  const kind = response.headers.get("content-type") ?? "";
  if (response.status === 204) return null;
  return kind.includes("json") ? response.json() : response.text();
}

export const get = (path, query, signal) => call("GET", path, { query, signal });
export const post = (path, body = {}, query) => call("POST", path, { body, query });
export const patch = (path, body) => call("PATCH", path, { body });
export const put = (path, body) => call("PUT", path, { body });
export const remove = (path, query) => call("DELETE", path, { query });
export const download = async (path, query) => (await send("GET", path, { query })).blob();

// Each object of an NDJSON answer as it comes; an error in its middle is thrown as every other.
export async function* lines(method, path, options = {}) {
  const response = await send(method, path, options);
  options.opened?.();
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) break;
      const parts = (rest + value).split("\n");
      rest = parts.pop();
      for (const part of parts) {
        if (!part) continue;
        const entry = JSON.parse(part);
        if (entry.problem?.detail !== undefined && entry.problem.problems) throw new Problem(entry.problem);
        yield entry;
      }
    }
  } catch (error) {
    if (error instanceof Problem || error.name === "AbortError") throw error;
    throw new Problem(UNREACHABLE);
  } finally {
    reader.cancel().catch(() => {});
  }
}

// An operation that reports its progress: calls `step` with each, returns the result.
export async function operate(path, body, step, signal) {
  for await (const entry of lines("POST", path, { body, signal })) {
    if (entry.step) step?.(entry.step);
    else if ("result" in entry) return entry.result;
  }
  throw new Problem({ detail: "the daemon ended before it was done", hint: "see its log" });
}

export const ref = (name) => encodeURIComponent(name);

export function socketAddress(path) {
  return `${location.protocol === "https:" ? "wss" : "ws"}://${location.host}${path}`;
}

const ALL = ["read", "instances", "exec", "images", "networks", "volumes", "secrets", "tokens", "host", "tenants"];

// Who asks, as the daemon sees it.
export async function whoami() {
  try {
    return described(await get("/v1/whoami"));
  } catch (error) {
    if (error.status !== 404) throw error;
    await get("/v1/ping");
    return described({ user: "root", role: "admin", tenant: null, permissions: ALL });
  }
}

const described = ({ user, role, tenant, permissions }) => ({
  name: user, role, tenant: tenant ?? "", abilities: new Set(permissions),
  words: tenant ? `${role} of ${tenant}` : role,
});
