import assert from "node:assert/strict";
import { test } from "node:test";

import { inOrder, MAX_UNITS, packed } from "../src/flow.ts";

async function collect<T>(items: AsyncIterable<T>): Promise<T[]> {
  const found: T[] = [];
  for await (const item of items) found.push(item);
  return found;
}

/** A promise that the test settles. */
function deferred<T>(): {
  promise: Promise<T>;
  resolve: (value: T) => void;
  reject: (error: Error) => void;
} {
  let resolve!: (value: T) => void;
  let reject!: (error: Error) => void;
  const promise = new Promise<T>((yes, no) => {
    resolve = yes;
    reject = no;
  });
  return { promise, resolve, reject };
}

/** Let everything run that can: promises and what they lead to. */
function settled(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}

/** Counts up, and tells how far it was read and whether it was closed. */
class Numbers {
  read = 0;
  closed = false;
  readonly #end: number;

  constructor(end: number) {
    this.#end = end;
  }

  async *items(): AsyncGenerator<number, void, undefined> {
    try {
      while (this.read < this.#end) yield this.read++;
    } finally {
      this.closed = true;
    }
  }
}

test("texts are packed by number and by size, in order", async () => {
  assert.deepEqual(await collect(packed(["a", "b", "c"], 2)), [["a", "b"], ["c"]]);
  assert.deepEqual(await collect(packed([], 2)), []);
  assert.deepEqual(await collect(packed(["a", "b"], 2)), [["a", "b"]]);
  const half = "x".repeat(MAX_UNITS / 2);
  const packs = await collect(packed([half, half, "y", half + half, half + "z"], 128));
  assert.deepEqual(
    packs.map((pack) => pack.map((text) => text.length / MAX_UNITS)),
    [[0.5, 0.5], [1 / MAX_UNITS], [1], [0.5 + 1 / MAX_UNITS]],
  );
});

test("a full pack does not wait for the next text", async () => {
  const never = new Promise<void>(() => {});
  async function* texts(): AsyncGenerator<string, void, undefined> {
    yield "a";
    yield "b";
    await never;
  }
  assert.deepEqual((await packed(texts(), 2).next()).value, ["a", "b"]);
});

test("results come in order, whichever is ready first, and no more jobs run than allowed", async () => {
  const gates = Array.from({ length: 6 }, () => deferred<void>());
  let running = 0;
  let most = 0;
  const results = inOrder(new Numbers(6).items(), 3, undefined, async (n) => {
    most = Math.max(most, ++running);
    await gates[n]?.promise;
    running--;
    return n;
  });
  const all = collect(results);
  for (const gate of [...gates].reverse()) {
    await settled();
    gate.resolve();
  }
  assert.deepEqual(await all, [0, 1, 2, 3, 4, 5]);
  assert.equal(most, 3);
});

test("the source is read only as far as there is room", async () => {
  const numbers = new Numbers(1000);
  const results = inOrder(numbers.items(), 2, undefined, async (n) => n);
  await settled();
  assert.equal(numbers.read, 0);
  assert.equal((await results.next()).value, 0);
  await settled();
  assert.ok(numbers.read <= 3, `${numbers.read} read`);
  await results.return();
  assert.ok(numbers.closed);
});

test("results do not wait for a slow source", async () => {
  const gate = deferred<void>();
  async function* slow(): AsyncGenerator<string, void, undefined> {
    yield "first";
    await gate.promise;
    yield "second";
  }
  const results = inOrder(slow(), 4, undefined, async (text) => text);
  assert.equal((await results.next()).value, "first");
  const second = results.next();
  gate.resolve();
  assert.equal((await second).value, "second");
});

test("an error comes in its turn, and tells the jobs after it to stop", async () => {
  const numbers = new Numbers(1000);
  const signals: AbortSignal[] = [];
  const seen: number[] = [];
  const results = inOrder(numbers.items(), 3, undefined, async (n, signal) => {
    signals.push(signal);
    if (n === 2) throw new Error("two");
    return n;
  });
  await assert.rejects(async () => {
    for await (const n of results) seen.push(n);
  }, /two/);
  assert.deepEqual(seen, [0, 1]);
  assert.ok(signals.every((signal) => signal.aborted));
  assert.ok(numbers.closed);
});

test("an error of the source comes after what it gave before", async () => {
  async function* broken(): AsyncGenerator<string, void, undefined> {
    yield "good";
    throw new Error("the source broke");
  }
  const results = inOrder(broken(), 4, undefined, async (text) => text);
  assert.equal((await results.next()).value, "good");
  await assert.rejects(results.next(), /the source broke/);
});

test("an abort ends it even while the source is silent", async () => {
  async function* silent(): AsyncGenerator<string, void, undefined> {
    await new Promise<void>(() => {});
  }
  const controller = new AbortController();
  const next = inOrder(silent(), 4, controller.signal, async (text) => text).next();
  await settled();
  controller.abort(new Error("enough"));
  await assert.rejects(next, /enough/);
});
