/**
 * The browser client of the chat relay: one ES module on the browser's own WebSocket.
 *
 *     const relay = new RelayClient('wss://example.org/ws');
 *     const answer = relay.chat({ messages: 'Why is the sky blue?' });
 *     for await (const event of answer) if (event.type === 'text') show(event.text);
 *
 * A dropped connection is taken up again where it broke: nothing missing, nothing twice.
 */
import { Answer, Session, backoff, eventOf, isEvent, judgeSilence, merge } from './relay-session.js';

const SUBPROTOCOL = 'relay.v1';
const SECRET_ALPHABET = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_';
const DEFAULT_HEARTBEAT = 20_000;
const OPEN_TIMEOUT = 10_000;
const PROBE_TIMEOUT = 5_000;

/** `length` characters of `A-Za-z0-9_-`, six random bits each. */
export function randomName(length) {
  const bytes = crypto.getRandomValues(new Uint8Array(length));
  return Array.from(bytes, (byte) => SECRET_ALPHABET[byte & 63]).join('');
}

/** The relay's address beside the page: `/ws` on the page's own host. */
export function sameOriginUrl(location = globalThis.location) {
  return `${location.protocol === 'https:' ? 'wss:' : 'ws:'}//${location.host}/ws`;
}

/** An answer that ended in an error: what the relay said, as an `Error`. */
export class RelayError extends Error {
  constructor(frame) {
    const { code, message, retryable = false, retry_after = null, attempts = [] } = frame;
    super(message);
    this.name = 'RelayError';
    this.code = code;
    this.retryable = retryable;
    this.retryAfter = retry_after;
    this.attempts = attempts;
    this.frame = frame;
  }
}

class Emitter {
  #listeners = new Map();

  /** Call `listener` with each event of `type`; returns a function that removes the listener. */
  on(type, listener) {
    if (!this.#listeners.has(type)) this.#listeners.set(type, new Set());
    this.#listeners.get(type).add(listener);
    return () => this.#listeners.get(type).delete(listener);
  }

  /** For the client's own use. */
  emit(event) {
    for (const type of [event.type, '*']) {
      for (const listener of this.#listeners.get(type) ?? []) listener(event);
    }
  }
}

/** A running chat, as `RelayClient.chat` returns it. */
export class Chat extends Emitter {
  #client;

  constructor(client, answer) {
    super();
    this.#client = client;
    this.answer = answer;
  }

  /** The chat's id, also its correlation id on the wire. */
  get id() {
    return this.answer.id;
  }

  /** The text so far, without what a fallback discarded. */
  get text() {
    return this.answer.text;
  }

  /** Whether the answer ended, by `done` or by `error`. */
  get finished() {
    return this.answer.finished;
  }

  /** Ask the relay to stop; the answer then ends with `done` and `cancelled`. */
  cancel() {
    this.#client.cancel(this.id);
  }

  /** The final `done`; rejects with `RelayError` where the answer failed. */
  result() {
    return new Promise((resolve, reject) => {
      const settle = () => {
        if (this.answer.error) reject(new RelayError(this.answer.error));
        else resolve({ ...eventOf(this.answer.done), text: this.text });
      };
      if (this.finished) settle();
      else for (const type of ['done', 'error']) this.on(type, settle);
    });
  }

  /** For the client's own use: the answer was changed by `frame`. */
  tell(frame) {
    const { error, done } = this.answer;
    if (error) this.emit({ type: 'error', error: new RelayError(error) });
    else if (done) this.emit(eventOf(done));
    else if (isEvent(frame)) this.emit(eventOf(frame));
  }

  /**
   * The events from the beginning. A reader that starts late gets all fallbacks first, then
   * the text so far as one piece; adjacent text that waits is merged. Throws `RelayError` if
   * the answer failed.
   */
  async *[Symbol.asyncIterator]() {
    const queue = soFar(this.answer);
    let wake = () => {};
    const stop = this.on('*', (event) => {
      merge(queue, event);
      wake();
    });
    try {
      for (;;) {
        while (queue.length) {
          const event = queue.shift();
          if (event.type === 'error') throw event.error;
          yield event;
          if (event.type === 'done') return;
        }
        await new Promise((resolve) => {
          wake = resolve;
        });
      }
    } finally {
      stop();
    }
  }
}

function soFar(answer) {
  const { start, fallbacks, reasoning, text, toolCalls, done, error } = answer;
  const events = start ? [start, ...fallbacks].map(eventOf) : [];
  if (reasoning) events.push({ type: 'reasoning', text: reasoning });
  if (text) events.push({ type: 'text', text });
  for (const call of toolCalls) events.push({ ...call, type: 'toolCall' });
  if (error) events.push({ type: 'error', error: new RelayError(error) });
  else if (done) events.push(eventOf(done));
  return events;
}

/**
 * A client of one relay. Events: `status` (`state`: 'connecting', 'online', 'waiting' with
 * `delay` in ms, 'stopped' with `error`, 'closed'), `ready` (`frame`), `problem` (`frame`).
 */
export class RelayClient extends Emitter {
  #session;
  #socketClass;
  #chats = new Map();
  #links = new Set();
  #timer = null;
  #closed = false;
  #hints = new AbortController();

  /** `options`: `token`, `session` (the secret of one to resume), `WebSocket` (another class). */
  constructor(url = sameOriginUrl(), options = {}) {
    super();
    this.url = url;
    this.state = 'idle';
    this.ready = null;
    this.#session = new Session(options.session ?? randomName(32), options.token ?? null);
    this.#socketClass = options.WebSocket ?? globalThis.WebSocket;
    this.#listenForHints();
  }

  /** The relay's providers, its default first; empty before `ready`. */
  get providers() {
    return this.ready?.providers ?? [];
  }

  /** Connect now, unless a chat did it already. */
  connect() {
    this.#do(this.#session.connect());
  }

  /** Use another token from the next connection on. */
  setToken(token) {
    this.#session.token = token;
  }

  /** Send a chat; `request` has the fields of the `chat` frame. */
  chat({ id = randomName(16), messages, ...rest }) {
    if (this.#closed) throw new Error('this client is closed');
    if (this.#chats.has(id)) throw new Error(`a chat with the id ${id} is already running`);
    const turns = typeof messages === 'string' ? [{ role: 'user', content: messages }] : messages;
    const given = Object.entries(rest).filter(([, value]) => value !== undefined && value !== null);
    const answer = new Answer(id, { ...Object.fromEntries(given), messages: turns });
    const chat = new Chat(this, answer);
    this.#chats.set(id, chat);
    this.#do(this.#session.add(answer));
    return chat;
  }

  /** Cancel the chat of that id, if it is running. */
  cancel(id) {
    this.#do(this.#session.cancel(id));
  }

  /** If the client waits, try to connect at once; send a ping on a silent connection. */
  nudge() {
    if (this.#timer?.reconnect) this.#timer.fire();
    for (const link of this.#links) link.probe();
  }

  /** Close for good. Running answers go on at the relay for its grace period. */
  close() {
    this.#closed = true;
    this.#hints.abort();
    this.#timer?.cancel();
    for (const link of [...this.#links]) link.close();
    this.#status('closed');
  }

  #do(actions) {
    for (const action of actions) this.#perform(action);
  }

  #perform(action) {
    switch (action.do) {
      case 'send':
        return action.link.send(action.frame);
      case 'open':
        return this.#openLater(action);
      case 'close':
        return action.link.close();
      case 'tell':
        return this.#tell(action);
      case 'ready':
        this.ready = action.frame;
        this.#status('online');
        return this.emit({ type: 'ready', frame: action.frame });
      case 'problem':
        return this.emit({ type: 'problem', frame: action.frame });
      case 'stop':
        this.#timer?.cancel();
        return this.#status('stopped', { error: new RelayError(action.error) });
    }
  }

  #tell({ answer, frame }) {
    const chat = this.#chats.get(answer.id);
    if (answer.finished) this.#chats.delete(answer.id);
    chat?.tell(frame);
  }

  #openLater({ attempt, delay }) {
    if (this.#closed) return;
    const wait = delay ?? (this.state === 'idle' || this.state === 'stopped' ? 0 : backoff(attempt, Math.random()));
    if (wait > 0 && delay === undefined) this.#status('waiting', { delay: wait });
    this.#timer = timer(wait, () => this.#open());
    this.#timer.reconnect = true;
  }

  #open() {
    this.#timer = null;
    if (this.state !== 'online') this.#status('connecting');
    const link = new Link(this.url, this.#socketClass, {
      opened: () => this.#do(this.#session.opened(link)),
      received: (frame) => {
        if (frame.type === 'ready') link.expectHeartbeat(frame.heartbeat * 1000 || DEFAULT_HEARTBEAT);
        this.#do(this.#session.received(link, frame));
      },
      closed: (code) => {
        this.#links.delete(link);
        if (!this.#closed) this.#do(this.#session.closed(link, code));
      },
    });
    this.#links.add(link);
  }

  #status(state, more = {}) {
    this.state = state;
    this.emit({ type: 'status', state, ...more });
  }

  /** The browser notices first that the network is back or the page is visible again. */
  #listenForHints() {
    const { signal } = this.#hints;
    const nudge = () => this.nudge();
    globalThis.addEventListener?.('online', nudge, { signal });
    globalThis.addEventListener?.('pageshow', nudge, { signal });
    const document = globalThis.document;
    document?.addEventListener('visibilitychange', () => document.visibilityState === 'visible' && nudge(), { signal });
  }
}

function timer(delay, action) {
  const handle = setTimeout(action, delay);
  const cancel = () => clearTimeout(handle);
  return { cancel, fire: () => (cancel(), action()) };
}

/** One socket: sends and receives JSON, and detects a dead connection. */
class Link {
  #socket;
  #on;
  #watch;
  #heard = Date.now();
  #over = false;

  constructor(url, WebSocketClass, on) {
    this.heartbeat = DEFAULT_HEARTBEAT;
    this.#on = on;
    this.#socket = new WebSocketClass(url, SUBPROTOCOL);
    this.#watch = timer(OPEN_TIMEOUT, () => this.#end(1006));
    this.#socket.onopen = () => {
      this.#watchIn(this.heartbeat);
      on.opened();
    };
    this.#socket.onmessage = ({ data }) => this.#received(data);
    this.#socket.onclose = ({ code }) => this.#end(code);
  }

  send(frame) {
    if (this.#socket.readyState === 1) this.#socket.send(JSON.stringify(frame));
  }

  /** The server sends at least this often, in ms; a silence twice as long means a dead socket. */
  expectHeartbeat(milliseconds) {
    this.heartbeat = milliseconds;
    this.#watchIn(milliseconds);
  }

  /** Send a ping, and close the socket if no message follows. */
  probe() {
    if (this.#over || this.#socket.readyState !== 1) return;
    const asked = Date.now();
    this.send({ type: 'ping' });
    this.#watch.cancel();
    this.#watch = timer(PROBE_TIMEOUT, () => {
      if (this.#heard < asked) this.#end(1006);
      else this.#watchIn(this.heartbeat);
    });
  }

  close() {
    this.#end(1000);
  }

  #received(data) {
    this.#heard = Date.now();
    let frame;
    try {
      frame = JSON.parse(data);
    } catch {
      return;
    }
    if (frame && typeof frame === 'object') this.#on.received(frame);
  }

  /**
   * One timer a connection, not one a frame. If a timer fires far too late, the page was
   * asleep and messages may be waiting behind it. So the socket is pinged first, not closed.
   */
  #watchIn(delay) {
    this.#watch.cancel();
    const due = Date.now() + delay;
    this.#watch = timer(delay, () => {
      if (Date.now() - due > this.heartbeat) return this.probe();
      const silent = Date.now() - this.#heard;
      const verdict = judgeSilence(silent, this.heartbeat);
      if (verdict === 'dead') return this.#end(1006);
      if (verdict === 'ask') this.send({ type: 'ping' });
      this.#watchIn((verdict === 'ask' ? 2 : 1) * this.heartbeat - silent);
    });
  }

  #end(code) {
    if (this.#over) return;
    this.#over = true;
    this.#watch.cancel();
    this.#socket.onopen = this.#socket.onmessage = this.#socket.onclose = null;
    if (this.#socket.readyState < 2) this.#socket.close(1000);
    this.#on.closed(code);
  }
}
