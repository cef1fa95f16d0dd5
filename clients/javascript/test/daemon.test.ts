/**
 * Against a running daemon at NERVE_URL: its default model knows persons and places, and `patient`
 * runs a batch of two only when it is full, and lets one text wait.
 */
import assert from "node:assert/strict";
import { describe, test } from "node:test";

import { ItemError, NerveClient, NerveError } from "../src/index.ts";
import type { AnswerInfo, Entity } from "../src/index.ts";

const url = process.env["NERVE_URL"];
const TEXT = "😀 Ada Lovelace met Zoë in London.";

function names(entities: readonly Entity[]): string[] {
  return entities.map(({ label, text }) => `${label} ${text}`);
}

async function failure(call: Promise<unknown>): Promise<NerveError> {
  const error = await call.then(
    () => undefined,
    (each: unknown) => each,
  );
  assert.ok(error instanceof NerveError, String(error));
  return error;
}

describe("a daemon", { skip: url ? false : "NERVE_URL names no server" }, () => {
  const client = new NerveClient(url ?? "http://localhost:8080");

  async function labelsOfDefault(): Promise<readonly string[]> {
    const summary = (await client.models()).find((each) => each.default);
    const { labels } = await client.model(summary?.name ?? "");
    assert.ok(labels);
    return labels;
  }

  test("offsets are JavaScript's", async () => {
    const entities = await client.extract(TEXT);
    assert.deepEqual(names(entities), ["PER Ada Lovelace", "PER Zoë", "LOC London"]);
    for (const { text, start, end, score } of entities) {
      assert.equal(TEXT.slice(start, end), text);
      assert.ok(score > 0.5 && score <= 1);
    }
  });

  test("offsets of other kinds", async () => {
    const points = [...TEXT];
    const bytes = new TextEncoder().encode(TEXT);
    for (const { text, start, end } of await client.extract(TEXT, { offsetUnit: "codepoint" })) {
      assert.equal(points.slice(start, end).join(""), text);
    }
    const inBytes = new NerveClient(url ?? "", { offsetUnit: "byte" });
    for (const { text, start, end } of await inBytes.extract(TEXT)) {
      assert.equal(new TextDecoder().decode(bytes.slice(start, end)), text);
    }
  });

  test("threshold, labels and aggregation", async () => {
    assert.deepEqual(names(await client.extract(TEXT, { labels: ["LOC"] })), ["LOC London"]);
    const all = await client.extract(TEXT);
    const threshold = Math.max(...all.map(({ score }) => score));
    const best = await client.extract(TEXT, { threshold });
    assert.deepEqual(
      best,
      all.filter(({ score }) => score >= threshold),
    );
    assert.equal(best.length, 1);
    const tokens = await client.extract(TEXT, { aggregation: "none" });
    assert.ok(tokens.every(({ label }) => /^[BI]-/.test(label)));
  });

  test("more texts than a request takes", async () => {
    const answers: AnswerInfo[] = [];
    const texts = Array.from({ length: 300 }, (_, n) => `Person number ${n} lives in London.`);
    const found = await client.extract(texts, { onAnswer: (info) => answers.push(info) });
    assert.equal(found.length, 300);
    for (const [n, entities] of found.entries()) {
      const [london] = entities.filter(({ text }) => text === "London");
      assert.equal(london?.start, texts[n]?.indexOf("London"));
    }
    assert.equal(answers.length, 3);
    assert.ok(answers.every(({ model, version }) => model !== "" && version !== ""));
  });

  test("a body that would be too large is sent in parts", async () => {
    const text = "Ada Lovelace" + "\u0001".repeat(200_000); // 1.2 MB of JSON each
    const found = await client.extract([text, text]);
    assert.deepEqual(found.map(names), [["PER Ada Lovelace"], ["PER Ada Lovelace"]]);
  });

  test("any number of texts, in order", async () => {
    async function* texts(): AsyncGenerator<string, void, undefined> {
      for (let n = 0; n < 500; n++) yield `${"very ".repeat(n % 7)}far away in London.`;
    }
    let n = 0;
    for await (const entities of client.extractMany(texts(), { batchSize: 16, labels: ["LOC"] })) {
      assert.deepEqual(
        entities.map(({ text, start }) => [text, start]),
        [["London", `${"very ".repeat(n % 7)}far away in `.length]],
      );
      n++;
    }
    assert.equal(n, 500);
  });

  test("a loop that is left reads no further", async () => {
    let read = 0;
    function* texts(): Generator<string, void, undefined> {
      for (;;) yield `Text ${read++}`;
    }
    for await (const entities of client.extractMany(texts(), { batchSize: 2, concurrency: 2 })) {
      assert.ok(Array.isArray(entities));
      break;
    }
    assert.ok(read <= 8, `${read} read`);
  });

  test("predictTokens gives tokens, or what was asked for", async () => {
    const tokens = await client.predictTokens(TEXT);
    assert.deepEqual(
      tokens.slice(0, 1).map(({ token, results }) => [token, Object.keys(results)]),
      [["Ada", ["B-PER"]]],
    );
    assert.ok(tokens.every(({ token, start, end }) => TEXT.slice(start, end) === token));
    assert.ok(tokens.every(({ tokenId }) => tokenId > 0));
    const [groups] = await client.predictTokens([TEXT], { aggregation: "max" });
    assert.deepEqual(
      groups?.map(({ token }) => token),
      ["Ada Lovelace", "Zoë", "London"],
    );
    const raw = await client.predictTokens("London", { rawScores: true, ignoreLabels: [] });
    assert.deepEqual(Object.keys(raw[0]?.results ?? {}), await labelsOfDefault());
  });

  test("predict gives every token with all scores", async () => {
    const labels = await labelsOfDefault();
    for (const text of [await client.predict(TEXT), (await client.predict([TEXT]))[0] ?? []]) {
      const london = text.find(({ token }) => token.toLowerCase() === "london");
      assert.ok(london);
      assert.equal(TEXT.slice(london.start, london.end), "London");
      assert.equal(london.scores.length, labels.length);
      assert.equal(london.score, Math.max(...london.scores));
      assert.equal(london.label, labels[london.scores.indexOf(london.score)]);
    }
  });

  test("models and probes", async () => {
    assert.equal(await client.live(), true);
    assert.equal(await client.ready(), true);
    const summary = (await client.models()).find((each) => each.default);
    assert.equal(summary?.state, "READY");
    const status = await client.model(summary.name);
    assert.equal(status.task, "token-classification");
    assert.equal(status.configOverride, false);
    assert.ok((status.limits?.maxTokens ?? 0) > 0);
    assert.ok((status.versions[0]?.statistics?.meanBatchSize ?? 0) > 0);
    const named = { model: summary.name, version: status.versions[0]?.version };
    assert.deepEqual(await client.extract(TEXT, named), await client.extract(TEXT));
  });

  test("what was cut is told, or refused", async () => {
    const long = "London ".repeat(5000);
    const answers: AnswerInfo[] = [];
    await client.extract(["short", long], { onAnswer: (info) => answers.push(info) });
    assert.deepEqual(
      answers.map(({ truncatedTexts }) => truncatedTexts),
      [1],
    );
    const error = await failure(client.extract(long, { truncate: false }));
    assert.equal(error.status, 413);
    assert.equal(error.kind, "invalid_request");
  });

  test("errors in each of the server's shapes", async () => {
    const unknown = await failure(client.extract("a", { model: "nope" }));
    assert.equal(unknown.kind, "model_not_found");
    assert.match(unknown.message, /model 'nope' is not in the repository/);
    assert.equal((await failure(client.extract("a", { model: "nope" }))).status, 404);
    const named = await failure(client.model("nope"));
    assert.deepEqual([named.status, named.reason], [404, "model_not_found"]);
    const plain = await failure(client.predict("a", { model: "nope" }));
    assert.equal(plain.status, 404);
    assert.match(plain.message, /nope/);
    const empty = await failure(client.extract(["a", ""]));
    const { status, kind, reason } = empty;
    assert.deepEqual([status, kind, reason], [400, "invalid_request", "empty_input"]);
    const priority = await failure(client.extract("a", { priority: 11 }));
    assert.equal(priority.status, 422);
    const astray = new NerveClient(`${url}/nowhere`);
    const calls = [
      () => astray.extract("a"),
      () => astray.predict("a"),
      () => astray.models(),
      () => astray.ready(),
    ];
    for (const call of calls) {
      const unserved = await failure(call());
      assert.deepEqual([unserved.status, unserved.kind], [404, "not_found"]);
      assert.match(unserved.message, /is the URL .* root\?/);
    }
  });

  test("bad texts among many are given in their places, or thrown", async () => {
    const texts = ["London", "", "London ".repeat(5000), "in London", "\ud83d", "to London"];
    const found: string[] = [];
    const options = { truncate: false, batchSize: 4 };
    for await (const each of client.extractMany(texts, { ...options, onError: "return" })) {
      if (each instanceof ItemError) assert.equal(each.text, texts[each.index]);
      found.push(each instanceof ItemError ? `${each.index} ${each.reason}` : names(each).join());
    }
    const place = "LOC London";
    const [empty, long, surrogate] = ["1 empty_input", "2 text_too_long", "4 invalid_request"];
    assert.deepEqual(found, [place, empty, long, place, surrogate, place]);
    const read: string[][] = [];
    const error = await failure(
      (async () => {
        for await (const each of client.extractMany(["a", "b", ""])) read.push(names(each));
      })(),
    );
    assert.match(error.message, /^item 2: the text is empty$/);
    assert.equal(read.length, 2);
  });

  test("an option that the server refuses is no fault of a text", async () => {
    const found = client.extractMany(["a", "b"], { threshold: 2, onError: "return" });
    const error = await failure(found.next());
    assert.ok(!(error instanceof ItemError));
    assert.match(error.message, /threshold/);
  });

  test("an overloaded model answers when it has room again", async () => {
    const waiting = new AbortController();
    const options = { model: "patient", signal: waiting.signal };
    const gone = assert.rejects(client.extract("a", options), { name: "AbortError" });
    while ((await queued()) < 1);
    const once = new NerveClient(url ?? "", { model: "patient", retry: false });
    const refused = await failure(once.extract(["b", "c"]));
    const { kind, status, reason } = refused;
    assert.deepEqual([kind, status, reason], ["overloaded", 429, "queue_full"]);
    assert.ok((refused.retryAfter ?? 0) >= 1);
    const statuses: number[] = [];
    const again = new NerveClient(url ?? "", {
      model: "patient",
      fetch: async (...request) => {
        const response = await fetch(...request);
        statuses.push(response.status);
        waiting.abort(); // makes room
        return response;
      },
    });
    assert.equal((await again.extract(["b", "c"])).length, 2);
    assert.deepEqual(statuses, [429, 200]);
    await gone;

    async function queued(): Promise<number> {
      const { versions } = await client.model("patient");
      return versions[0]?.statistics?.queuedRows ?? 0;
    }
  });

  test("a time limit is the server's too", async () => {
    const error = await failure(client.extract("a", { model: "patient", timeoutMs: 100 }));
    assert.equal(error.kind, "deadline_exceeded");
  });
});
