/** What comes back. Offsets are half-open ranges of the text, in the unit that was asked for. */

/** A named entity: a person, a place, or whatever the model's labels name. */
export interface Entity {
  readonly text: string;
  /** Without prefix (`PER`), unless `aggregation` is `none`. */
  readonly label: string;
  readonly start: number;
  readonly end: number;
  /** Probability, 0 to 1. */
  readonly score: number;
}

/** An entity, or a token where `aggregation` is `none`. */
export interface TokenResult {
  /** The slice of the text. */
  readonly token: string;
  /** In the vocabulary; 0 for an entity. */
  readonly tokenId: number;
  readonly start: number;
  readonly end: number;
  /** Label to score. */
  readonly results: Readonly<Record<string, number>>;
}

/** A token with the model's raw scores. */
export interface Token {
  /** The piece of the vocabulary, `##ing` for instance. */
  readonly token: string;
  readonly tokenId: number;
  readonly start: number;
  readonly end: number;
  /** A logit for each label, in the order of the model's `labels`. */
  readonly scores: readonly number[];
  /** That with the highest score. */
  readonly label: string;
  readonly score: number;
}

/** What a model or version is; only READY ones answer. */
export type ModelState = "UNAVAILABLE" | "LOADING" | "READY" | "UNLOADING";

/** A line of the list of models. */
export interface ModelSummary {
  readonly name: string;
  /** That of the version that answers, or the best. */
  readonly state: ModelState;
  /** Why it is not READY, or why what is on the disk is not loaded; else empty. */
  readonly reason: string;
  readonly versions: readonly string[];
  /** Whether it answers where no model is named. */
  readonly default: boolean;
}

/** What one request or one run may hold. */
export interface Limits {
  /** Tokens of a text, special ones counted. */
  readonly maxTokens: number;
  /** Tokens that windows over long texts share; null when long texts are cut. */
  readonly stride: number | null;
  /** Rows in one run. */
  readonly maxBatchSize: number;
  /** Tokens in one run, padding counted. */
  readonly maxNumTokens: number;
  /** Texts that may wait. */
  readonly maxQueueSize: number;
}

/** Totals since the version was loaded. */
export interface Statistics {
  readonly batches: number;
  readonly rows: number;
  readonly tokens: number;
  readonly paddedTokens: number;
  readonly queuedRows: number;
  readonly meanBatchSize: number;
  /** Share of the tokens run that was padding. */
  readonly paddingWaste: number;
}

/**
 * Seconds of a run of n = rows x length tokens, as measured:
 * runS + n (tokenS + attentionS length + crowdingS n / (n + 256)).
 */
export interface CostModel {
  readonly runS: number;
  readonly tokenS: number;
  readonly attentionS: number;
  readonly crowdingS: number;
}

/** One version; all but the first three are null unless it is READY. */
export interface VersionStatus {
  readonly version: string;
  readonly state: ModelState;
  readonly reason: string;
  /** Where it runs: `cpu` or `gpu`. */
  readonly device: string | null;
  readonly labels: readonly string[] | null;
  readonly limits: Limits | null;
  readonly statistics: Statistics | null;
  readonly costModel: CostModel | null;
}

/** All about a model; `labels` and `limits` are those of the version that answers, if any. */
export interface ModelStatus {
  readonly name: string;
  readonly task: string;
  readonly state: ModelState;
  readonly reason: string;
  readonly default: boolean;
  readonly labels: readonly string[] | null;
  readonly limits: Limits | null;
  /** Whether it was loaded with a config that is not the one on the disk. */
  readonly configOverride: boolean;
  readonly versions: readonly VersionStatus[];
}
