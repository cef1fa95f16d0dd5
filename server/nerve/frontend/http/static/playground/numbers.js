// What the models page computes from /v1/metrics. Pure: no page, no network, no clock.

/** Families that the page asks for; everything below reads these and no others. */
export const FAMILIES = [
  "nerve_requests_total", "nerve_request_seconds",
  "nerve_model_requests_total", "nerve_model_info", "nerve_model_load_timestamp_seconds",
  "nerve_queue_seconds", "nerve_run_seconds", "nerve_batch_rows",
  "nerve_tokens_total", "nerve_padded_tokens_total", "nerve_queue_rows", "nerve_queue_age_seconds",
];
/** Requests of these are not for models: probes, this page. */
const OTHERS = new Set(["native", "playground"]);
const OK = new Set(["ok"]);
const NEITHER = new Set(["cancelled"]);

function emptyHistogram() {
  return { buckets: new Map(), sum: 0, count: 0 };
}

function emptyTotals() {
  return {
    ok: 0, failed: 0, cancelled: 0, reasons: new Map(),
    queue: emptyHistogram(), run: emptyHistogram(), rows: emptyHistogram(),
    tokens: 0, padded: 0, waiting: 0, age: 0, versions: new Map(),
  };
}

function add(histogram, sample) {
  const value = Number(sample.value);
  if (sample.name.endsWith("_bucket")) {
    const bound = sample.labels.le === "+Inf" ? Infinity : Number(sample.labels.le);
    histogram.buckets.set(bound, (histogram.buckets.get(bound) ?? 0) + value);
  } else if (sample.name.endsWith("_sum")) histogram.sum += value;
  else histogram.count += value;
}

const READERS = {
  nerve_model_requests_total(of, { labels, value }) {
    if (OK.has(labels.outcome)) of.ok += value;
    else if (NEITHER.has(labels.outcome)) of.cancelled += value;
    else {
      of.failed += value;
      of.reasons.set(labels.outcome, (of.reasons.get(labels.outcome) ?? 0) + value);
    }
  },
  nerve_queue_seconds: (of, sample) => add(of.queue, sample),
  nerve_run_seconds: (of, sample) => add(of.run, sample),
  nerve_batch_rows: (of, sample) => add(of.rows, sample),
  nerve_tokens_total: (of, { value }) => { of.tokens += value; },
  nerve_padded_tokens_total: (of, { value }) => { of.padded += value; },
  nerve_queue_rows: (of, { value }) => { of.waiting += value; },
  nerve_queue_age_seconds: (of, { value }) => { of.age = Math.max(of.age, value); },
  nerve_model_info(of, { labels }) { version(of, labels).precision = labels.precision; },
  nerve_model_load_timestamp_seconds(of, { labels, value }) { version(of, labels).loaded = value; },
};

function version(of, labels) {
  if (!of.versions.has(labels.version)) of.versions.set(labels.version, {});
  return of.versions.get(labels.version);
}

/**
 * Totals of the server and of each model, its versions added up.
 * @param {{time: number, metrics: object[]}} answer of /v1/metrics
 * @returns {{time: number, server: object, models: Map<string, object>}} time in seconds
 */
export function readTotals(answer) {
  const server = { ok: 0, failed: 0, latency: emptyHistogram() };
  const models = new Map();
  for (const family of answer.metrics) {
    for (const sample of family.samples) {
      const { labels, value } = sample;
      if (family.name === "nerve_requests_total") {
        if (OTHERS.has(labels.dialect) || labels.status === "cancelled") continue;
        if (labels.status === "ERROR" || Number(labels.status) >= 400) server.failed += value;
        else server.ok += value;
      } else if (family.name === "nerve_request_seconds") {
        if (!OTHERS.has(labels.dialect)) add(server.latency, sample);
      } else if (family.name in READERS) {
        if (!models.has(labels.model)) models.set(labels.model, emptyTotals());
        READERS[family.name](models.get(labels.model), sample);
      }
    }
  }
  return { time: answer.time, server, models };
}

/** How much a counter grew; one that is smaller began anew. */
function grown(now, before) {
  return now >= before ? now - before : now;
}

function grownHistogram(now, before) {
  const fell = ([bound, value]) => value < (before.buckets.get(bound) ?? 0);
  const anew = now.count < before.count || now.sum < before.sum || [...now.buckets].some(fell);
  const buckets = new Map();
  for (const [bound, value] of now.buckets) {
    buckets.set(bound, anew ? value : value - (before.buckets.get(bound) ?? 0));
  }
  return {
    buckets, sum: anew ? now.sum : now.sum - before.sum, count: anew ? now.count : now.count - before.count,
  };
}

/**
 * The value below which a share of what was counted lies, as Prometheus' histogram_quantile has it.
 * @returns {number | null} null if nothing was counted
 */
export function quantile(histogram, share) {
  const bounds = [...histogram.buckets.keys()].sort((a, b) => a - b);
  const rank = share * histogram.count;
  if (!(histogram.count > 0) || bounds.length === 0) return null;
  let below = 0;
  let low = 0;
  for (const bound of bounds) {
    const upTo = histogram.buckets.get(bound);
    if (upTo >= rank && upTo > below) {
      return bound === Infinity ? low : low + (bound - low) * ((rank - below) / (upTo - below));
    }
    below = upTo;
    low = bound;
  }
  return low;
}

/**
 * What happened at a model between looks at it.
 * @param now its totals
 * @param before those of the look before
 * @param earlier those of some looks ago, for what needs more to be counted
 * @param seconds between now and before
 */
export function modelPoint(now, before, earlier, seconds) {
  const queue = grownHistogram(now.queue, earlier.queue);
  const run = grownHistogram(now.run, earlier.run);
  const rows = grownHistogram(now.rows, earlier.rows);
  const tokens = grown(now.tokens, before.tokens);
  const padded = grown(now.padded, before.padded);
  return {
    requests: grown(now.ok, before.ok) / seconds,
    errors: grown(now.failed, before.failed) / seconds,
    wait50: quantile(queue, 0.5), wait99: quantile(queue, 0.99),
    run50: quantile(run, 0.5), run99: quantile(run, 0.99),
    rows: rows.count > 0 ? rows.sum / rows.count : null,
    tokens: tokens / seconds, padding: padded > 0 ? Math.max(0, padded - tokens) / padded : null,
    waiting: now.waiting, age: now.age,
  };
}

/** The same of the server as a whole. */
export function serverPoint(now, before, earlier, seconds) {
  const latency = grownHistogram(now.latency, earlier.latency);
  return {
    requests: grown(now.ok, before.ok) / seconds,
    errors: grown(now.failed, before.failed) / seconds,
    latency50: quantile(latency, 0.5), latency99: quantile(latency, 0.99),
  };
}

/** Totals of a model of which nothing was counted yet. */
export const NOTHING = emptyTotals();

function rounded(value, digits) {
  return value.toLocaleString("en", { maximumFractionDigits: digits });
}

/** Numbers as people read them; null is a dash. */
export const formats = {
  number(value) {
    if (value === null || value === undefined) return "–";
    if (value >= 1e6) return `${rounded(value / 1e6, 1)} M`;
    if (value >= 1e4) return `${rounded(value / 1e3, 0)} k`;
    return rounded(value, value >= 100 ? 0 : value >= 10 ? 1 : 2);
  },
  seconds(value) {
    if (value === null || value === undefined) return "–";
    if (value >= 100) return `${rounded(value, 0)} s`;
    if (value >= 1) return `${rounded(value, 1)} s`;
    const ms = value * 1000;
    return `${rounded(ms, ms >= 100 ? 0 : ms >= 10 ? 1 : 2)} ms`;
  },
  share(value) {
    return value === null || value === undefined ? "–" : `${rounded(value * 100, 0)} %`;
  },
};
