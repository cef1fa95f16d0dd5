/** Many texts: packed into requests, and requests run side by side, with their results in order. */
import { textAt } from "./checks.ts";

/**
 * UTF-16 units of the texts of one request. In JSON a unit takes at most 6 bytes (`\u0001`), so the
 * body stays under the server's limit of 2,000,000, whatever is in it.
 */
export const MAX_UNITS = 330_000;

/** Texts in lists, none longer than `maxTexts` or `MAX_UNITS`; a text that is longer alone goes alone. */
export async function* packed(
  texts: Iterable<string> | AsyncIterable<string>,
  maxTexts: number,
): AsyncGenerator<string[], void, undefined> {
  let pack: string[] = [];
  let units = 0;
  let index = 0;
  for await (const item of texts) {
    const text = textAt(item, index++);
    if (pack.length > 0 && (pack.length >= maxTexts || units + text.length > MAX_UNITS)) {
      yield pack;
      pack = [];
      units = 0;
    }
    pack.push(text);
    units += text.length;
    // at once, not with the next text: that one may be long in coming
    if (pack.length >= maxTexts) {
      yield pack;
      pack = [];
      units = 0;
    }
  }
  if (pack.length > 0) yield pack;
}

interface Slot<R> {
  readonly result: Promise<R>;
  settled: boolean;
}

/**
 * Run `job` on what `source` gives, at most `concurrency` at a time; results come in order.
 *
 * The source is read only as far as there is room for its items. An error comes in its turn, after
 * the results before it. When the consumer leaves, at an error and at an abort, jobs that still run
 * are told by their signal, and the source is closed.
 */
export async function* inOrder<T, R>(
  source: AsyncGenerator<T, void, undefined>,
  concurrency: number,
  outer: AbortSignal | undefined,
  job: (item: T, signal: AbortSignal) => Promise<R>,
): AsyncGenerator<R, void, undefined> {
  const slots: Slot<R>[] = [];
  const stop = new AbortController();
  let reading = false;
  let ended = false;
  let wake = (): void => {};

  const start = (item: T): void => {
    const slot = { result: job(item, stop.signal), settled: false };
    const settle = (): void => {
      slot.settled = true;
      wake();
    };
    slot.result.then(settle, settle); // and a failure that nobody waits for is no unhandled one
    slots.push(slot);
  };
  const fail = (error: unknown): void => {
    ended = true;
    const result = Promise.reject<R>(error);
    result.catch(() => {});
    slots.push({ result, settled: true });
  };
  const read = async (): Promise<void> => {
    reading = true;
    try {
      const step = await source.next();
      if (step.done) ended = true;
      else if (!stop.signal.aborted) start(step.value);
    } catch (error) {
      fail(error);
    }
    reading = false;
    wake();
  };
  const abort = (): void => {
    stop.abort(outer?.reason);
    wake();
  };

  outer?.addEventListener("abort", abort, { once: true });
  try {
    for (;;) {
      outer?.throwIfAborted();
      if (!reading && !ended && slots.length < concurrency) void read();
      const [first] = slots;
      if (first?.settled) {
        slots.shift();
        yield await first.result;
      } else if (first === undefined && ended) {
        return;
      } else {
        await new Promise<void>((resolve) => {
          wake = resolve;
        });
      }
    }
  } finally {
    outer?.removeEventListener("abort", abort);
    stop.abort();
    const closed = source.return().catch(() => {}); // a read under way may never end
    if (!reading) await closed;
  }
}
