/** The browser client's session on the cases that every client's session has to hold. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';

import { Answer, Session, afterClose, backoff, closeError, isEvent, judgeSilence } from '../../relay/web/relay-session.js';

const TABLE = JSON.parse(readFileSync(new URL('../cases/session_cases.json', import.meta.url), 'utf8'));

/** What a reader is told, as `Chat.tell` tells it; null for a frame of an unknown type. */
function told({ answer, frame }) {
  if (answer.finished) return answer.status;
  return isEvent(frame) ? frame.type : null;
}

/** An action as the table has it; nothing for one that a reader does not see. */
function plain(action) {
  switch (action.do) {
    case 'send':
      return [['send', action.link, action.frame]];
    case 'open':
      return [['open', ...('delay' in action ? ['delay', action.delay] : ['attempt', action.attempt])]];
    case 'close':
      return [['close', action.link]];
    case 'tell':
      return told(action) ? [['tell', action.answer.id, told(action)]] : [];
    case 'ready':
    case 'problem':
      return [[action.do, action.frame]];
    case 'stop':
      return [['stop', action.code, action.error.code]];
  }
  return assert.fail(`unknown action ${action.do}`);
}

/** What the table may say of an answer. */
function seen(answer) {
  const { toolCalls, done, error, ...fields } = answer;
  if (done) Object.assign(fields, { finish_reason: done.finish_reason, usage: done.usage });
  if (error) fields.error = { retry_after: null, ...error };
  return { ...fields, tool_calls: toolCalls };
}

/** Of what was found, what the table names. */
function within(wanted, found) {
  const entries = Object.entries(wanted).map(([name, value]) => [
    name,
    name === 'error' && found.error ? within(value, found.error) : found[name],
  ]);
  return Object.fromEntries(entries);
}

for (const { name, token, after = 'nothing', steps, answers: wanted } of TABLE.cases) {
  test(name, () => {
    const session = new Session(TABLE.secret, token);
    const answers = {};
    for (const { do: [call, ...given], repeat = 1, expect } of [...TABLE.preludes[after], ...steps]) {
      if (call === 'add') given[0] = answers[given[0]] = new Answer(given[0], TABLE.request);
      for (let time = 0; time < repeat; time += 1) {
        const did = session[call](...given).flatMap(plain);
        if (expect) assert.deepEqual(did, expect);
      }
    }
    for (const [id, fields] of Object.entries(wanted)) assert.deepEqual(within(fields, seen(answers[id])), fields);
  });
}

test('close codes say whether to come back', () => {
  for (const [rule, codes] of Object.entries(TABLE.after_close)) {
    for (const code of codes) assert.equal(afterClose(code), rule, code);
  }
});

test('a close for good has an error code', () => {
  for (const [code, name] of TABLE.close_errors) {
    const { code: found, retryable } = closeError(code);
    assert.deepEqual([found, retryable], [name, false]);
  }
});

test('delays are those of the table', () => {
  for (const [attempt, random, milliseconds] of TABLE.backoff) assert.equal(backoff(attempt, random), milliseconds);
});

test('silence is judged as in the table', () => {
  const { heartbeat, verdicts } = TABLE.silence;
  for (const [silent, verdict] of verdicts) assert.equal(judgeSilence(silent, heartbeat), verdict);
});
