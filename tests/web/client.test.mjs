/** The browser client on a WebSocket that the test plays. */
import assert from 'node:assert/strict';
import { test } from 'node:test';

import { advice, change, footnote } from '../../relay/web/answer-view.js';
import { RelayClient, RelayError, randomName, sameOriginUrl } from '../../relay/web/relay-client.js';

/** Keeps every socket made; the test opens, answers and closes them. */
function sockets() {
  const made = [];
  class Played {
    constructor(url, protocol) {
      Object.assign(this, { url, protocol, readyState: 0, sent: [] });
      made.push(this);
      Played.onmade?.();
    }
    send(text) {
      this.sent.push(JSON.parse(text));
    }
    close() {
      this.readyState = 3;
    }
    open() {
      this.readyState = 1;
      this.onopen();
    }
    say(frame) {
      this.onmessage({ data: JSON.stringify(frame) });
    }
    drop(code = 1006) {
      this.readyState = 3;
      this.onclose({ code });
    }
  }
  const another = () => new Promise((resolve) => { Played.onmade = () => resolve(made.at(-1)); });
  return { Played, made, another };
}

async function connected() {
  const { Played, another } = sockets();
  const client = new RelayClient('ws://test/ws', { WebSocket: Played });
  const first = another();
  const chat = client.chat({ id: 'a', messages: 'hi', provider: undefined });
  const socket = await first;
  socket.open();
  return { client, chat, socket, another };
}

const START = { type: 'start', id: 'a', seq: 0, stream: 's', provider: 'claude', model: 'm' };
const DONE = { type: 'done', id: 'a', seq: 3, provider: 'claude', model: 'm', finish_reason: 'stop' };
const token = (seq, text) => ({ type: 'token', id: 'a', seq, text });

test('asks for the subprotocol and sends what was given, no more', async () => {
  const { client, socket } = await connected();
  assert.equal(socket.protocol, 'relay.v1');
  assert.match(socket.sent[0].session, /^[A-Za-z0-9_-]{32}$/);
  assert.deepEqual(socket.sent[1], { type: 'chat', id: 'a', messages: [{ role: 'user', content: 'hi' }] });
  client.close();
});

test('iterates from the beginning, also for a reader that comes late', async () => {
  const { client, chat, socket } = await connected();
  socket.say(START);
  socket.say(token(1, 'a'));
  socket.say(token(2, 'b'));
  const seen = [];
  const reading = (async () => {
    for await (const event of chat) seen.push(event.text ?? event.type);
  })();
  socket.say(DONE);
  await reading;
  assert.deepEqual(seen, ['start', 'ab', 'done']);
  assert.equal((await chat.result()).text, 'ab');
  client.close();
});

test('a failed answer throws what the relay said', async () => {
  const { client, chat, socket } = await connected();
  socket.say({ type: 'error', id: 'a', code: 'rate_limited', message: 'slow down', retryable: true, retry_after: 2 });
  await assert.rejects(chat.result(), (error) => error instanceof RelayError && error.code === 'rate_limited' && error.retryAfter === 2);
  await assert.rejects(async () => {
    for await (const event of chat) assert.fail(event.type);
  }, RelayError);
  client.close();
});

test('comes back by itself and resumes with the same secret', async () => {
  const { client, chat, socket, another } = await connected();
  const states = [];
  client.on('status', ({ state }) => states.push(state));
  socket.say(START);
  socket.say(token(1, 'a'));
  const next = another();
  socket.drop();
  const second = await next;
  second.open();
  assert.deepEqual(second.sent[0], { ...socket.sent[0], resume: { a: 1 } });
  second.say({ type: 'ready', resumed: true, heartbeat: 20, providers: [] });
  second.say(token(2, 'b'));
  second.say(DONE);
  assert.equal(chat.text, 'ab');
  assert.deepEqual(states, ['waiting', 'connecting', 'online']);
  client.close();
});

test('a socket that stays silent for two heartbeats is replaced', async () => {
  const { client, socket, another } = await connected();
  socket.say({ type: 'ready', resumed: false, heartbeat: 0.02, providers: [] });
  await another();
  assert.equal(socket.readyState, 3);
  assert.deepEqual(socket.sent.at(-1), { type: 'ping' });
  client.close();
});

test('a closed client takes no chat and opens no socket', async () => {
  const { client, chat } = await connected();
  client.close();
  assert.equal(chat.finished, false);
  assert.throws(() => client.chat({ messages: 'x' }), /closed/);
});

test('an id under way is refused', async () => {
  const { client } = await connected();
  assert.throws(() => client.chat({ id: 'a', messages: 'x' }), /already running/);
  client.close();
});

test('names are random and of the wire\'s alphabet', () => {
  assert.match(randomName(64), /^[A-Za-z0-9_-]{64}$/);
  assert.notEqual(randomName(32), randomName(32));
});

test('the address follows the page', () => {
  assert.equal(sameOriginUrl({ protocol: 'https:', host: 'a.example' }), 'wss://a.example/ws');
  assert.equal(sameOriginUrl({ protocol: 'http:', host: '127.0.0.1:3050' }), 'ws://127.0.0.1:3050/ws');
});

test('every failure says what to do', () => {
  assert.match(advice({ code: 'providers_exhausted', message: '' }), /try again/);
  assert.match(advice({ code: 'unknown_provider', message: 'gpt is off: OPENAI_API_KEY is not set' }), /^gpt is off: OPENAI_API_KEY is not set\. Choose/);
  assert.equal(advice({ code: 'internal', message: 'internal error' }), 'internal error. Try again.');
  assert.match(advice({ code: 'rate_limited', message: '', retry_after: 1.2 }), /in 2 s\.$/);
});

test('a change of model is told as it is, whether the first one was asked or not', () => {
  const from = { provider: 'gpt', model: 'm1' };
  const to = { provider: 'claude', model: 'm2' };
  const said = (reason, begun, more) => change({ from, to, reason, keep: true, begun, ...more });
  assert.equal(said('provider_rate_limited', false), 'GPT (m1) is at its limit; Claude answers.');
  assert.equal(said('provider_error', false), 'GPT (m1) is not available; Claude answers.');
  assert.equal(said('provider_interrupted', true), 'GPT (m1) broke off; Claude goes on.');
  assert.equal(said('provider_timeout', true, { keep: false }), 'GPT (m1) does not answer in time; Claude starts the answer over.');
  assert.equal(said('internal', true, { to: from, keep: false }), 'The relay moved this answer to another of its servers; m1 starts the answer over.');
});

test('the footnote leaves out what is not known', () => {
  assert.deepEqual(footnote({ finish_reason: 'cancelled' }), ['Stopped']);
  const whole = { finish_reason: 'stop', timing: { first_token_ms: 80, total_ms: 2100 }, usage: { output_tokens: 9, estimated: true } };
  assert.deepEqual(footnote(whole), ['80 ms to first word', '2.1 s in all', '≈ 9 tokens']);
});
