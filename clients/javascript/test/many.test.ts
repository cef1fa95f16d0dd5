/** Bad texts among many: against a real server that refuses requests with a text it dislikes. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { inspect } from "node:util";

import { ItemError, NerveClient, NerveError } from "../src/index.ts";
import type { Entity, ExtractManyOptions } from "../src/index.ts";
import { json, listening } from "./listening.ts";
import type { Listening } from "./listening.ts";

interface Outcome {
  readonly items: (Entity[] | ItemError)[];
  readonly error: unknown;
  readonly sent: string[][];
}

/** What comes of texts at a server that answers requests with a `bad` text by `status`. */
async function outcome(
  texts: readonly string[],
  options: ExtractManyOptions,
  status = 400,
  reason?: string,
): Promise<Outcome> {
  await using server: Listening = await listening((response, n) => {
    const { inputs } = server.requests[n - 1]?.body as { inputs: string[] };
    const headers = reason === undefined ? undefined : { "x-nerve-reason": reason };
    if (inputs.some((text) => text.startsWith("bad"))) {
      json(response, status, { error: `no, ${reason}` }, headers);
    } else {
      const spans = (text: string): unknown => [
        { token: text, token_id: 0, start: 0, end: text.length, results: { PER: 1 } },
      ];
      json(response, 200, inputs.map(spans));
    }
  });
  const client = new NerveClient(server.url, { retry: false });
  const items: (Entity[] | ItemError)[] = [];
  let error: unknown;
  try {
    for await (const item of client.extractMany(texts, options)) items.push(item);
  } catch (thrown) {
    error = thrown;
  }
  const sent = server.requests.map(({ body }) => (body as { inputs: string[] }).inputs);
  return { items, error, sent };
}

function shown(items: readonly (Entity[] | ItemError)[]): string[] {
  return items.map((item) =>
    item instanceof ItemError ? `${item.index} ${item.text}: ${item.reason}` : `${item[0]?.text}`,
  );
}

for (const status of [400, 413, 422]) {
  test(`${status}: a batch is halved until what is bad stands alone`, async () => {
    const { items, error, sent } = await outcome(
      ["a", "b", "c", "bad", "d", "e", "bad too"],
      { batchSize: 4, concurrency: 1, onError: "return" },
      status,
      "text_too_long",
    );
    assert.equal(error, undefined);
    assert.deepEqual(shown(items), [
      ...["a", "b", "c", "3 bad: text_too_long"],
      ...["d", "e", "6 bad too: text_too_long"],
    ]);
    assert.deepEqual(sent, [
      ...[["a", "b", "c", "bad"], ["a", "b"], ["c", "bad"], ["c"], ["bad"]],
      ...[["d", "e", "bad too"], ["d", "e"], ["bad too"]],
    ]);
  });
}

test("what cannot be right is not sent, and costs its neighbours no request", async () => {
  const { items, sent } = await outcome(["a", "", "b", "x\ud83d", "c"], { onError: "return" });
  assert.deepEqual(shown(items), [
    ...["a", "1 : empty_input", "b", "3 x\ud83d: invalid_request", "c"],
  ]);
  assert.deepEqual(sent, [["a", "b", "c"]]);
  const nothing = await outcome(["", ""], { onError: "return" });
  assert.deepEqual(shown(nothing.items), ["0 : empty_input", "1 : empty_input"]);
  assert.deepEqual(nothing.sent, []);
});

test("an error that is thrown names the place of its text, after the results before", async () => {
  const { items, error } = await outcome(["a", "b", "c", "bad", "d"], { batchSize: 3 });
  assert.deepEqual(shown(items), ["a", "b", "c"]);
  assert.ok(error instanceof ItemError && error instanceof NerveError);
  assert.deepEqual([error.index, error.text, error.name], [3, "bad", "ItemError"]);
  assert.deepEqual([error.kind, error.status], ["invalid_request", 400]);
  assert.ok(error.error instanceof NerveError && !(error.error instanceof ItemError));
  assert.equal(error.message, `item 3: ${error.error.message}`);
});

test("who logs an error of a text does not log the text", async () => {
  const { error } = await outcome(["a", "bad secret"], {});
  assert.ok(error instanceof ItemError);
  assert.equal(error.text, "bad secret");
  assert.ok(!/secret/.test(inspect(error, { depth: 9 }) + JSON.stringify(error)));
});

for (const [status, reason] of [
  [400, "invalid_field"],
  [401, undefined],
  [404, "model_not_found"],
  [415, "unsupported_media_type"],
  [500, "internal"],
  [503, undefined],
] as const) {
  test(`${status} ${reason ?? ""} would meet every text, and ends it`, async () => {
    const { items, error, sent } = await outcome(
      ["a", "bad"],
      { onError: "return" },
      status,
      reason,
    );
    assert.ok(error instanceof NerveError && !(error instanceof ItemError));
    assert.equal(error.status, status);
    assert.deepEqual([items, sent], [[], [["a", "bad"]]]);
  });
}
