/** The client: one method for each thing that the server does. */
import { NerveError } from "./errors.ts";
import { inOrder, packed } from "./flow.ts";
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

/**
 * A Nerve server.
 *
 * It holds no connection of its own and needs no closing. Every method rejects with a `NerveError`,
 * or with the reason of its signal when that was aborted.
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
   * @throws TypeError the URL or a header is none.
   */
  constructor(url: string | URL, options: ClientOptions = {}) {
    const { retry = {}, maxTexts = 128 } = options;
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
  extract(
    texts: string | readonly string[],
    options: ExtractOptions = {},
  ): Promise<Entity[] | Entity[][]> {
    return this.#ask(texts, options, extractQuestion(options, this.#unit(options)));
  }

  /**
   * The entities of each of any number of texts, in order.
   *
   * Texts are read only as far as requests for them may be sent. A request that fails ends it, after
   * the results of the texts before; leaving the loop aborts what is in flight.
   *
   * @throws RangeError, TypeError an option is wrong.
   */
  extractMany(
    texts: Iterable<string> | AsyncIterable<string>,
    options: ExtractManyOptions = {},
  ): AsyncGenerator<Entity[], void, undefined> {
    if (typeof texts === "string") throw new TypeError("extractMany takes many texts, not one");
    const batchSize = count(
      "batchSize",
      options.batchSize ?? Math.min(32, this.#maxTexts),
      this.#maxTexts,
    );
    const concurrency = count("concurrency", options.concurrency ?? CONCURRENCY);
    const question = extractQuestion(options, this.#unit(options));
    const batches = inOrder(
      packed(texts, batchSize),
      concurrency,
      options.signal,
      (batch, signal) => this.#send(batch, options, question, this.#limit({ ...options, signal })),
    );
    return flat(batches);
  }

  /** Entities or labelled tokens, as the server's `/predict_tokens` has them. */
  predictTokens(text: string, options?: PredictTokensOptions): Promise<TokenResult[]>;
  predictTokens(texts: readonly string[], options?: PredictTokensOptions): Promise<TokenResult[][]>;
  predictTokens(
    texts: string | readonly string[],
    options?: PredictTokensOptions,
  ): Promise<TokenResult[] | TokenResult[][]>;
  predictTokens(
    texts: string | readonly string[],
    options: PredictTokensOptions = {},
  ): Promise<TokenResult[] | TokenResult[][]> {
    return this.#ask(texts, options, predictTokensQuestion(options, this.#unit(options)));
  }

  /** Every token with the logits of all labels, as the server's `/predict` has them. */
  predict(text: string, options?: PredictOptions): Promise<Token[]>;
  predict(texts: readonly string[], options?: PredictOptions): Promise<Token[][]>;
  predict(
    texts: string | readonly string[],
    options?: PredictOptions,
  ): Promise<Token[] | Token[][]>;
  predict(
    texts: string | readonly string[],
    options: PredictOptions = {},
  ): Promise<Token[] | Token[][]> {
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
    return new Limit(timeoutMs ?? this.#options.timeoutMs ?? 60_000, signal);
  }

  async #ask<R>(
    texts: string | readonly string[],
    options: CallOptions,
    question: Question<R>,
  ): Promise<R | R[]> {
    const limit = this.#limit(options);
    const packs = packed(typeof texts === "string" ? [texts] : texts, this.#maxTexts);
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
    return readAnswer(await this.#transport.send({ path }, this.#limit(options)), path, read);
  }

  async #probe(path: string, options: ProbeOptions): Promise<boolean> {
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

function rootOf(url: string | URL): string {
  const page = typeof location === "undefined" ? undefined : location.href;
  const { protocol, username, password, href } = new URL(url, page);
  if (protocol !== "http:" && protocol !== "https:") {
    throw new TypeError(`the server's URL must begin with http or https, not ${protocol}`);
  }
  if (username || password) throw new TypeError("put credentials into headers, not into the URL");
  return href.replace(/[?#].*$/, "").replace(/\/+$/, "");
}

function count(name: string, value: number, most = Number.MAX_SAFE_INTEGER): number {
  if (Number.isInteger(value) && value >= 1 && value <= most) return value;
  const range = most === Number.MAX_SAFE_INTEGER ? "at least 1" : `1 to ${most}`;
  throw new RangeError(`${name} must be a whole number, ${range}, not ${value}`);
}

async function* flat<R>(
  lists: AsyncGenerator<R[], void, undefined>,
): AsyncGenerator<R, void, undefined> {
  for await (const list of lists) yield* list;
}
