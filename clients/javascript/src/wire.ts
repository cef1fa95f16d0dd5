/** Options as bodies of requests, and bodies of answers as results. Nothing is sent here. */
import { kindOfStatus, NerveError } from "./errors.ts";
import type {
  AnswerInfo,
  CallOptions,
  ExtractOptions,
  OffsetUnit,
  PredictTokensOptions,
  TextOptions,
} from "./options.ts";
import type { Entity, ModelStatus, ModelSummary, Token, TokenResult } from "./results.ts";
import { retryAfterSeconds } from "./retry.ts";

/** A whole answer. */
export interface Reply {
  readonly status: number;
  readonly headers: Headers;
  readonly body: string;
}

/** What is asked of a route, and how its answer is read. */
export interface Question<R> {
  readonly route: "predict_tokens" | "predict";
  /** The body without its texts; what is undefined is left out. */
  readonly body: Readonly<Record<string, unknown>>;
  /** The results, one for each text. */
  readonly read: (body: unknown) => R[];
}

export function extractQuestion(options: ExtractOptions, unit: OffsetUnit): Question<Entity[]> {
  return {
    route: "predict_tokens",
    body: {
      ...cut(options, unit),
      aggregation_strategy: options.aggregation,
      default_aggregation_strategy: "simple",
      threshold: options.threshold,
      labels: options.labels,
    },
    read: (body) => (body as WireSpan[][]).map((spans) => spans.map(entity)),
  };
}

export function predictTokensQuestion(
  options: PredictTokensOptions,
  unit: OffsetUnit,
): Question<TokenResult[]> {
  return {
    route: "predict_tokens",
    body: {
      ...cut(options, unit),
      aggregation_strategy: options.aggregation,
      ignore_labels: options.ignoreLabels,
      raw_scores: options.rawScores,
    },
    read: (body) => (body as WireSpan[][]).map((spans) => spans.map(tokenResult)),
  };
}

export function predictQuestion(unit: OffsetUnit): Question<Token[]> {
  return {
    route: "predict",
    body: { offset_unit: unit },
    read: (body) => (body as WirePrediction).results.map(({ tokens }) => tokens.map(token)),
  };
}

/** The path of a route, for a model, one of its versions, or the default model. */
export function routePath(route: string, { model, version }: CallOptions): string {
  if (model === undefined) {
    if (version !== undefined) throw new TypeError("a version needs the name of its model");
    return `/${route}`;
  }
  const ofVersion = version === undefined ? "" : `/versions/${encodeURIComponent(version)}`;
  return `${modelPath(model)}${ofVersion}/${route}`;
}

/** The path of a model. */
export function modelPath(name: string): string {
  return `/v1/models/${encodeURIComponent(name)}`;
}

export function readModels(body: unknown): ModelSummary[] {
  const { models } = camelCase(body) as { models: unknown };
  if (!Array.isArray(models)) throw new TypeError("it lists no models");
  return models as ModelSummary[];
}

export function readModel(body: unknown): ModelStatus {
  const status = camelCase(body) as ModelStatus;
  if (typeof status.name !== "string") throw new TypeError("it names no model");
  return status;
}

/** What an answer's headers tell. */
export function answerInfo({ headers }: Reply): AnswerInfo {
  return {
    model: headers.get("x-nerve-model") ?? "",
    version: headers.get("x-nerve-model-version") ?? "",
    truncatedTexts: Number(headers.get("x-nerve-truncated-inputs") ?? 0),
  };
}

/**
 * Read a JSON answer.
 * @throws NerveError it is none, or not of the shape that `read` expects.
 */
export function readAnswer<R>(reply: Reply, path: string, read: (body: unknown) => R): R {
  try {
    return read(JSON.parse(reply.body));
  } catch (error) {
    throw new NerveError("server_error", `what answered ${path} does not speak this protocol`, {
      status: reply.status,
      reason: "invalid_answer",
      cause: error,
    });
  }
}

/** The error that a reply is, in any of the server's shapes or none of them. */
export function errorOf(reply: Reply, path: string, nowUnixMs: number): NerveError {
  const { status, headers } = reply;
  const { error, reason, error_type } = errorBody(reply);
  const said = typeof error === "string" && error !== "" ? error : `HTTP ${status} from ${path}`;
  const ofServer = [headers.get("x-nerve-reason"), reason, error_type].find(
    (each) => typeof each === "string",
  );
  const retryAfter = retryAfterSeconds(headers.get("retry-after"), nowUnixMs);
  const facts = { status, reason: ofServer, retryAfter };
  if (status !== 404 || !isUnserved(ofServer, said)) {
    return new NerveError(kindOfStatus(status), said, facts);
  }
  const hint = `${said} (is the URL that the client was made with the server's root?)`;
  return new NerveError("not_found", hint, facts);
}

/** Whether a path is not there, rather than a model: for that the server always gives a reason. */
function isUnserved(reason: string | undefined, said: string): boolean {
  return reason === undefined || reason === "not_served" || said.includes("is not served");
}

interface ErrorBody {
  readonly error?: unknown;
  readonly reason?: unknown;
  readonly error_type?: unknown;
}

interface WireSpan {
  readonly token: string;
  readonly token_id: number;
  readonly start: number;
  readonly end: number;
  readonly results: Record<string, number>;
}

interface WireToken {
  readonly token_info: Omit<WireSpan, "results">;
  readonly scores: number[];
  readonly label: string;
  readonly score: number;
}

interface WirePrediction {
  readonly results: { readonly tokens: WireToken[] }[];
}

function cut(options: TextOptions, unit: OffsetUnit): Record<string, unknown> {
  return {
    offset_unit: unit,
    truncate: options.truncate,
    truncation_direction: options.truncationSide,
  };
}

function entity({ token, start, end, results }: WireSpan): Entity {
  const [best] = Object.entries(results);
  if (best === undefined) throw new TypeError("an entity without a label");
  const [label, score] = best;
  return { text: token, label, start, end, score };
}

function tokenResult({ token, token_id, start, end, results }: WireSpan): TokenResult {
  return { token, tokenId: token_id, start, end, results };
}

function token({ token_info: place, scores, label, score }: WireToken): Token {
  const { token, token_id, start, end } = place;
  return { token, tokenId: token_id, start, end, scores, label, score };
}

/** The same JSON with keys in camel case; only for answers that have no keys of the user's. */
function camelCase(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(camelCase);
  if (typeof value !== "object" || value === null) return value;
  const entries = Object.entries(value).map(([key, inner]) => [
    key.replace(/_([a-z])/g, (_, letter: string) => letter.toUpperCase()),
    camelCase(inner),
  ]);
  return Object.fromEntries(entries);
}

function errorBody({ headers, body }: Reply): ErrorBody {
  const kind = headers.get("content-type") ?? "";
  if (kind.startsWith("text/plain")) return { error: body.trim().slice(0, 500) };
  try {
    const parsed: unknown = JSON.parse(body);
    return typeof parsed === "object" && parsed !== null ? parsed : {};
  } catch {
    return {}; // a proxy's page
  }
}
