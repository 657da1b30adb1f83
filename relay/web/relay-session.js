/**
 * The rules of a `relay.v1` client, without sockets, clocks or randomness.
 *
 * `Answer` collects the frames of one chat. `Session` holds all chats of one client over any
 * number of connections and returns the actions to carry out; `relay-client.js` does that.
 */

/** What a client does after a close code: reconnect, reconnect later, or stay away. */
export function afterClose(code) {
  if (code === 4429 || code === 4500) return 'back_off';
  if (code === 1009 || code >= 4400) return 'stop';
  return 'reconnect';
}

const STOPPED = {
  1009: ['too_large', 'The message is too large for this relay. Shorten it and send it again.'],
  4401: ['unauthorized', 'This relay asks for a valid access token.'],
  4403: ['forbidden', 'This relay does not accept connections from here.'],
  4406: ['bad_request', 'The server does not speak relay.v1.'],
};

/** The error that running chats get when the relay closes for good. */
export function closeError(code) {
  const [name, message] = STOPPED[code] ?? ['bad_frame', `The relay closed the connection (${code}).`];
  return { code: name, message, retryable: false };
}

const BASE_DELAY = 400;
const MAX_DELAY = 15_000;
/** How often the same gap is asked for before the answer counts as lost. */
const MAX_ASKS = 8;

/**
 * Milliseconds before try number `attempt` (from 0), `random` in [0, 1): exponential with
 * jitter.
 */
export function backoff(attempt, random) {
  const ceiling = Math.min(MAX_DELAY, BASE_DELAY * 2 ** Math.min(attempt, 10));
  return Math.round(ceiling * (0.5 + random / 2));
}

/** What a silence of `silent` ms means if the server sends at least every `heartbeat` ms. */
export function judgeSilence(silent, heartbeat) {
  if (silent >= 2 * heartbeat) return 'dead';
  return silent >= heartbeat ? 'ask' : 'fine';
}

/** One chat's answer so far, built from its frames. */
export class Answer {
  constructor(id, request) {
    this.id = id;
    this.request = request;
    this.last = -1;
    /** 'waiting' (nothing came), 'streaming', 'done' or 'error'. */
    this.status = 'waiting';
    this.stream = null;
    this.provider = null;
    this.model = null;
    this.text = '';
    this.reasoning = '';
    this.toolCalls = [];
    /** The frames themselves, null before they came. */
    this.start = null;
    this.fallbacks = [];
    this.done = null;
    this.error = null;
  }

  /** Whether the terminal frame was applied. */
  get finished() {
    return this.status === 'done' || this.status === 'error';
  }

  /**
   * Take one numbered frame. Returns 'applied', 'dropped' (a duplicate) or 'gap': then nothing
   * changed, and the caller asks for the records after `last`.
   */
  apply(frame) {
    if (this.finished || frame.seq <= this.last) return 'dropped';
    if ((frame.first ?? frame.seq) !== this.last + 1) return 'gap';
    this.last = frame.seq;
    if (this.status === 'waiting') this.status = 'streaming';
    FOLD[frame.type]?.(this, frame);
    return 'applied';
  }

  /** End the answer by the client's own decision; `error` null means cancelled. */
  end(error) {
    if (error) {
      this.status = 'error';
      this.error = error;
    } else {
      this.status = 'done';
      this.done = { type: 'done', finish_reason: 'cancelled', provider: this.provider, model: this.model };
    }
  }
}

const FOLD = {
  start(answer, frame) {
    answer.start = frame;
    answer.stream = frame.stream;
    answer.provider = frame.provider;
    answer.model = frame.model;
  },
  token(answer, frame) {
    answer.text += frame.text;
  },
  reasoning(answer, frame) {
    answer.reasoning += frame.text;
  },
  tool_call(answer, { type, id, seq, ...call }) {
    answer.toolCalls.push(call);
  },
  fallback(answer, frame) {
    answer.fallbacks.push(frame);
    answer.provider = frame.to.provider;
    answer.model = frame.to.model;
    if (!frame.keep) answer.text = answer.reasoning = '';
  },
  done(answer, frame) {
    answer.status = 'done';
    answer.done = frame;
    answer.provider = frame.provider;
    answer.model = frame.model;
  },
  error(answer, frame) {
    answer.status = 'error';
    answer.error = frame;
  },
};

const TYPE_OF = {
  start: 'start',
  token: 'text',
  reasoning: 'reasoning',
  tool_call: 'toolCall',
  fallback: 'fallback',
  done: 'done',
};

/** Whether a frame is passed on to the chat's reader. */
export function isEvent({ type }) {
  return Object.hasOwn(TYPE_OF, type);
}

/** A frame as an event: all of its fields except those for the client's own use. */
export function eventOf({ id, seq, first, ...fields }) {
  return { ...fields, type: TYPE_OF[fields.type] };
}

/** Add an event to a queue; adjacent waiting text of one type is merged. */
export function merge(queue, event) {
  const tail = queue.at(-1);
  if (isPiece(event) && tail?.type === event.type && isPiece(tail)) {
    queue[queue.length - 1] = { ...tail, text: tail.text + event.text };
  } else queue.push(event);
}

/** Whether an event is text and nothing else, so that it may be merged. */
function isPiece(event) {
  return (event.type === 'text' || event.type === 'reasoning') && Object.keys(event).length === 2;
}

const EXPIRED = {
  code: 'stream_expired',
  message: 'The relay no longer has this answer. Send the message again.',
  retryable: true,
};

/**
 * All chats of one client. Each method returns a list of actions, in order:
 *
 * - `{do: 'send', link, frame}`
 * - `{do: 'open', attempt}` or `{do: 'open', delay}`: open a connection then, report it
 *   by `opened` or, where it failed, by `closed`
 * - `{do: 'close', link}`: it is not needed any more
 * - `{do: 'tell', answer, frame}`: the answer changed; `frame` is what changed it, null
 *   where the client itself ended it
 * - `{do: 'ready', frame}`, `{do: 'problem', frame}`: an error that belongs to no chat
 * - `{do: 'stop', code, error}`: the server wants no reconnect
 *
 * `link` is any value that names a connection.
 */
export class Session {
  /** `secret`: 22 to 64 random characters of `A-Za-z0-9_-`. */
  constructor(secret, token = null) {
    this.secret = secret;
    this.token = token;
    this.chats = new Map();
    this.links = new Map();
    this.current = null;
    this.opening = false;
    this.attempt = 0;
  }

  /** Start connecting, unless a connection is open or being opened. */
  connect() {
    return this.#open({ attempt: this.attempt });
  }

  /** Add a chat: it is sent at once, or as soon as there is a connection. */
  add(answer) {
    const chat = { answer, link: null, sent: false, cancelling: false, gap: null, asks: 0 };
    this.chats.set(answer.id, chat);
    return this.current === null ? this.connect() : this.#attach(chat, this.current);
  }

  /** Cancel a chat: at the server if the chat may have arrived there, else here. */
  cancel(id) {
    const chat = this.chats.get(id);
    if (!chat || chat.cancelling) return [];
    if (!chat.sent) return this.#finish(chat, null, null);
    chat.cancelling = true;
    return chat.link === null ? [] : [send(chat.link, { type: 'cancel', id })];
  }

  /** A connection is open: send `hello` and resume or send every waiting chat. */
  opened(link) {
    this.opening = false;
    this.current = link;
    const waiting = [...this.chats.values()].filter((chat) => chat.link === null);
    const resumed = waiting.filter((chat) => chat.answer.last >= 0);
    const ids = resumed.map((chat) => chat.answer.id);
    this.links.set(link, { draining: false, closing: false, resumed: ids });
    const hello = { type: 'hello', session: this.secret };
    if (this.token) hello.token = this.token;
    if (resumed.length) {
      hello.resume = Object.fromEntries(resumed.map(({ answer }) => [answer.id, answer.last]));
    }
    const actions = [send(link, hello)];
    for (const chat of waiting) actions.push(...this.#attach(chat, link, true));
    return [...actions, ...this.#retire()];
  }

  /** A frame came. Unknown types are ignored. */
  received(link, frame) {
    switch (frame.type) {
      case 'ready':
        return this.#ready(link, frame);
      case 'ping':
        this.attempt = 0;
        return [send(link, frame.t === undefined ? { type: 'pong' } : { type: 'pong', t: frame.t })];
      case 'pong':
        this.attempt = 0;
        return [];
      case 'drain':
        return this.#drain(link, frame.reconnect_after);
      case 'error':
        return Number.isInteger(frame.seq) ? this.#record(link, frame) : this.#refused(link, frame);
      default:
        return Number.isInteger(frame.seq) ? this.#record(link, frame) : [];
    }
  }

  /** A connection ended, or could not be opened (then `code` is 1006). */
  closed(link, code) {
    const state = this.links.get(link);
    this.links.delete(link);
    if (state?.closing) return [];
    if (!state) this.opening = false;
    if (this.current === link) this.current = null;
    const orphans = [...this.chats.values()].filter((chat) => chat.link === link);
    for (const chat of orphans) chat.link = null;
    const rule = afterClose(code);
    if (this.current !== null) return orphans.flatMap((chat) => this.#attach(chat, this.current));
    if (rule === 'stop') return this.#stop(code);
    if (rule === 'back_off') this.attempt = Math.max(this.attempt, 3);
    return this.#open({ attempt: this.attempt++ });
  }

  #open(when) {
    if (this.opening || this.current !== null) return [];
    this.opening = true;
    return [{ do: 'open', ...when }];
  }

  #attach(chat, link, inHello = false) {
    const { id, request, last } = chat.answer;
    Object.assign(chat, { link, sent: true, gap: null });
    const actions = [];
    if (last < 0) actions.push(send(link, { ...request, type: 'chat', id }));
    else if (!inHello) actions.push(send(link, { type: 'resume', id, after: last }));
    if (chat.cancelling) actions.push(send(link, { type: 'cancel', id }));
    return actions;
  }

  #ready(link, frame) {
    const lost = frame.resumed ? [] : (this.links.get(link)?.resumed ?? []);
    const actions = [{ do: 'ready', frame }];
    for (const id of lost) {
      const chat = this.chats.get(id);
      if (chat) actions.push(...this.#finish(chat, EXPIRED, null));
    }
    return actions;
  }

  #record(link, frame) {
    const chat = this.chats.get(frame.id);
    if (!chat) return [];
    const verdict = chat.answer.apply(frame);
    if (verdict === 'gap') return this.#ask(chat, link, frame);
    if (verdict === 'dropped') return [];
    this.attempt = 0;
    Object.assign(chat, { gap: null, asks: 0 });
    const told = { do: 'tell', answer: chat.answer, frame };
    return chat.answer.finished ? [told, ...this.#forget(chat)] : [told];
  }

  /**
   * Ask for the missing records, once: frames already on the way show the same gap. A frame
   * with an older seq than the newest seen, or a terminal frame, shows that the answer to that
   * request has a gap too.
   */
  #ask(chat, link, { type, seq }) {
    if (chat.link !== link) return [];
    const known = chat.gap;
    chat.gap = seq;
    if (known !== null && seq > known && type !== 'done' && type !== 'error') return [];
    chat.asks += 1;
    if (chat.asks > MAX_ASKS) return this.#finish(chat, EXPIRED, null);
    return [send(link, { type: 'resume', id: chat.answer.id, after: chat.answer.last })];
  }

  #refused(link, frame) {
    const chat = this.chats.get(frame.id);
    if (!chat) return [{ do: 'problem', frame }];
    if (frame.code !== 'draining' || chat.answer.last >= 0) return this.#finish(chat, frame, frame);
    chat.link = null;
    return this.#drain(link, (frame.retry_after ?? 1) * 1000);
  }

  #drain(link, delay) {
    const state = this.links.get(link);
    if (!state) return [];
    state.draining = true;
    if (this.current === link) this.current = null;
    if (this.current === null) return this.#open({ delay });
    return [...this.#adopt(), ...this.#retire()];
  }

  /** Move the chats without a connection to the current one. */
  #adopt() {
    const waiting = [...this.chats.values()].filter((chat) => chat.link === null);
    return waiting.flatMap((chat) => this.#attach(chat, this.current));
  }

  #finish(chat, error, frame) {
    chat.answer.end(error);
    return [{ do: 'tell', answer: chat.answer, frame }, ...this.#forget(chat)];
  }

  #forget(chat) {
    this.chats.delete(chat.answer.id);
    return this.#retire();
  }

  /** Close draining connections that carry no chat, once another connection is open. */
  #retire() {
    if (this.current === null) return [];
    const carrying = new Set([...this.chats.values()].map((chat) => chat.link));
    return [...this.links]
      .filter(([link, state]) => state.draining && !state.closing && !carrying.has(link))
      .map(([link, state]) => {
        state.closing = true;
        return { do: 'close', link };
      });
  }

  #stop(code) {
    const error = closeError(code);
    this.opening = false;
    const actions = [{ do: 'stop', code, error }];
    for (const chat of [...this.chats.values()]) {
      if (chat.link === null) actions.push(...this.#finish(chat, error, null));
    }
    return actions;
  }
}

function send(link, frame) {
  return { do: 'send', link, frame };
}
