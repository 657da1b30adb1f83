/** The chat page: conversation, composer and connection status around `relay-client.js`. */
import { AnswerView, label } from './answer-view.js';
import { element } from './dom.js';
import { keep, keepToken, recall, recallToken } from './memory.js';
import { RelayClient, randomName } from './relay-client.js';

const find = (id) => document.getElementById(id);
const scroller = find('scroller');
const log = find('log');
const prompt = find('prompt');
const provider = find('provider');

const state = recall() ?? fresh();
const relay = new RelayClient(undefined, { session: state.session, token: recallToken() });
let running = null;

function fresh() {
  return { session: randomName(32), turns: [], pending: null, provider: null };
}

/* Scrolling: follow the answer only while the reader is at its end. */

let following = true;
let lastTop = 0;

function atEnd() {
  return scroller.scrollHeight - scroller.scrollTop - scroller.clientHeight < 56;
}

function follow() {
  if (following) scroller.scrollTop = scroller.scrollHeight;
  find('latest').hidden = following || atEnd();
}

scroller.addEventListener('scroll', () => {
  if (scroller.scrollTop < lastTop && !atEnd()) following = false;
  else if (atEnd()) following = true;
  lastTop = scroller.scrollTop;
  find('latest').hidden = following;
}, { passive: true });

function toEnd() {
  following = true;
  follow();
}

new ResizeObserver(follow).observe(scroller);
find('latest').addEventListener('click', toEnd);

/* The conversation. */

function ask(text) {
  showUser(text);
  state.turns.push({ role: 'user', content: text });
  send(request());
}

function request() {
  return { id: randomName(16), provider: state.provider ?? undefined, messages: [...state.turns] };
}

function send(asked) {
  state.pending = asked;
  keep(state);
  const chat = relay.chat(asked);
  const view = new AnswerView({ onGrow: follow, onRetry: () => retry(view) });
  log.append(view.root);
  running = chat;
  chat.on('*', (event) => view.show(event));
  chat.on('done', (event) => running === chat && finished(chat, event));
  chat.on('error', () => running === chat && settle('The answer failed'));
  announce('Answering');
  refresh();
  toEnd();
}

function finished(chat, { finish_reason: reason }) {
  if (chat.text) state.turns.push({ role: 'assistant', content: chat.text });
  else state.turns.pop();
  settle(reason === 'cancelled' ? 'Stopped' : 'Answer complete');
}

function settle(words) {
  state.pending = null;
  running = null;
  keep(state);
  announce(words);
  refresh();
}

/** Ask the same again, in place of the failed answer; only the last answer can be asked again. */
function retry(view) {
  if (running || state.turns.at(-1)?.role !== 'user') return;
  view.root.remove();
  send(request());
  prompt.focus();
}

function showUser(text) {
  for (const button of log.querySelectorAll('.fault button')) button.remove();
  log.append(element('p', { className: 'user' }, text));
}

function newChat() {
  running?.cancel();
  running = null;
  log.replaceChildren();
  Object.assign(state, { turns: [], pending: null });
  keep(state);
  refresh();
  prompt.focus();
}

/**
 * Show what the tab saved, and resume the running answer: same id, same content, so the relay
 * attaches to it and answers only once.
 */
function restore() {
  for (const { role, content } of state.turns) {
    if (role === 'user') showUser(content);
    else log.append(element('article', { className: 'answer' }, element('div', { className: 'text' }, content)));
  }
  if (state.pending) send(state.pending);
}

/* The composer. */

function refresh() {
  const empty = log.childElementCount === 0;
  find('empty').hidden = !empty;
  log.hidden = empty;
  find('stop').hidden = running === null;
  find('stop').removeAttribute('aria-busy');
  find('send').hidden = running !== null;
  find('send').disabled = prompt.value.trim() === '';
}

function submit() {
  const text = prompt.value.trim();
  if (!text || running) return;
  prompt.value = '';
  fit();
  // A question that failed and was not asked again is dropped: turns must alternate.
  if (state.turns.at(-1)?.role === 'user') state.turns.pop();
  ask(text);
}

function stop() {
  if (!running) return;
  find('stop').setAttribute('aria-busy', 'true');
  running.cancel();
}

/** Grow with the text, for browsers that do not do it by themselves. */
function fit() {
  if (CSS.supports('field-sizing', 'content')) return;
  prompt.style.height = 'auto';
  prompt.style.height = `${prompt.scrollHeight}px`;
}

prompt.addEventListener('input', () => {
  fit();
  refresh();
});
prompt.addEventListener('keydown', (event) => {
  if (event.key !== 'Enter' || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  submit();
});
find('composer').addEventListener('submit', (event) => {
  event.preventDefault();
  submit();
});
document.addEventListener('keydown', (event) => {
  if (event.key === 'Escape' && !event.isComposing) stop();
});
find('stop').addEventListener('click', () => {
  stop();
  prompt.focus();
});
find('new-chat').addEventListener('click', newChat);
find('examples').addEventListener('click', (event) => {
  const button = event.target.closest('button');
  if (button) ask(button.textContent);
});

/* The connection. */

const NOT_OK = { down: 'not answering', degraded: 'unsteady' };
let notice = null;

function showProviders(offers) {
  const options = offers.map(({ name, model, status }) => {
    const words = [label(name), model].filter(Boolean).join(' · ');
    return element('option', { value: name }, NOT_OK[status] ? `${words} (${NOT_OK[status]})` : words);
  });
  provider.replaceChildren(...(options.length ? options : [element('option', {}, 'No provider is on')]));
  provider.disabled = options.length === 0;
  const known = offers.some(({ name }) => name === state.provider);
  if (!known) state.provider = offers[0]?.name ?? null;
  if (state.provider) provider.value = state.provider;
}

provider.addEventListener('change', () => {
  state.provider = provider.value;
  keep(state);
});

/** A connection that is back at once needs no message: the notice appears after a delay. */
function showStatus({ state: now, error }) {
  const online = now === 'online';
  clearTimeout(notice);
  find('access').hidden = error?.code !== 'unauthorized';
  document.body.classList.toggle('offline', !online);
  if (online || now === 'closed') return say('');
  if (error) return say(error.code === 'unauthorized' ? '' : error.message);
  const words = running
    ? 'Connection lost. The answer goes on as soon as it is back.'
    : 'No connection to the relay. Trying again…';
  if (find('connection').hidden) notice = setTimeout(say, 900, words);
  else say(words);
  return undefined;
}

function say(words) {
  const line = find('connection');
  if (line.textContent !== words) line.textContent = words;
  line.hidden = words === '';
}

function announce(words) {
  find('announce').textContent = words;
}

find('access').addEventListener('submit', (event) => {
  event.preventDefault();
  const token = find('token').value.trim();
  keepToken(token);
  relay.setToken(token);
  relay.connect();
});

relay.on('status', showStatus);
relay.on('ready', ({ frame }) => showProviders(frame.providers ?? []));
restore();
relay.connect();
refresh();
