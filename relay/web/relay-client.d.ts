/** Types of `relay-client.js`, the browser client of the chat relay. */

export type FinishReason = 'stop' | 'length' | 'content_filter' | 'tool_calls' | 'cancelled';

export interface TextPart {
  type: 'text';
  text: string;
}

/** An image: base64 `data` or a `url`, exactly one of them. */
export interface ImagePart {
  type: 'image';
  media_type: string;
  data?: string;
  url?: string;
}

export interface ToolCall {
  call_id: string;
  name: string;
  arguments: Record<string, unknown>;
  /** Opaque; send it back with the call. */
  state?: string;
}

export interface Message {
  role: 'user' | 'assistant' | 'tool' | 'system';
  content: string | Array<TextPart | ImagePart>;
  tool_calls?: ToolCall[];
  call_id?: string;
}

export interface Tool {
  name: string;
  description: string;
  /** A JSON Schema object. */
  parameters: Record<string, unknown>;
}

/** The fields of the `chat` frame. A string is one user message. */
export interface ChatRequest {
  id?: string;
  messages: string | Message[];
  provider?: string | null;
  system?: string | null;
  max_tokens?: number | null;
  stop?: string[] | null;
  tools?: Tool[] | null;
  /** `auto`, `none`, `required` or a tool's name. */
  tool_choice?: string | null;
  conversation?: string | null;
  /** false: no other target, no rescue. */
  fallback?: boolean | null;
}

export interface Target {
  provider: string;
  model: string;
}

export interface Usage {
  input_tokens: number;
  output_tokens: number;
  cached_input_tokens?: number;
  reasoning_tokens?: number;
  estimated: boolean;
}

export interface Attempt extends Target {
  /** `ok`, `cancelled` or an error code. */
  outcome: string;
  ms: number;
  hedge?: boolean;
  usage?: Usage;
}

export interface StartEvent extends Target {
  type: 'start';
  stream: string;
}

export interface TextEvent {
  type: 'text' | 'reasoning';
  text: string;
}

export interface ToolCallEvent extends ToolCall {
  type: 'toolCall';
}

/** Another target takes over. `keep` false: discard all text and reasoning shown so far. */
export interface FallbackEvent {
  type: 'fallback';
  from: Target;
  to: Target;
  reason: string;
  keep: boolean;
}

/** The answer's end. Counts are missing where it was cancelled before it was sent. */
export interface DoneEvent {
  type: 'done';
  provider: string | null;
  model: string | null;
  finish_reason: FinishReason;
  usage?: Usage;
  cost_usd?: number;
  attempts?: Attempt[];
  timing?: { first_token_ms: number | null; total_ms: number };
}

export interface ErrorEvent {
  type: 'error';
  error: RelayError;
}

export interface ChatEvents {
  start: StartEvent;
  text: TextEvent;
  reasoning: TextEvent;
  toolCall: ToolCallEvent;
  fallback: FallbackEvent;
  done: DoneEvent;
  error: ErrorEvent;
}

export type ChatEvent = Exclude<ChatEvents[keyof ChatEvents], ErrorEvent>;

/** What the relay said where an answer failed. */
export class RelayError extends Error {
  readonly code: string;
  readonly retryable: boolean;
  /** Seconds. */
  readonly retryAfter: number | null;
  readonly attempts: Attempt[];
}

/** What has come of one answer. */
export interface Answer {
  readonly id: string;
  /** The last seq applied, -1 before any. */
  readonly last: number;
  readonly status: 'waiting' | 'streaming' | 'done' | 'error';
  readonly stream: string | null;
  readonly provider: string | null;
  readonly model: string | null;
  readonly text: string;
  readonly reasoning: string;
  readonly toolCalls: ToolCall[];
  readonly finished: boolean;
}

/** One chat under way. Iterate over it, listen to it, or await `result()`. */
export interface Chat extends AsyncIterable<ChatEvent> {
  readonly id: string;
  /** The text so far; what a fallback discarded is not in it. */
  readonly text: string;
  readonly finished: boolean;
  readonly answer: Answer;
  /** Returns a function that ends the listening. `*` stands for every event. */
  on<Type extends keyof ChatEvents>(type: Type, listener: (event: ChatEvents[Type]) => void): () => void;
  on(type: '*', listener: (event: ChatEvents[keyof ChatEvents]) => void): () => void;
  /** Ask the relay to stop; the answer then ends with `done` and `cancelled`. */
  cancel(): void;
  /** The end, with the whole text. Rejects with `RelayError` where the answer failed. */
  result(): Promise<Omit<DoneEvent, 'type'> & { text: string }>;
}

export interface Provider {
  name: string;
  model: string;
  status: 'ok' | 'degraded' | 'down' | 'unknown';
}

export interface StatusEvent {
  type: 'status';
  state: 'waiting' | 'connecting' | 'online' | 'stopped' | 'closed';
  /** ms until the next try, while `waiting`. */
  delay?: number;
  /** Why the relay wants no reconnect, when `stopped`. */
  error?: RelayError;
}

export interface ReadyEvent {
  type: 'ready';
  frame: { session: string; resumed: boolean; features: string[]; providers: Provider[]; heartbeat: number };
}

/** An error of the relay that belongs to no chat. */
export interface ProblemEvent {
  type: 'problem';
  frame: { code: string; message: string };
}

export interface RelayClientOptions {
  token?: string | null;
  /** The secret of a session to take up: 22 to 64 characters of `A-Za-z0-9_-`. */
  session?: string;
  WebSocket?: typeof WebSocket;
}

export class RelayClient {
  /** `url` defaults to `/ws` beside the page. Connects with the first chat. */
  constructor(url?: string, options?: RelayClientOptions);
  readonly url: string;
  readonly state: 'idle' | StatusEvent['state'];
  /** What the relay offers, its default first; empty before `ready`. */
  readonly providers: Provider[];
  connect(): void;
  /** Use another token from the next connection on. */
  setToken(token: string | null): void;
  /** Throws where the client is closed or the id is under way. */
  chat(request: ChatRequest): Chat;
  cancel(id: string): void;
  /** Try at once where the client waits, and ask silent connections for a sign of life. */
  nudge(): void;
  /** Close for good; answers under way are left to the relay's grace. */
  close(): void;
  on(type: 'status', listener: (event: StatusEvent) => void): () => void;
  on(type: 'ready', listener: (event: ReadyEvent) => void): () => void;
  on(type: 'problem', listener: (event: ProblemEvent) => void): () => void;
}

/** `length` random characters of `A-Za-z0-9_-`. */
export function randomName(length: number): string;

/** `/ws` on the host of a page. */
export function sameOriginUrl(location?: { protocol: string; host: string }): string;
