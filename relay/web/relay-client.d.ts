/** Types of `relay-client.js`, the browser client of the chat relay. */

// The frames of the relay, by `scripts/generate_types.py` from `relay/protocol/frames.py`.
// generated: frames

export type ErrorCode =
  | 'abandoned'
  | 'bad_frame'
  | 'bad_request'
  | 'budget_exceeded'
  | 'cancelled'
  | 'content_policy'
  | 'context_length'
  | 'draining'
  | 'forbidden'
  | 'internal'
  | 'provider_auth'
  | 'provider_error'
  | 'provider_interrupted'
  | 'provider_overloaded'
  | 'provider_rate_limited'
  | 'provider_timeout'
  | 'providers_exhausted'
  | 'rate_limited'
  | 'stream_expired'
  | 'too_large'
  | 'too_many_streams'
  | 'unauthorized'
  | 'unknown_provider';

/** Written content. */
export interface TextPart {
  type: 'text';
  text: string;
}

/** An image, by its bytes or by its address: exactly one of `data` and `url`. */
export interface ImagePart {
  type: 'image';
  /** As in RFC 6838, e.g. `image/png`. */
  media_type: string;
  /** Base64, RFC 4648 §4. */
  data?: string;
  url?: string;
}

/** A call that an assistant turn made, as the `tool_call` frame gave it. */
export interface ToolCall {
  call_id: string;
  name: string;
  arguments: Record<string, unknown>;
  /** Opaque; sent back as the `tool_call` frame carried it. */
  state?: string;
}

/** One turn of a conversation. */
export interface Message {
  role: 'user' | 'assistant' | 'tool' | 'system';
  /** A string or a list of parts. Empty only beside `tool_calls`. */
  content?: string | Array<TextPart | ImagePart>;
  /** Only on an assistant's turn. */
  tool_calls?: Array<ToolCall>;
  /** Required on a tool's turn, and allowed only there: the call it answers. */
  call_id?: string;
}

/** A function that the client offers to the model and will run itself. */
export interface Tool {
  name: string;
  description?: string;
  /** A JSON Schema of type object. */
  parameters?: Record<string, unknown>;
}

/** Asks for an answer. Sent again with the same `id` it attaches to the first. */
export interface ChatFrame {
  /** Names the stream within its session. Left out, the server makes one. */
  id?: string;
  /** A provider or route of `ready.providers`; left out, the server's default. */
  provider?: string;
  /** All turns so far, the oldest first: the server keeps no history. A string is one user message. */
  messages: string | Array<Message>;
  /** The system prompt. */
  system?: string;
  max_tokens?: number;
  /** Texts that end the answer. */
  stop?: Array<string>;
  tools?: Array<Tool>;
  /** `auto` (the default), `none`, `required` or a tool's name. */
  tool_choice?: string;
  /** A name by which another device finds the newest stream; no memory of turns. */
  conversation?: string;
  /** False: no other target and no rescue of a broken answer. */
  fallback?: boolean;
  /** Accepted and ignored: the server selects the model. */
  model?: unknown;
  type: 'chat';
}

/** A stream of a resumed session. */
export interface SessionStream {
  id: string;
  stream: string;
  /** The last one that the log holds; -1 for none yet. */
  seq: number;
  status: 'running' | 'done' | 'error';
}

/** A provider or route that `chat.provider` may name. */
export interface Provider {
  name: string;
  model: string;
  status: 'ok' | 'degraded' | 'down' | 'unknown';
}

/** What the server takes at most. */
export interface ReadyLimits {
  /** Inbound; a larger frame closes with 1009. */
  max_frame_bytes: number;
  /** Running at once. */
  max_streams_per_session: number;
  /** Seconds that a finished stream is kept. */
  resume_window: number;
}

/** Answers `hello`; comes before the answer to any other first frame. */
export interface ReadyFrame {
  type: 'ready';
  protocol: 'relay.v1';
  /** A secret, for `hello.session` of the next connection. */
  session: string;
  /** Whether the session was there before. */
  resumed: boolean;
  /** When resumed: those that run, and the newest of the others. */
  streams?: Array<SessionStream>;
  /** The default first. */
  providers: Array<Provider>;
  /** What may be sent beyond this page. */
  features: Array<string>;
  limits: ReadyLimits;
  /** Seconds between two `ping` of the server. */
  heartbeat: number;
}

/** The chat is accepted. Comes before any upstream call. */
export interface StartFrame {
  type: 'start';
  id: string;
  seq: 0;
  /** The stream's name across sessions and on HTTP. A secret. */
  stream: string;
  provider: string;
  /** As configured. */
  model: string;
}

/** A piece of the answer. */
export interface TokenFrame {
  type: 'token';
  id: string;
  seq: number;
  /** When it merges records first..seq. */
  first?: number;
  text: string;
}

/** A piece of the model's visible thinking. */
export interface ReasoningFrame {
  type: 'reasoning';
  id: string;
  seq: number;
  /** When it merges records first..seq. */
  first?: number;
  text: string;
}

/** A whole call of one of the client's tools. */
export interface ToolCallFrame {
  type: 'tool_call';
  id: string;
  seq: number;
  call_id: string;
  name: string;
  arguments: Record<string, unknown>;
  /** Opaque; send it back with the call. */
  state?: string;
}

/** A model at a provider. */
export interface Target {
  provider: string;
  model: string;
}

/** Another target takes over. */
export interface FallbackFrame {
  type: 'fallback';
  id: string;
  seq: number;
  /** The target named last. Not among the `attempts` where it was not asked. */
  from: Target;
  to: Target;
  /** Why it failed, or why it was not asked. */
  reason: ErrorCode;
  /** False: discard all text and reasoning of this id; a fresh answer follows. True: the answer goes on from where it broke. */
  keep: boolean;
}

/** Tokens, summed over all attempts. */
export interface Usage {
  input_tokens: number;
  output_tokens: number;
  cached_input_tokens?: number;
  reasoning_tokens?: number;
  /** True where a provider gave no count of its own. */
  estimated: boolean;
}

/** One upstream call. */
export interface Attempt {
  provider: string;
  model: string;
  outcome: ErrorCode | 'ok';
  ms: number;
  hedge?: boolean;
  usage?: Usage;
}

/** Milliseconds since the chat was accepted. */
export interface Timing {
  /** Null where no text came. */
  first_token_ms: number | null;
  total_ms: number;
}

/** The end of an answer. Nothing follows it. */
export interface DoneFrame {
  type: 'done';
  id: string;
  seq: number;
  provider: string;
  /** As the provider reported it. */
  model: string;
  finish_reason: 'stop' | 'length' | 'content_filter' | 'tool_calls' | 'cancelled';
  usage: Usage;
  cost_usd?: number;
  attempts: Array<Attempt>;
  timing: Timing;
}

/** With `seq`: the end of a stream that has no answer. Without: a refusal, which leaves the `id` free. */
export interface ErrorFrame {
  type: 'error';
  id?: string;
  seq?: number;
  code: ErrorCode;
  /** For people. Holds no secret. */
  message: string;
  retryable: boolean;
  /** Seconds. */
  retry_after?: number;
  /** As in `done`. */
  attempts?: Array<Attempt>;
}

// end

export type FinishReason = DoneFrame['finish_reason'];

type OrNull<Fields> = { [Name in keyof Fields]: Fields[Name] | null };

/** The fields of the `chat` frame. A string is one user message; null means left out. */
export interface ChatRequest
  extends Pick<ChatFrame, 'id' | 'messages'>, OrNull<Omit<ChatFrame, 'type' | 'id' | 'messages'>> {}

/**
 * The fields that an event takes over from its frame: all except those for the client's own
 * use.
 */
type Told<Frame> = Omit<Frame, 'type' | 'id' | 'seq' | 'first'>;

export interface StartEvent extends Told<StartFrame> {
  type: 'start';
}

export interface TextEvent extends Told<TokenFrame> {
  type: 'text';
}

export interface ReasoningEvent extends Told<ReasoningFrame> {
  type: 'reasoning';
}

export interface ToolCallEvent extends Told<ToolCallFrame> {
  type: 'toolCall';
}

/**
 * Another target takes over. `keep` false: discard all text and reasoning shown so far. A
 * `from` that recently failed other chats may be skipped without a call: then it is not among
 * `attempts`.
 */
export interface FallbackEvent extends Told<FallbackFrame> {
  type: 'fallback';
}

/** The answer's end. If it was cancelled before it was sent, counts are missing and names null. */
export interface DoneEvent extends Partial<Omit<Told<DoneFrame>, 'provider' | 'model' | 'finish_reason'>> {
  type: 'done';
  provider: string | null;
  model: string | null;
  finish_reason: FinishReason;
}

export interface ErrorEvent {
  type: 'error';
  error: RelayError;
}

export interface ChatEvents {
  start: StartEvent;
  text: TextEvent;
  reasoning: ReasoningEvent;
  toolCall: ToolCallEvent;
  fallback: FallbackEvent;
  done: DoneEvent;
  error: ErrorEvent;
}

export type ChatEvent = Exclude<ChatEvents[keyof ChatEvents], ErrorEvent>;

/** The relay's error for a failed answer. */
export class RelayError extends Error {
  /** `frame` is an `error` frame, or has its fields. */
  constructor(frame: Pick<ErrorFrame, 'code' | 'message'> & Partial<ErrorFrame>);
  readonly code: ErrorCode;
  readonly retryable: boolean;
  /** Seconds. */
  readonly retryAfter: number | null;
  readonly attempts: Attempt[];
  /** The `error` frame itself, or one that the client made. */
  readonly frame: Pick<ErrorFrame, 'code' | 'message'> & Partial<ErrorFrame>;
}

/** The state of one answer. */
export interface Answer {
  readonly id: string;
  /** The request: the fields of the `chat` frame. */
  readonly request: Omit<ChatFrame, 'type' | 'id'>;
  /** The last seq applied, -1 before any. */
  readonly last: number;
  readonly status: 'waiting' | 'streaming' | 'done' | 'error';
  readonly stream: string | null;
  /** The model that answers: as configured, and after `done` as the provider reported it. */
  readonly provider: string | null;
  readonly model: string | null;
  readonly text: string;
  readonly reasoning: string;
  readonly toolCalls: ToolCall[];
  readonly start: StartFrame | null;
  readonly fallbacks: FallbackFrame[];
  readonly done: (Partial<DoneFrame> & Pick<DoneFrame, 'type' | 'finish_reason'>) | null;
  readonly error: RelayError['frame'] | null;
  readonly finished: boolean;
}

/**
 * A running chat, as `RelayClient.chat` returns it. Iterate over it, listen to it, or await
 * `result()`.
 */
export class Chat implements AsyncIterable<ChatEvent> {
  private constructor();
  readonly id: string;
  /** The text so far, without what a fallback discarded. */
  readonly text: string;
  readonly finished: boolean;
  readonly answer: Answer;
  /** Returns a function that removes the listener. `*` stands for every event. */
  on<Type extends keyof ChatEvents>(type: Type, listener: (event: ChatEvents[Type]) => void): () => void;
  on(type: '*', listener: (event: ChatEvents[keyof ChatEvents]) => void): () => void;
  /** Ask the relay to stop; the answer then ends with `done` and `cancelled`. */
  cancel(): void;
  /** The end, with the whole text. Rejects with `RelayError` if the answer failed. */
  result(): Promise<DoneEvent & { text: string }>;
  [Symbol.asyncIterator](): AsyncIterator<ChatEvent>;
}

export interface StatusEvent {
  type: 'status';
  state: 'waiting' | 'connecting' | 'online' | 'stopped' | 'closed';
  /** ms until the next try, while `waiting`. */
  delay?: number;
  /** Why the relay does not want a reconnect, when `stopped`. */
  error?: RelayError;
}

export interface ReadyEvent {
  type: 'ready';
  frame: ReadyFrame;
}

/** An error of the relay that belongs to no chat. */
export interface ProblemEvent {
  type: 'problem';
  frame: ErrorFrame;
}

export interface RelayClientEvents {
  status: StatusEvent;
  ready: ReadyEvent;
  problem: ProblemEvent;
}

export interface RelayClientOptions {
  token?: string | null;
  /** The secret of a session to resume: 22 to 64 characters of `A-Za-z0-9_-`. */
  session?: string;
  WebSocket?: typeof WebSocket;
}

export class RelayClient {
  /** `url` defaults to `/ws` beside the page. Connects with the first chat. */
  constructor(url?: string, options?: RelayClientOptions);
  readonly url: string;
  readonly state: 'idle' | StatusEvent['state'];
  /** The relay's last `ready`, null before any. */
  readonly ready: ReadyFrame | null;
  /** The relay's providers, its default first; empty before `ready`. */
  readonly providers: Provider[];
  connect(): void;
  /** Use another token from the next connection on. */
  setToken(token: string | null): void;
  /** Throws if the client is closed or a chat with this id is running. */
  chat(request: ChatRequest): Chat;
  cancel(id: string): void;
  /** If the client waits, try to connect at once; send a ping on silent connections. */
  nudge(): void;
  /** Close for good; running answers go on at the relay for its grace period. */
  close(): void;
  /** Returns a function that removes the listener. `*` stands for every event. */
  on<Type extends keyof RelayClientEvents>(type: Type, listener: (event: RelayClientEvents[Type]) => void): () => void;
  on(type: '*', listener: (event: RelayClientEvents[keyof RelayClientEvents]) => void): () => void;
}

/** `length` random characters of `A-Za-z0-9_-`. */
export function randomName(length: number): string;

/** `/ws` on the host of a page. */
export function sameOriginUrl(location?: { protocol: string; host: string }): string;
