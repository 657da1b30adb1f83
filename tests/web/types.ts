/**
 * How a program in TypeScript uses the browser client. It has to compile as it stands: what
 * must not compile is marked, and a mark without a fault is a fault.
 */
import { Chat, RelayClient, RelayError, randomName, sameOriginUrl } from './relay-client.js';
import type { Answer, Attempt, ChatEvent, ErrorCode, Message, ReadyFrame, Tool } from './relay-client.js';

const turns: Message[] = [
  { role: 'user', content: [{ type: 'text', text: 'Is it raining?' }, { type: 'image', media_type: 'image/png', url: 'https://a.example/b' }] },
  { role: 'assistant', tool_calls: [{ call_id: 'c', name: 'rain', arguments: { city: 'Graz' } }] },
  { role: 'tool', call_id: 'c', content: 'yes' },
];
const tools: Tool[] = [{ name: 'rain' }];

// @ts-expect-error there is no such role
const developer: Message = { role: 'developer', content: 'hi' };
// @ts-expect-error a tool has a name
const nameless: Tool = { description: 'rain at a place' };
// @ts-expect-error what may be left out is left out, not undefined
const undefinedState: Message = { role: 'user', content: undefined };

const relay = new RelayClient(sameOriginUrl(location), { token: null, session: randomName(32) });
relay.on('status', ({ state, delay, error }) => console.log(state, delay, error?.retryAfter));
relay.on('ready', ({ frame }) => console.log(frame.limits.max_frame_bytes, frame.streams?.length));
relay.on('problem', ({ frame }) => console.log(frame.code, frame.attempts?.length));
const offered: ReadyFrame['providers'] = relay.providers;
// @ts-expect-error a chat has messages
relay.chat({ provider: 'gpt' });

const chat: Chat = relay.chat({ messages: turns, tools, provider: null, max_tokens: 5, fallback: false });
chat.on('fallback', ({ from, to, reason, keep }) => console.log(from.provider, to.model, reason, keep));
chat.on('error', ({ error }) => console.log(error.frame.seq, error.attempts.map((each: Attempt) => each.outcome)));

async function read(events: AsyncIterable<ChatEvent>): Promise<string> {
  let text = '';
  for await (const event of events) {
    switch (event.type) {
      case 'start':
        text += event.stream;
        break;
      case 'text':
      case 'reasoning':
        text += event.text;
        break;
      case 'toolCall':
        text += event.call_id + JSON.stringify(event.arguments) + (event.state ?? '');
        break;
      case 'fallback':
        if (!event.keep) text = '';
        break;
      case 'done':
        text += `${event.usage?.output_tokens} ${event.timing?.first_token_ms} ${event.attempts?.[0]?.usage?.estimated}`;
        // @ts-expect-error what was cancelled before it was sent has no usage
        text += event.usage.output_tokens;
        break;
      default: {
        const none: never = event;
        return none;
      }
    }
  }
  return text;
}

function codeOf(error: unknown, answer: Answer): ErrorCode | undefined {
  return error instanceof RelayError ? error.code : answer.error?.code;
}

read(chat).catch((error) => console.log(codeOf(error, chat.answer), offered, nameless, developer, undefinedState));
chat.result().then(({ text, finish_reason: reason }) => console.log(text, reason));
