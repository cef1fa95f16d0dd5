/** What is refused before anything is sent: nobody listens at these URLs. */
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";

import { CLIENT, EXTRACT_MANY, PREDICT_TOKENS, RETRY } from "../src/checks.ts";
import { NerveClient } from "../src/index.ts";

const client = new NerveClient("http://localhost:1", { retry: false });
/** Options and texts as plain JavaScript gives them. */
const wrong = (value: unknown): never => value as never;

const CALLS: Record<string, (options: never) => unknown> = {
  client: (options) => new NerveClient("http://localhost:1", options),
  extract: (options) => client.extract("a", options),
  extractMany: (options) => client.extractMany(["a"], options),
  predictTokens: (options) => client.predictTokens("a", options),
  predict: (options) => client.predict("a", options),
  models: (options) => client.models(options),
  model: (options) => client.model("a", options),
  ready: (options) => client.ready(options),
  live: (options) => client.live(options),
};

for (const [name, call] of Object.entries(CALLS)) {
  const failing = async (options: unknown): Promise<unknown> => call(wrong(options));

  test(`${name}: a name that is no option is refused, and the others are told`, async () => {
    for (const option of ["treshold", "aggregation_strategy", "offset_unit", "toString"]) {
      const message = new RegExp(`^unknown option '${option}'; there are .*timeoutMs`);
      await assert.rejects(failing({ [option]: 1 }), { name: "TypeError", message });
    }
    const message = "options: expected an object, got ";
    await assert.rejects(failing(null), { name: "TypeError", message: `${message}null` });
    await assert.rejects(failing("max"), { name: "TypeError", message: `${message}string` });
  });

  test(`${name}: a time that is no positive number is refused`, async () => {
    for (const timeoutMs of [0, -1, NaN, "5"]) {
      const message = `timeoutMs: expected a number above 0, got ${timeoutMs}`;
      await assert.rejects(failing({ timeoutMs }), { name: "TypeError", message });
    }
  });
}

test("options that only one place has", () => {
  assert.throws(() => new NerveClient("http://a", { retry: wrong({ attempt: 1 }) }), {
    name: "TypeError",
    message: /^unknown option 'attempt'; there are attempts, firstMs, /,
  });
  assert.throws(() => client.extractMany([], { onError: wrong("raise") }), {
    name: "TypeError",
    message: 'onError: expected "throw" or "return", got raise',
  });
});

test("texts that are none", async () => {
  const expected = "texts: expected a string or an array of strings, got ";
  for (const call of [
    (texts: never) => client.extract(texts),
    (texts: never) => client.predictTokens(texts),
    (texts: never) => client.predict(texts),
  ]) {
    for (const [texts, message] of [
      [null, `${expected}null`],
      [undefined, `${expected}undefined`],
      [7, `${expected}number`],
      [{ text: "a" }, `${expected}object`],
      [["a", null], "texts[1]: expected a string, got null"],
      [["a", , "b"], "texts[1]: expected a string, got undefined"],
      [[["a"]], "texts[0]: expected a string, got array"],
    ] as const) {
      await assert.rejects(call(wrong(texts)), { name: "TypeError", message });
    }
  }
  for (const [texts, got] of [
    [null, "null"],
    [undefined, "undefined"],
    [7, "number"],
    [{}, "object"],
  ] as const) {
    const message = `texts: expected an iterable of strings, got ${got}`;
    assert.throws(() => client.extractMany(wrong(texts)), { name: "TypeError", message });
  }
  const message = "texts[0]: expected a string, got number";
  await assert.rejects(client.extractMany(wrong([7])).next(), { name: "TypeError", message });
});

test("half of a surrogate pair: which text, and where", async () => {
  const fault = (place: number): string =>
    `half of a surrogate pair at ${place}; text.toWellFormed() mends it`;
  await assert.rejects(client.extract("😀a\ud83d"), {
    name: "TypeError",
    message: `text: ${fault(3)}`,
  });
  await assert.rejects(client.predict(["😀", "\ude00\ud83d"]), {
    name: "TypeError",
    message: `texts[1]: ${fault(0)}`,
  });
});

test("a URL that is none names one that is", () => {
  for (const url of ["localhost", "localhost:8080", "", "http://", undefined, null]) {
    const message = /as in http:\/\/localhost:8080$/;
    assert.throws(() => new NerveClient(wrong(url)), { name: "TypeError", message });
  }
});

test("the README names every option", () => {
  const page = readFileSync(new URL("../README.md", import.meta.url), "utf8");
  for (const name of Object.keys({ ...CLIENT, ...EXTRACT_MANY, ...PREDICT_TOKENS, ...RETRY })) {
    assert.match(page, new RegExp(`\`${name}\\b`), name);
  }
});
