// What changes by itself: one stream of events and one request for the figures every other second, however many views
// look at them. Both rest while nobody looks at the page.

import * as api from "./api.js";

const POLL = 2000;
const ELSEWHERE = 5; // polls after which a fleet's instances are asked for anew
const KEEP = 150; // figures of each instance: five minutes
const SETTLE = 300; // milliseconds in which events of the past follow an answer that has begun
const RETRY = [500, 1000, 2000, 5000, 10000];

export const instances = new Map();
export const histories = new Map();
export const events = [];
export let connected = true;
export let loaded = false;
export let told = false; // whether the events of the past are known

const listeners = new Set();
let aborter = null;
let since = 0;
let poll = 0;
let polls = 0;
let refreshing = null;
let again = false;
let era = 0; // who asked before somebody else signed in gets no answer
let ahead = 0; // seconds that the daemon's clock is ahead of this one
let wanted = false;

// `listener(what)`: "instances", "stats", "events" (with those that are new) or "connected". Returns how to stop listening.
export function listen(listener) {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

const tell = (what, detail) => { for (const listener of [...listeners]) listener(what, detail); };

export function start() {
  wanted = true;
  document.addEventListener("visibilitychange", look);
  look();
}

export function stop() {
  wanted = false;
  document.removeEventListener("visibilitychange", look);
  rest();
  era += 1;
  refreshing = null;
  news.length = 0;
  instances.clear();
  histories.clear();
  events.length = 0;
  since = 0;
  loaded = false;
  told = false;
}

function look() {
  if (!wanted || document.hidden) rest();
  else if (!aborter) {
    aborter = new AbortController();
    follow(aborter.signal);
    measure(aborter.signal);
  }
}

function rest() {
  aborter?.abort();
  aborter = null;
  clearTimeout(poll);
}

function online(now) {
  if (connected !== now) {
    connected = now;
    tell("connected");
  }
}

async function follow(signal) {
  for (let tries = 0; !signal.aborted; tries += 1) {
    try {
      await refresh();
      online(true);
      const begin = since || Date.now() / 1000 - 86400;
      for await (const event of api.lines("GET", "/v1/events", { query: { since: begin, follow: true }, signal, opened: () => setTimeout(past, SETTLE, era) })) {
        tries = 0;
        note(event);
      }
    } catch (error) {
      if (signal.aborted || error.status === 401) return;
      if (error.kind === "unavailable") online(false);
    }
    await new Promise((resolve) => setTimeout(resolve, RETRY[Math.min(tries, RETRY.length - 1)]));
  }
}

function note(event) {
  if (event.when < since || events.some((known) => known.when === event.when && known.id === event.id && known.action === event.action)) return;
  since = event.when;
  events.push(event);
  if (events.length > 1000) events.splice(0, events.length - 1000);
  news.push(event);
  soon ||= setTimeout(inform, 120);
}

// However many events come at once, and a day of a busy host comes at first, they are told once, and the list is asked
// for once.
const news = [];
let soon = 0;
function inform() {
  soon = 0;
  const found = news.splice(0);
  if (!found.length) return;
  told = true;
  tell("events", found);
  if (found.some((event) => event.kind === "instance")) refresh().catch(() => {});
}

// Where no event has come by now, there was none.
function past(asked) {
  if (told || asked !== era) return;
  told = true;
  tell("events", []);
}

// Never more than one request at a time; what comes meanwhile is one more after it.
export function refresh() {
  if (refreshing) {
    again = true;
    return refreshing;
  }
  const mine = era;
  const asked = (async () => {
    try {
      do {
        again = false;
        const found = await api.get("/v1/instances");
        if (mine !== era) return;
        const ids = new Set();
        for (const instance of found) {
          ids.add(instance.spec.id);
          instances.set(instance.spec.id, instance);
        }
        for (const id of instances.keys()) {
          if (!ids.has(id)) {
            instances.delete(id);
            histories.delete(id);
          }
        }
        loaded = true;
        tell("instances");
      } while (again);
    } finally {
      if (refreshing === asked) refreshing = null;
    }
  })();
  refreshing = asked;
  return asked;
}

// What is shown with the instances that use it comes when they are known: before that nobody would seem to use it.
export const withInstances = (answer) => Promise.all([answer, loaded || refresh()]).then(([found]) => found);

async function measure(signal) {
  if (signal.aborted) return;
  try {
    const running = [...instances.values()].some((instance) => instance.state === "running" || instance.state === "paused");
    // Of what happens on other hosts of a fleet no event comes.
    polls += 1;
    if (polls % ELSEWHERE === 0 && [...instances.values()].some((instance) => instance.host)) await refresh();
    if (running) {
      for (const usage of await api.get("/v1/stats", undefined, signal)) record(usage);
      tell("stats");
      online(true);
    }
  } catch (error) {
    if (signal.aborted || error.status === 401) return;
    if (error.kind === "unavailable") online(false);
  }
  poll = setTimeout(() => measure(signal), POLL);
}

const COUNTERS = { cpu: "cpu_seconds", read: "disk_read", written: "disk_written", received: "received", sent: "sent", reads: "disk_reads", writes: "disk_writes" };

function record(usage) {
  const history = histories.get(usage.id) ?? [];
  histories.set(usage.id, history);
  const before = history.at(-1)?.usage;
  // A counter that went back is another start's.
  if (before && usage.cpu_seconds < before.cpu_seconds) history.length = 0;
  ahead = usage.when - Date.now() / 1000;
  const last = history.at(-1)?.usage;
  const seconds = last ? usage.when - last.when : 0;
  if (last && seconds <= 0) return;
  const point = { when: usage.when, usage, memory: usage.memory, disk: usage.disk_used };
  for (const [name, counter] of Object.entries(COUNTERS)) {
    point[name] = last && typeof usage[counter] === "number" && typeof last[counter] === "number" ? Math.max(0, (usage[counter] - last[counter]) / seconds) : null;
  }
  history.push(point);
  if (history.length > KEEP) history.shift();
}

// By the daemon's clock, in which everything is told.
export const now = () => Date.now() / 1000 + ahead;
export const latest = (id) => histories.get(id)?.at(-1);
export const find = (name) => [...instances.values()].find((instance) => instance.spec.name === name || instance.spec.id === name);
