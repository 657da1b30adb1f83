/** Laws of the browser client's session, on whatever chance brings; its cases are in session-cases.test.mjs. */
import assert from 'node:assert/strict';
import { test } from 'node:test';

import { Answer, Session, backoff } from '../../relay/web/relay-session.js';

const SECRET = 'x'.repeat(32);
const REQUEST = { messages: [{ role: 'user', content: 'hi' }] };
const START = { type: 'start', id: 'a', seq: 0, stream: 's', provider: 'claude', model: 'm' };
const DONE = { type: 'done', id: 'a', provider: 'claude', model: 'm-1', finish_reason: 'stop' };
const token = (seq, text) => ({ type: 'token', id: 'a', seq, text });

test('delays are jittered and bounded', () => {
  assert.equal(backoff(0, 0), 200);
  assert.ok(backoff(3, 0.99) > backoff(3, 0));
  assert.ok(backoff(1000, 0.999) <= 15_000);
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
