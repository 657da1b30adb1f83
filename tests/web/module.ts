/**
 * The declarations of the browser client beside what the compiler reads from the module itself:
 * the same names on both sides, and behind each name of the module what is declared. A name that
 * one side lacks stands in the compiler's message.
 */
import * as module from './module/relay-client.js';
import * as session from './module/relay-session.js';
import * as declared from './relay-client.js';

type Surplus<One, Other> = [Exclude<keyof One, keyof Other>, Exclude<keyof Other, keyof One>];
type Alike = [never, never];

/** Members that are there for the client itself. */
type Outside<Instance> = Omit<Instance, 'emit' | 'tell' | 'apply' | 'end'>;
type Client = Outside<module.RelayClient>;
type Chat = Outside<module.Chat>;
type Answer = Outside<session.Answer>;

declare const surplus: {
  exports: Surplus<typeof module, typeof declared>;
  client: Surplus<Client, declared.RelayClient>;
  chat: Surplus<Chat, declared.Chat>;
  answer: Surplus<Answer, declared.Answer>;
  error: Surplus<module.RelayError, declared.RelayError>;
};
const exportsAlike: Alike = surplus.exports;
const clientAlike: Alike = surplus.client;
const chatAlike: Alike = surplus.chat;
const answerAlike: Alike = surplus.answer;
const errorAlike: Alike = surplus.error;

/** Of a module without annotations the compiler sees `string` where a choice of words is declared. */
type Worded<Instance, Names extends keyof Instance> = Omit<Instance, Names> & Record<Names, string>;
/** What iteration yields, and what a chat ends in, it can't see: `types.ts` holds those. */
type Unread = typeof Symbol.asyncIterator | 'chat' | 'done';
declare const made: { client: Client; chat: Chat; answer: Answer; error: module.RelayError };
const client: Worded<Omit<declared.RelayClient, Unread>, 'state'> = made.client;
const chat: Omit<declared.Chat, Unread> = made.chat;
const answer: Worded<Omit<declared.Answer, Unread>, 'status'> = made.answer;
const error: declared.RelayError = made.error;

const randomName: typeof declared.randomName = module.randomName;
const sameOriginUrl: () => ReturnType<typeof declared.sameOriginUrl> = module.sameOriginUrl;
const makeClient: new (...given: ConstructorParameters<typeof declared.RelayClient>) => Client = module.RelayClient;
const makeError: new (...given: ConstructorParameters<typeof declared.RelayError>) => Error = module.RelayError;

console.log(exportsAlike, clientAlike, chatAlike, answerAlike, errorAlike, client, chat, answer, error, randomName, sameOriginUrl, makeClient, makeError);
