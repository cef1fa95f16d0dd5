/* A request as others can send it: curl, Python, grpcurl. The API key is a variable, never itself. Pure. */

import { path } from "./ask.js";

const ARGUMENT_BYTES = 100_000; // Linux takes 128 KiB as one argument
const KEY_VARIABLE = "NERVE_API_KEY";
const END = "END_OF_REQUEST";

/**
 * @typedef {{model: string, version: string, strategy: string, threshold: number, hidden: string[],
 *   labels: string[], batches: string[][], keyed: boolean}} Shown
 *   what is shown: `batches` are the texts of each request, `hidden` the labels left out, `labels`
 *   all that the model has.
 */

/** The body of predict_tokens that answers with what is shown. */
export function body(shown, inputs) {
  return {
    inputs,
    aggregation_strategy: shown.strategy,
    ...(shown.hidden.length ? { ignore_labels: ["O", ...shown.hidden] } : {}),
    ...(shown.threshold > 0 ? { threshold: shown.threshold } : {}),
    offset_unit: "codepoint",
  };
}

/** For a POSIX shell. */
const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;

/** The end of a command that has `data`: as an argument, or as its input if it is too long for one. */
function withData(head, data, tail, [argument, input]) {
  if (data.length * 3 < ARGUMENT_BYTES) return [...head, `${argument} ${quoted(data)}`, ...tail].join(" \\\n  ");
  return `${[...head, input, ...tail].join(" \\\n  ")} <<'${END}'\n${data}\n${END}`;
}

/** Commands of curl, one a request. */
export function curl(shown, base) {
  const head = [`curl -sS ${quoted(new URL(path(shown), base).href)}`, "-H 'Content-Type: application/json'"];
  if (shown.keyed) head.push(`-H "Authorization: Bearer $${KEY_VARIABLE}"`);
  return shown.batches
    .map((inputs) => withData(head, JSON.stringify(body(shown, inputs)), [], ["--data", "--data-binary @-"]))
    .join("\n") + "\n";
}

/** A program for Python with requests; prints an answer a line. */
export function python(shown, base) {
  const { inputs: _, ...options } = body(shown, []);
  const many = shown.batches.length > 1;
  const fields = Object.entries(options).map(([name, value]) => `"${name}": ${JSON.stringify(value)}`);
  const call = [
    "response = requests.post(",
    `    ${JSON.stringify(new URL(path(shown), base).href)},`,
    ...(shown.keyed ? [`    headers={"Authorization": "Bearer " + os.environ["${KEY_VARIABLE}"]},`] : []),
    `    json={"inputs": inputs, ${fields.join(", ")}},`,
    "    timeout=60,",
    ")",
    "response.raise_for_status()",
    "print(json.dumps(response.json(), ensure_ascii=False))",
  ];
  const texts = shown.batches.map((inputs) => JSON.stringify(inputs));
  return [
    "import json", ...(shown.keyed ? ["import os"] : []), "", "import requests", "",
    ...(many ? ["batches = [", ...texts.map((each) => `    ${each},`), "]", "for inputs in batches:"] : [`inputs = ${texts[0]}`]),
    ...call.map((line) => (many ? `    ${line}` : line)),
  ].join("\n") + "\n";
}

/** Commands of grpcurl: PredictTokens of nerve.v1, or Extract, which has a threshold as well. */
export function grpc(shown, { hostname, port, tls }) {
  const left = kept(shown);
  const method = shown.threshold > 0 && left.length ? "Extract" : "PredictTokens";
  const head = ["grpcurl", ...(tls ? [] : ["-plaintext"])].join(" ");
  const key = shown.keyed ? [`-H "Authorization: Bearer $${KEY_VARIABLE}"`] : [];
  const tail = [`${quoted(`${hostname}:${port}`)} nerve.v1.Nerve/${method}`];
  return shown.batches
    .map((texts) => withData([head, ...key], JSON.stringify({
      model: shown.model,
      ...(shown.version ? { version: shown.version } : {}),
      texts,
      ...(method === "Extract" ? extractOptions(shown, left) : predictOptions(shown)),
    }), tail, ["-d", "-d @"]))
    .join("\n") + "\n";
}

/** Labels that are shown, as the strategy names them. */
function kept({ strategy, labels, hidden }) {
  const names = strategy === "none" ? labels : labels.map((label) => label.slice(label.indexOf("-") + 1));
  return [...new Set(names)].filter((each) => each !== "O" && !hidden.includes(each));
}

const aggregation = ({ strategy }) => `AGGREGATION_${strategy.toUpperCase()}`;

const predictOptions = (shown) => ({
  aggregation: aggregation(shown),
  ...(shown.hidden.length ? { ignore_labels: { labels: ["O", ...shown.hidden] } } : {}),
  offset_unit: "OFFSET_UNIT_CODEPOINT",
});

const extractOptions = (shown, labels) => ({
  options: {
    aggregation: aggregation(shown),
    threshold: shown.threshold,
    ...(shown.hidden.length ? { labels } : {}),
    offset_unit: "OFFSET_UNIT_CODEPOINT",
  },
});
