/** What a client and its calls can be told. */
import type { RetryPolicy } from "./retry.ts";

/** How word pieces become entities, as in `transformers.pipeline("ner")`. */
export type Aggregation = "none" | "simple" | "first" | "average" | "max";

/** What `start` and `end` count: `utf16` is what JavaScript's `slice` counts. */
export type OffsetUnit = "codepoint" | "byte" | "utf16";

/** The end that a text longer than the model is cut at. */
export type TruncationSide = "left" | "right";

/** Who answered a request, and what it did to the texts. */
export interface AnswerInfo {
  /** Name of the model that answered. */
  readonly model: string;
  /** Its version. */
  readonly version: string;
  /** How many of the request's texts were cut because they are longer than the model. */
  readonly truncatedTexts: number;
}

/** What every call takes. */
export interface ProbeOptions {
  /** Most milliseconds for the whole call, tries and pauses included; by default the client's. */
  readonly timeoutMs?: number | undefined;
  /** Ends the call; it rejects with the signal's reason. */
  readonly signal?: AbortSignal | undefined;
}

/** What every inference call takes. */
export interface CallOptions extends ProbeOptions {
  /** By default the client's, else the server's default model. */
  readonly model?: string | undefined;
  /** Only together with `model`; by default the version that the model's policy names. */
  readonly version?: string | number | undefined;
  /** A whole number from 1 (goes first) to 10; by default the client's, else the model's. */
  readonly priority?: number | undefined;
  /** Called for each answer of the server; a call with many texts takes several requests. */
  readonly onAnswer?: ((info: AnswerInfo) => void) | undefined;
}

/** Options of `predict`. */
export interface PredictOptions extends CallOptions {
  /** By default the client's, which is `utf16` if nothing else was said. */
  readonly offsetUnit?: OffsetUnit | undefined;
}

/** How texts are cut, and places in them counted. */
export interface TextOptions extends PredictOptions {
  /** Whether a text longer than the model is cut (the default) or refused. */
  readonly truncate?: boolean | undefined;
  /** The end that it is cut at; by default what the model's config says, else the right one. */
  readonly truncationSide?: TruncationSide | undefined;
}

/** Options of `extract`. */
export interface ExtractOptions extends TextOptions {
  /** How word pieces become entities; by default as the model's config says, else `simple`. */
  readonly aggregation?: Aggregation | undefined;
  /** Least score of an entity, 0 to 1. */
  readonly threshold?: number | undefined;
  /** Only entities with one of these labels, without prefix: `["PER", "LOC"]`; none means all. */
  readonly labels?: readonly string[] | undefined;
}

/** Options of `extractMany`; `timeoutMs` is that of a request, since the whole may take for ever. */
export interface ExtractManyOptions extends ExtractOptions {
  /** Texts in a request, 1 to the client's `maxTexts`; default 32. */
  readonly batchSize?: number | undefined;
  /** Requests in flight at most; default 4. */
  readonly concurrency?: number | undefined;
  /** What is done with the error of one text alone: thrown in its turn (default), or given. */
  readonly onError?: "throw" | "return" | undefined;
}

/** Options of `predictTokens`. */
export interface PredictTokensOptions extends TextOptions {
  /** By default what the model's config says, else `none`: tokens. */
  readonly aggregation?: Aggregation | undefined;
  /** Labels that are left out; by default `["O"]`. With prefix (`B-PER`) for tokens, else without. */
  readonly ignoreLabels?: readonly string[] | undefined;
  /** Logits in place of probabilities; for tokens, those of all labels. */
  readonly rawScores?: boolean | undefined;
}

/** Options of a client; calls may override the first five. */
export interface ClientOptions {
  /** The model that answers; by default the server's default model. */
  readonly model?: string | undefined;
  /** Its version; only together with `model`. */
  readonly version?: string | number | undefined;
  /** Default 60000. */
  readonly timeoutMs?: number | undefined;
  /** A whole number from 1 (goes first) to 10. */
  readonly priority?: number | undefined;
  /** What offsets count; default `utf16`, so that `text.slice(start, end)` is the entity. */
  readonly offsetUnit?: OffsetUnit | undefined;
  /** When to try again after 429, 503 and connection failures; `false` for never. */
  readonly retry?: Partial<RetryPolicy> | false | undefined;
  /** Texts in a request at most; more are sent in several. Default 128, the server's own limit. */
  readonly maxTexts?: number | undefined;
  /** Sent with every request, `Authorization` for a gateway for instance. */
  readonly headers?: Readonly<Record<string, string>> | undefined;
  /** In place of the global `fetch`. */
  readonly fetch?: typeof globalThis.fetch | undefined;
}
