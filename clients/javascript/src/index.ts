/** Client of Nerve, a named-entity-recognition server. */
export { NerveClient } from "./client.ts";
export { ItemError, NerveError } from "./errors.ts";
export type { ErrorFacts, ErrorKind } from "./errors.ts";
export type {
  Aggregation,
  AnswerInfo,
  CallOptions,
  ClientOptions,
  ExtractManyOptions,
  ExtractOptions,
  OffsetUnit,
  PredictOptions,
  PredictTokensOptions,
  ProbeOptions,
  TextOptions,
  TruncationSide,
} from "./options.ts";
export type {
  CostModel,
  Entity,
  Limits,
  ModelState,
  ModelStatus,
  ModelSummary,
  Statistics,
  Token,
  TokenResult,
  VersionStatus,
} from "./results.ts";
export type { RetryPolicy } from "./retry.ts";
