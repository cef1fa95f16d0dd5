/** The client: one method for each thing that the server does. */
import {
  checkIterable,
  checkNames,
  checkTimeout,
  CLIENT,
  count,
  EXTRACT,
  EXTRACT_MANY,
  PREDICT,
  PREDICT_TOKENS,
  PROBE,
  RETRY,
  rootOf,
  textsOf,
} from "./checks.ts";
import { ItemError, NerveError } from "./errors.ts";
import { inOrder, packed } from "./flow.ts";
import { batches, flat, isolated } from "./many.ts";
import type {
  CallOptions,
  ClientOptions,
  ExtractManyOptions,
  ExtractOptions,
  PredictOptions,
  PredictTokensOptions,
  ProbeOptions,
} from "./options.ts";
import type { Entity, ModelStatus, ModelSummary, Token, TokenResult } from "./results.ts";
import { DEFAULT_RETRY } from "./retry.ts";
import { Limit, Transport } from "./transport.ts";
import {
  answerInfo,
  extractQuestion,
  modelPath,
  predictQuestion,
  predictTokensQuestion,
  readAnswer,
  readModel,
  readModels,
  routePath,
} from "./wire.ts";
import type { Question } from "./wire.ts";

const CONCURRENCY = 4;
const TIMEOUT_MS = 60_000;

/**
 * A Nerve server.
 *
 * It holds no connection of its own and needs no closing. Every method rejects with a `NerveError`,
 * with the reason of its signal when that was aborted, or with a TypeError: what it was given
 * cannot be right.
 *
 * @example
 * const client = new NerveClient("http://localhost:8080");
 * const entities = await client.extract("Ada Lovelace lived in London.");
 */
export class NerveClient {
  readonly #transport: Transport;
  readonly #options: ClientOptions;
  readonly #maxTexts: number;

  /**
   * @param url Root of the server, a path below which it is served included. In a browser it may be
   * relative to the page: `"/"` is its own origin.
   * @throws RangeError, TypeError the URL, a header or an option is none.
   */
  constructor(url: string | URL, options: ClientOptions = {}) {
    checkNames(options, CLIENT);
    const { retry = {}, maxTexts = 128, timeoutMs = TIMEOUT_MS } = options;
    if (retry !== false) checkNames(retry, RETRY);
    checkTimeout(timeoutMs);
    this.#options = options;
    this.#maxTexts = count("maxTexts", maxTexts);
    this.#transport = new Transport(
      rootOf(url),
      new Headers(options.headers),
      retry === false ? { ...DEFAULT_RETRY, attempts: 1 } : { ...DEFAULT_RETRY, ...retry },
      options.fetch,
    );
  }

  /** The entities of a text, or of each of several texts, in the order of the texts. */
  extract(text: string, options?: ExtractOptions): Promise<Entity[]>;
  extract(texts: readonly string[], options?: ExtractOptions): Promise<Entity[][]>;
  extract(
    texts: string | readonly string[],
    options?: ExtractOptions,
  ): Promise<Entity[] | Entity[][]>;
  async extract(
    texts: string | readonly string[],
    options: ExtractOptions = {},
  ): Promise<Entity[] | Entity[][]> {
    checkNames(options, EXTRACT);
    return this.#ask(texts, options, extractQuestion(options, this.#unit(options)));
  }

  /**
   * The entities of each of any number of texts, in order.
   *
   * Texts are read only as far as requests for them may be sent; leaving the loop aborts what is in
   * flight. A text that is refused alone (empty, too long) is an `ItemError`, thrown after the
   * results of the texts before or, with `onError: "return"`, given in its place. What every text
   * would meet, a server that is away for instance, is thrown and ends it.
   *
   * @throws RangeError, TypeError an option is wrong.
   */
  extractMany(
    texts: Iterable<string> | AsyncIterable<string>,
    options?: ExtractManyOptions & { readonly onError?: "throw" | undefined },
  ): AsyncGenerator<Entity[], void, undefined>;
  extractMany(
    texts: Iterable<string> | AsyncIterable<string>,
    options: ExtractManyOptions,
  ): AsyncGenerator<Entity[] | ItemError, void, undefined>;
  extractMany(
    texts: Iterable<string> | AsyncIterable<string>,
    options: ExtractManyOptions = {},
  ): AsyncGenerator<Entity[] | ItemError, void, undefined> {
    checkNames(options, EXTRACT_MANY);
    checkIterable(texts);
    const { onError = "throw" } = options;
    if (onError !== "throw" && onError !== "return") {
      throw new TypeError(`onError: expected "throw" or "return", got ${String(onError)}`);
    }
    checkTimeout(options.timeoutMs ?? TIMEOUT_MS);
    const batchSize = count(
      "batchSize",
      options.batchSize ?? Math.min(32, this.#maxTexts),
      this.#maxTexts,
    );
    const concurrency = count("concurrency", options.concurrency ?? CONCURRENCY);
    const question = extractQuestion(options, this.#unit(options));
    const found = inOrder(
      batches(texts, batchSize),
      concurrency,
      options.signal,
      (batch, signal) =>
        isolated(batch, (part) =>
          this.#send(part, options, question, this.#limit({ ...options, signal })),
        ),
    );
    return flat(found, onError);
  }

  /** Entities or labelled tokens, as the server's `/predict_tokens` has them. */
  predictTokens(text: string, options?: PredictTokensOptions): Promise<TokenResult[]>;
  predictTokens(texts: readonly string[], options?: PredictTokensOptions): Promise<TokenResult[][]>;
  predictTokens(
    texts: string | readonly string[],
    options?: PredictTokensOptions,
  ): Promise<TokenResult[] | TokenResult[][]>;
  async predictTokens(
    texts: string | readonly string[],
    options: PredictTokensOptions = {},
  ): Promise<TokenResult[] | TokenResult[][]> {
    checkNames(options, PREDICT_TOKENS);
    return this.#ask(texts, options, predictTokensQuestion(options, this.#unit(options)));
  }

  /** Every token with the logits of all labels, as the server's `/predict` has them. */
  predict(text: string, options?: PredictOptions): Promise<Token[]>;
  predict(texts: readonly string[], options?: PredictOptions): Promise<Token[][]>;
  predict(
    texts: string | readonly string[],
    options?: PredictOptions,
  ): Promise<Token[] | Token[][]>;
  async predict(
    texts: string | readonly string[],
    options: PredictOptions = {},
  ): Promise<Token[] | Token[][]> {
    checkNames(options, PREDICT);
    return this.#ask(texts, options, predictQuestion(this.#unit(options)));
  }

  /** Every model in the server's repository, by name. */
  models(options: ProbeOptions = {}): Promise<ModelSummary[]> {
    return this.#get("/v1/models", options, readModels);
  }

  /** State, versions, labels, limits and statistics of a model. */
  model(name: string, options: ProbeOptions = {}): Promise<ModelStatus> {
    return this.#get(modelPath(name), options, readModel);
  }

  /** Whether the server wants traffic; false too if nobody answers. Tried once. */
  ready(options: ProbeOptions = {}): Promise<boolean> {
    return this.#probe("/readyz", options);
  }

  /** Whether the server's process answers. Tried once. */
  live(options: ProbeOptions = {}): Promise<boolean> {
    return this.#probe("/livez", options);
  }

  #unit(options: PredictOptions): NonNullable<PredictOptions["offsetUnit"]> {
    return options.offsetUnit ?? this.#options.offsetUnit ?? "utf16";
  }

  #limit({ timeoutMs, signal }: ProbeOptions): Limit {
    return new Limit(timeoutMs ?? this.#options.timeoutMs ?? TIMEOUT_MS, signal);
  }

  async #ask<R>(
    texts: string | readonly string[],
    options: CallOptions,
    question: Question<R>,
  ): Promise<R | R[]> {
    const limit = this.#limit(options);
    const packs = packed(textsOf(texts), this.#maxTexts);
    const answers = inOrder(packs, CONCURRENCY, options.signal, (pack, signal) =>
      this.#send(pack, options, question, limit.with(signal)),
    );
    const results: R[] = [];
    for await (const answer of answers) results.push(...answer);
    if (typeof texts !== "string") return results;
    const [only] = results;
    return only as R; // there is one, or `#send` has thrown
  }

  async #send<R>(
    texts: readonly string[],
    options: CallOptions,
    question: Question<R>,
    limit: Limit,
  ): Promise<R[]> {
    const { model, version } = this.#options;
    const path = routePath(
      question.route,
      options.model === undefined ? { model, version: options.version ?? version } : options,
    );
    const body = JSON.stringify({ inputs: texts, ...question.body });
    const priority = options.priority ?? this.#options.priority;
    const reply = await this.#transport.send({ path, body, priority }, limit);
    const results = readAnswer(reply, path, (parsed) => {
      const read = question.read(parsed);
      if (read.length === texts.length) return read;
      throw new TypeError(`${read.length} results for ${texts.length} texts`);
    });
    options.onAnswer?.(answerInfo(reply));
    return results;
  }

  async #get<R>(path: string, options: ProbeOptions, read: (body: unknown) => R): Promise<R> {
    checkNames(options, PROBE);
    return readAnswer(await this.#transport.send({ path }, this.#limit(options)), path, read);
  }

  async #probe(path: string, options: ProbeOptions): Promise<boolean> {
    checkNames(options, PROBE);
    try {
      await this.#transport.once({ path }, this.#limit(options));
      return true;
    } catch (error) {
      if (!(error instanceof NerveError)) throw error;
      if (error.temporary || error.kind === "deadline_exceeded") return false;
      throw error;
    }
  }
}
