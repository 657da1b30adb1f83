/**
 * The view of one answer. Model text enters the document as text nodes only, and at most once
 * an animation frame: a fast stream costs one append a frame, not one a token.
 */
import { element } from './dom.js';

const LABELS = { gpt: 'GPT', claude: 'Claude', gemini: 'Gemini', local: 'Local demo' };

/** A provider's display name. */
export function label(provider) {
  return LABELS[provider] ?? provider ?? '';
}

const ADVICE = {
  unauthorized: 'The relay did not accept the access token. Enter a valid one and try again.',
  forbidden: 'You may not use this provider here. Choose another one.',
  unknown_provider: 'Choose another provider above and try again.',
  stream_expired: 'The relay no longer has this answer. Try again to ask anew.',
  too_large: 'The conversation is too long to send. Start a new chat.',
  context_length: 'The conversation is too long for this model. Start a new chat or choose another provider.',
  content_policy: 'The model declined to answer this. Rephrase the message and try again.',
  rate_limited: 'Too many messages at once. Wait a moment and try again.',
  too_many_streams: 'Too many answers at once. Stop one, or wait, and try again.',
  budget_exceeded: 'The budget of this relay is used up. Ask who runs it.',
  provider_auth: 'The provider did not accept the relay’s key. Ask who runs it, or choose another provider.',
  provider_rate_limited: 'The provider is at its limit. Wait a moment or choose another one.',
  providers_exhausted: 'No model could answer. Wait a moment and try again, or choose another provider.',
  draining: 'The relay is restarting. Try again in a moment.',
};

/** The sentence for a failed answer: what happened and what to do about it. */
export function advice({ code, message, retry_after: wait }) {
  const known = ADVICE[code];
  if (code === 'unknown_provider' && message) return `${message}. ${known}`.replace('..', '.');
  const sentence = known ?? `${message || 'The answer broke off.'} Try again.`.replace(/([^.!?])( Try again\.)$/, '$1.$2');
  return wait ? `${sentence} It may work again in ${Math.ceil(wait)} s.` : sentence;
}

const REASONS = {
  provider_rate_limited: 'is at its limit',
  provider_overloaded: 'is overloaded',
  provider_timeout: 'does not answer in time',
  provider_auth: 'does not accept the relay’s key',
  context_length: 'can’t take a conversation of this length',
};

/**
 * The sentence for a fallback. It is true whether the first model was asked, or was skipped
 * because it had recently failed. `begun`: part of the answer is shown.
 */
export function change({ from, to, reason, keep, begun }) {
  const moved = reason === 'internal' || reason === 'draining';
  const known = REASONS[reason] ?? (begun ? 'broke off' : 'is not available');
  const why = moved ? 'The relay moved this answer to another of its servers' : `${label(from.provider)} (${from.model}) ${known}`;
  const other = from.provider === to.provider ? to.model : label(to.provider);
  const what = keep ? (begun ? 'goes on' : 'answers') : 'starts the answer over';
  return `${why}; ${other} ${what}.`;
}

/** Times and tokens of a finished answer, in a few words. */
export function footnote({ timing, usage, cost_usd: cost, finish_reason: reason }) {
  const parts = [];
  if (reason === 'cancelled') parts.push('Stopped');
  if (reason === 'length') parts.push('Cut at the length limit');
  if (reason === 'content_filter') parts.push('Ended by the provider’s filter');
  if (timing?.first_token_ms != null) parts.push(`${seconds(timing.first_token_ms)} to first word`);
  if (timing) parts.push(`${seconds(timing.total_ms)} in all`);
  if (usage) parts.push(`${usage.estimated ? '≈ ' : ''}${usage.output_tokens} tokens`);
  if (cost) parts.push(`$${cost < 0.01 ? cost.toFixed(4) : cost.toFixed(2)}`);
  return parts;
}

function seconds(ms) {
  return ms < 1000 ? `${Math.round(ms)} ms` : `${(ms / 1000).toFixed(1)} s`;
}

/** The view of one answer; `onGrow` is called after each change of its height. */
export class AnswerView {
  #pending = { text: '', reasoning: '' };
  #frame = 0;

  constructor({ onGrow, onRetry }) {
    this.onGrow = onGrow;
    this.onRetry = onRetry;
    this.who = element('p', { className: 'who' });
    this.notices = element('div');
    this.thinking = element('details', { className: 'thinking', hidden: true }, element('summary', {}, 'Thinking'));
    this.thoughts = this.thinking.appendChild(element('p'));
    this.body = element('div', { className: 'text live' });
    this.tools = element('div');
    this.end = element('div');
    this.root = element('article', { className: 'answer' }, this.who, this.notices, this.thinking, this.body, this.tools, this.end);
    this.root.setAttribute('aria-busy', 'true');
    this.root.setAttribute('aria-label', 'Answer');
  }

  /** Take one event of the chat. */
  show(event) {
    this[event.type]?.(event);
  }

  start({ provider, model }) {
    this.#name(provider, model);
  }

  text({ text }) {
    this.#later('text', text);
  }

  reasoning({ text }) {
    this.#later('reasoning', text);
  }

  fallback({ from, to, reason, keep }) {
    this.#flush();
    const begun = this.body.textContent !== '' || this.thoughts.textContent !== '';
    this.notices.append(element('p', { className: 'notice' }, change({ from, to, reason, keep, begun })));
    if (!keep) {
      this.body.replaceChildren();
      this.thoughts.replaceChildren();
      this.thinking.hidden = true;
    }
    this.#name(to.provider, to.model);
    this.onGrow();
  }

  toolCall({ name, arguments: args }) {
    this.#flush();
    this.tools.append(element('div', { className: 'tool' }, `${name}(${JSON.stringify(args, null, 1)})`));
    this.onGrow();
  }

  done(event) {
    this.#settle();
    if (event.provider) this.#name(event.provider, event.model);
    const copy = element('button', { type: 'button' }, 'Copy');
    copy.addEventListener('click', () => this.#copy(copy));
    const parts = footnote(event).map((part) => element('span', {}, part));
    const hasText = this.body.textContent !== '';
    this.end.append(element('div', { className: 'foot' }, ...(hasText ? [copy] : []), ...parts));
    this.onGrow();
  }

  error({ error }) {
    this.#settle();
    const sentence = advice({ code: error.code, message: error.message, retry_after: error.retryAfter });
    const retry = element('button', { type: 'button' }, 'Try again');
    retry.addEventListener('click', this.onRetry);
    const fault = element('div', { className: 'fault' }, element('p', {}, sentence), retry);
    fault.setAttribute('role', 'alert');
    this.end.append(fault);
    this.onGrow();
  }

  #name(provider, model) {
    this.who.replaceChildren(element('b', {}, label(provider)), element('span', {}, model ?? ''));
  }

  #later(where, text) {
    this.#pending[where] += text;
    this.#frame ||= requestAnimationFrame(() => this.#flush());
  }

  #flush() {
    cancelAnimationFrame(this.#frame);
    this.#frame = 0;
    const { text, reasoning } = this.#pending;
    this.#pending = { text: '', reasoning: '' };
    if (reasoning) {
      this.thinking.hidden = false;
      this.thoughts.append(reasoning);
    }
    if (text) this.body.append(text);
    if (text || reasoning) this.onGrow();
  }

  #settle() {
    this.#flush();
    this.body.normalize();
    this.body.classList.remove('live');
    this.root.setAttribute('aria-busy', 'false');
  }

  async #copy(button) {
    try {
      await navigator.clipboard.writeText(this.body.textContent);
      button.textContent = 'Copied';
    } catch {
      getSelection().selectAllChildren(this.body);
      button.textContent = 'Selected';
    }
    setTimeout(() => { button.textContent = 'Copy'; }, 1500);
  }
}
