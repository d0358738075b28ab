/** The websockets of one terminal, each by its number: what the core's terminal says goes out, and what comes is handed to it. */

import { say } from "../model";
import type { Open } from "../terminal/view";
import { overSocket, type SocketTerminal, type Wire } from "../core";
import { dialTerminal, whyNot } from "./api";

/** More than this that waits in the browser is not taken; the core keeps it, where it can be taken back. */
const FULL = 256 * 1024;
/** A browser does not tell when it has sent what it took. */
const LOOK_AGAIN_MS = 50;

/** What a `session.attach` says beside the session and the channel: the query of the websocket. */
type Attach = { method: string; params: Record<string, string | number | boolean | null> };

export const overLocal =
  (session: string): Open =>
  (viewer, changed) => {
    let current: { channel: number; socket: WebSocket } | null = null;
    let blocked = 0;
    let terminal: SocketTerminal | null = null;
    const of = (channel: number) => (current?.channel === channel && current.socket.readyState === WebSocket.OPEN ? current.socket : null);

    const wire: Wire = {
      attach(channel, call) {
        const { params } = JSON.parse(call) as Attach;
        const query = new URLSearchParams();
        for (const [name, value] of Object.entries(params)) {
          if (value !== null && name !== "session" && name !== "channel") query.set(name, String(value));
        }
        const socket = dialTerminal(session, query);
        current = { channel, socket };
        let answered = false;
        socket.onmessage = ({ data }: MessageEvent<string | ArrayBuffer>) => {
          answered = true;
          if (typeof data === "string") terminal?.socketText(channel, data);
          else terminal?.socketMessage(channel, new Uint8Array(data));
        };
        socket.onclose = ({ reason }) => {
          if (answered) terminal?.socketClosed(channel, reason);
          else void whyNot(session).then((body) => terminal?.socketRefused(channel, JSON.stringify(body)));
        };
      },
      send(channel, message) {
        const socket = of(channel);
        if (!socket) return false;
        if (socket.bufferedAmount > FULL) {
          clearTimeout(blocked);
          blocked = window.setTimeout(() => terminal?.socketWritable(channel), LOOK_AGAIN_MS);
          return false;
        }
        // What is given is memory of the core, which another call may move.
        socket.send(message.slice());
        return true;
      },
      ask: (channel, text) => of(channel)?.send(text),
      hangUp(channel) {
        if (current?.channel !== channel) return;
        const { socket } = current;
        current = null;
        socket.onmessage = socket.onclose = null;
        socket.close();
      },
      say: (text) => say(text, true),
    };
    const opened = overSocket(session, viewer, changed, wire);
    terminal = opened;
    opened.socketBegin();
    return opened;
  };
