// The frames of docs/reference/http-api.md, "Streams", over a WebSocket.

import { socketAddress } from "./api.js";
import * as session from "./session.js";

const HEADER = 12, VERSION = 1, STREAM = 1, MOST = 65536;
export const Type = { SIGNAL: 5, RESIZE: 6, DATA: 32, EOF: 33, CREDIT: 34, EXIT: 35, CLOSE: 36, REQUEST: 64, RESPONSE: 65, PROBLEM: 66 };
const PROTOCOL = "bulkhead.frames.v1", TOKEN = "bulkhead.token.";
const CREDIT = 262144;

export function encode(type, payload = new Uint8Array(), channel = 0) {
  const frame = new Uint8Array(HEADER + payload.length);
  const view = new DataView(frame.buffer);
  view.setUint32(0, payload.length, true);
  view.setUint8(4, VERSION);
  view.setUint8(5, type);
  view.setUint8(6, channel);
  view.setUint32(8, STREAM, true);
  frame.set(payload, HEADER);
  return frame;
}

export class Decoder {
  #rest = new Uint8Array();

  *feed(data) {
    let bytes = new Uint8Array(data);
    if (this.#rest.length) {
      const joined = new Uint8Array(this.#rest.length + bytes.length);
      joined.set(this.#rest);
      joined.set(bytes, this.#rest.length);
      bytes = joined;
    }
    let start = 0;
    while (bytes.length - start >= HEADER) {
      const view = new DataView(bytes.buffer, bytes.byteOffset + start);
      const end = start + HEADER + view.getUint32(0, true);
      if (bytes.length < end) break;
      yield { type: view.getUint8(5), channel: view.getUint8(6), payload: bytes.slice(start + HEADER, end) };
      start = end;
    }
    this.#rest = bytes.slice(start);
  }
}

const number = (value) => {
  const payload = new Uint8Array(4);
  new DataView(payload.buffer).setUint32(0, value, true);
  return payload;
};

// One stream. `on`: { opened(response), data(bytes, taken), exit(code, signal), problem(details), closed() };
// `taken()` says that the bytes are shown, after which the daemon may send as many again.
export class Stream {
  #credit = CREDIT;
  #waiting = [];
  #ended = false;

  constructor(path, request, on) {
    const token = session.current();
    // The token travels as a subprotocol: it is in no address, so in no log and no history.
    this.socket = new WebSocket(socketAddress(path), token ? [PROTOCOL, TOKEN + token] : [PROTOCOL]);
    this.socket.binaryType = "arraybuffer";
    const decoder = new Decoder();
    this.socket.addEventListener("open", () => this.socket.send(encode(Type.REQUEST, new TextEncoder().encode(JSON.stringify(request)))));
    this.socket.addEventListener("message", ({ data }) => { for (const frame of decoder.feed(data)) this.#take(frame, on); });
    this.socket.addEventListener("close", () => on.closed?.(this.#ended));
  }

  #take({ type, channel, payload }, on) {
    if (type === Type.RESPONSE) on.opened?.(JSON.parse(new TextDecoder().decode(payload)));
    else if (type === Type.DATA) on.data(payload, () => this.#send(encode(Type.CREDIT, number(payload.length), channel)));
    else if (type === Type.CREDIT) {
      this.#credit += new DataView(payload.buffer).getUint32(0, true);
      this.#flush();
    } else if (type === Type.EXIT) {
      this.#ended = true;
      const view = new DataView(payload.buffer);
      on.exit?.(view.getUint32(0, true), view.getUint32(4, true));
    } else if (type === Type.PROBLEM) {
      this.#ended = true;
      on.problem?.(JSON.parse(new TextDecoder().decode(payload)));
    }
  }

  #send(frame) {
    if (this.socket.readyState === WebSocket.OPEN) this.socket.send(frame);
  }

  write(bytes) {
    for (let start = 0; start < bytes.length; start += MOST) this.#waiting.push(bytes.slice(start, start + MOST));
    this.#flush();
  }

  #flush() {
    while (this.#waiting.length && this.#waiting[0].length <= this.#credit) {
      const portion = this.#waiting.shift();
      this.#credit -= portion.length;
      this.#send(encode(Type.DATA, portion, 0));
    }
  }

  resize(rows, columns) {
    const payload = new Uint8Array(4);
    const view = new DataView(payload.buffer);
    view.setUint16(0, rows, true);
    view.setUint16(2, columns, true);
    this.#send(encode(Type.RESIZE, payload));
  }

  close() {
    this.socket.close();
  }
}
