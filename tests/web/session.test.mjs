/** The rules of the browser client, without sockets. */
import assert from 'node:assert/strict';
import { test } from 'node:test';

import { Answer, Session, afterClose, backoff, judgeSilence } from '../../relay/web/relay-session.js';

const SECRET = 'x'.repeat(32);
const REQUEST = { messages: [{ role: 'user', content: 'hi' }] };
const START = { type: 'start', id: 'a', seq: 0, stream: 's', provider: 'claude', model: 'm' };
const DONE = { type: 'done', id: 'a', provider: 'claude', model: 'm-1', finish_reason: 'stop' };
const token = (seq, text, more = {}) => ({ type: 'token', id: 'a', seq, text, ...more });
const sent = (actions) => actions.filter(({ do: what }) => what === 'send').map(({ frame }) => frame);
const kinds = (actions) => actions.map(({ do: what }) => what);

function begun({ last = null } = {}) {
  const session = new Session(SECRET);
  const answer = new Answer('a', REQUEST);
  session.add(answer);
  session.opened(1);
  if (last !== null) {
    session.received(1, START);
    for (let seq = 1; seq <= last; seq += 1) session.received(1, token(seq, `${seq}`));
  }
  return { session, answer };
}

test('a chat waits for the connection and is sent right behind hello', () => {
  const session = new Session(SECRET, 'secret token');
  assert.deepEqual(session.add(new Answer('a', REQUEST)), [{ do: 'open', attempt: 0 }]);
  assert.deepEqual(sent(session.opened(1)), [
    { type: 'hello', session: SECRET, token: 'secret token' },
    { ...REQUEST, type: 'chat', id: 'a' },
  ]);
});

test('only one connection is opened, however many chats wait', () => {
  const session = new Session(SECRET);
  session.connect();
  assert.deepEqual(session.add(new Answer('a', REQUEST)), []);
});

test('a frame known already changes nothing', () => {
  const { session, answer } = begun({ last: 2 });
  assert.deepEqual(session.received(1, token(2, 'again')), []);
  assert.equal(answer.text, '12');
});

test('a gap asks once for what follows the last frame and changes nothing', () => {
  const { session, answer } = begun({ last: 1 });
  assert.deepEqual(sent(session.received(1, token(4, 'x'))), [{ type: 'resume', id: 'a', after: 1 }]);
  assert.deepEqual(session.received(1, token(5, 'y')), []);
  session.received(1, token(5, '2345', { first: 2 }));
  assert.equal(answer.text, '12345');
  assert.deepEqual(sent(session.received(1, token(9, 'z'))), [{ type: 'resume', id: 'a', after: 5 }]);
});

test('a frame that straddles what is known is asked for anew', () => {
  const { session, answer } = begun({ last: 2 });
  assert.deepEqual(sent(session.received(1, token(4, '234', { first: 2 }))), [{ type: 'resume', id: 'a', after: 2 }]);
  assert.equal(answer.text, '12');
});

test('after a drop hello resumes what was begun and the chat is sent again where nothing came', () => {
  const { session } = begun({ last: 1 });
  session.add(new Answer('b', REQUEST));
  assert.deepEqual(kinds(session.closed(1, 1006)), ['open']);
  assert.deepEqual(sent(session.opened(2)), [
    { type: 'hello', session: SECRET, resume: { a: 1 } },
    { ...REQUEST, type: 'chat', id: 'b' },
  ]);
});

test('an answer that the server no longer has fails instead of hanging', () => {
  const { session, answer } = begun({ last: 1 });
  session.closed(1, 1006);
  session.opened(2);
  session.received(2, { type: 'ready', resumed: false });
  assert.equal(answer.error.code, 'stream_expired');
});

test('a cancel is sent again after a drop', () => {
  const { session } = begun({ last: 1 });
  assert.deepEqual(sent(session.cancel('a')), [{ type: 'cancel', id: 'a' }]);
  session.closed(1, 1006);
  assert.deepEqual(sent(session.opened(2)).at(-1), { type: 'cancel', id: 'a' });
});

test('a chat that was never sent is cancelled on the spot', () => {
  const session = new Session(SECRET);
  const answer = new Answer('a', REQUEST);
  session.add(answer);
  assert.deepEqual(kinds(session.cancel('a')), ['tell']);
  assert.equal(answer.done.finish_reason, 'cancelled');
  assert.deepEqual(sent(session.opened(1)), [{ type: 'hello', session: SECRET }]);
});

test('fallback without keep discards text and reasoning, with keep goes on', () => {
  const answer = new Answer('a', REQUEST);
  const fallback = { type: 'fallback', from: { provider: 'x', model: 'x' }, to: { provider: 'y', model: 'z' } };
  answer.apply(START);
  answer.apply({ type: 'reasoning', seq: 1, text: 'hm' });
  answer.apply(token(2, 'one '));
  answer.apply({ ...fallback, seq: 3, keep: true });
  answer.apply(token(4, 'two'));
  assert.equal(answer.text, 'one two');
  answer.apply({ ...fallback, seq: 5, keep: false });
  answer.apply(token(6, 'anew'));
  assert.deepEqual([answer.text, answer.reasoning, answer.model], ['anew', '', 'z']);
});

test('nothing follows the end', () => {
  const { session, answer } = begun({ last: 1 });
  assert.deepEqual(kinds(session.received(1, { ...DONE, seq: 2 })), ['tell']);
  assert.deepEqual(session.received(1, token(3, 'late')), []);
  assert.deepEqual([answer.status, answer.text, answer.model], ['done', '1', 'm-1']);
});

test('drain opens another connection for new chats and closes the old one once it is empty', () => {
  const { session } = begun({ last: 1 });
  assert.deepEqual(session.received(1, { type: 'drain', reconnect_after: 700 }), [{ do: 'open', delay: 700 }]);
  assert.deepEqual(session.add(new Answer('b', REQUEST)), []);
  assert.deepEqual(sent(session.opened(2)).map(({ type }) => type), ['hello', 'chat']);
  assert.deepEqual(kinds(session.received(1, { ...DONE, seq: 2 })), ['tell', 'close']);
  assert.deepEqual(session.closed(1, 1000), []);
});

test('a draining connection that breaks hands its chats to the other', () => {
  const { session } = begun({ last: 1 });
  session.received(1, { type: 'drain', reconnect_after: 0 });
  session.opened(2);
  assert.deepEqual(session.closed(1, 1012), [{ do: 'send', link: 2, frame: { type: 'resume', id: 'a', after: 1 } }]);
});

test('a chat refused because the server drains is asked of the next connection', () => {
  const { session, answer } = begun();
  const refused = { type: 'error', id: 'a', code: 'draining', message: '', retryable: true };
  assert.deepEqual(session.received(1, refused), [{ do: 'open', delay: 1000 }]);
  assert.deepEqual(sent(session.opened(2)).map(({ type }) => type), ['hello', 'chat']);
  assert.equal(answer.finished, false);
});

test('another refusal ends the chat with what the server said', () => {
  const { session, answer } = begun();
  session.received(1, { type: 'error', id: 'a', code: 'unknown_provider', message: 'off', retryable: false });
  assert.equal(answer.error.message, 'off');
});

test('a close code below 4400 but 1009 says come back, the rest but two stay away', () => {
  for (const code of [1000, 1001, 1006, 1012, 4399]) assert.equal(afterClose(code), 'reconnect');
  for (const code of [4429, 4500]) assert.equal(afterClose(code), 'back_off');
  for (const code of [1009, 4400, 4401, 4403, 4406, 4408]) assert.equal(afterClose(code), 'stop');
});

test('a close for good fails the chats and the next chat connects again', () => {
  const { session, answer } = begun({ last: 1 });
  assert.deepEqual(kinds(session.closed(1, 4401)), ['stop', 'tell']);
  assert.equal(answer.error.code, 'unauthorized');
  assert.deepEqual(kinds(session.add(new Answer('b', REQUEST))), ['open']);
});

test('tries grow apart until something comes', () => {
  const session = new Session(SECRET);
  session.connect();
  assert.deepEqual([1, 2, 3].map((link) => session.closed(link, 1006)[0].attempt), [0, 1, 2]);
  session.opened(4);
  session.received(4, { type: 'pong' });
  assert.equal(session.closed(4, 1006)[0].attempt, 0);
});

test('delays are jittered and bounded', () => {
  assert.equal(backoff(0, 0), 200);
  assert.ok(backoff(3, 0.99) > backoff(3, 0));
  assert.ok(backoff(1000, 0.999) <= 15_000);
});

test('a silent connection is asked after one heartbeat and given up after two', () => {
  assert.deepEqual([19_999, 20_000, 39_999, 40_000].map((silent) => judgeSilence(silent, 20_000)), ['fine', 'ask', 'ask', 'dead']);
});

test('a ping is answered with its own mark', () => {
  const { session } = begun();
  assert.deepEqual(sent(session.received(1, { type: 'ping', t: 7 })), [{ type: 'pong', t: 7 }]);
});

test('unknown types and ids are ignored', () => {
  const { session } = begun();
  assert.deepEqual(session.received(1, { type: 'to_come', x: 1 }), []);
  assert.deepEqual(session.received(1, { ...START, id: 'other' }), []);
});

test('whatever is cut, repeated or lost, the text is whole', () => {
  for (let seed = 1; seed <= 300; seed += 1) assert.equal(deliver(random(seed)), '0123456789abcdefghij');
});

/** A server with a log, and a wire that drops, repeats and cuts by chance. */
function deliver(chance) {
  const log = [{ ...START }, ...[...'0123456789abcdefghij'].map((text, n) => token(n + 1, text))];
  log.push({ ...DONE, seq: log.length });
  const session = new Session(SECRET);
  const answer = new Answer('a', REQUEST);
  let link = 0;
  let cursor = null;
  const obey = (actions) => {
    for (const action of actions) {
      if (action.do === 'open') {
        cursor = null;
        link += 1;
        obey(session.opened(link));
      } else if (action.do === 'send') {
        const { type, resume, after } = action.frame;
        if (resume) cursor = resume.a + 1;
        if (type === 'resume') cursor = after + 1;
        if (type === 'chat') cursor ??= 0;
      }
    }
  };
  obey(session.add(answer));
  for (let step = 0; !answer.finished && step < 10_000; step += 1) {
    const end = Math.min(log.length - 1, cursor + Math.floor(chance() * 4));
    const frame = merged(log, cursor, end);
    const fate = chance();
    if (fate < 0.1) obey(session.closed(link, 1006));
    else {
      cursor = Math.min(log.length - 1, frame.seq + 1);
      if (fate > 0.2) obey(session.received(link, frame));
      if (fate > 0.9) obey(session.received(link, frame));
    }
  }
  return answer.text;
}

function merged(log, first, last) {
  const run = log.slice(first, last + 1);
  if (run.length === 1 || run.some(({ type }) => type !== 'token')) return log[first];
  return { ...run.at(-1), first, text: run.map(({ text }) => text).join('') };
}

function random(seed) {
  let state = seed * 2654435761;
  return () => {
    state = (Math.imul(state ^ (state >>> 15), 2246822519) + 3266489917) | 0;
    return ((state ^ (state >>> 13)) >>> 0) / 2 ** 32;
  };
}
