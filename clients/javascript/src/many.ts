/** Many texts, of which one that is bad must not cost the others their results. */
import { surrogateFault } from "./checks.ts";
import { ItemError, NerveError } from "./errors.ts";
import { packed } from "./flow.ts";

/** Texts in a row; `first` is the place of the first one among all. */
export interface Batch {
  readonly first: number;
  readonly texts: readonly string[];
}

/** Texts in batches of at most `size`; as lazy as `packed`. */
export async function* batches(
  texts: Iterable<string> | AsyncIterable<string>,
  size: number,
): AsyncGenerator<Batch, void, undefined> {
  let first = 0;
  for await (const pack of packed(texts, size)) {
    yield { first, texts: pack };
    first += pack.length;
  }
}

/**
 * What becomes of each text of a batch: its result, or why there is none.
 *
 * Texts that cannot be right are not sent. Where the server refuses others, they are halved until
 * what it refuses stands alone.
 *
 * @throws NerveError what every other text would meet as well; whatever else `send` throws.
 */
export async function isolated<R>(
  { first, texts }: Batch,
  send: (texts: readonly string[]) => Promise<R[]>,
): Promise<(R | ItemError)[]> {
  const outcomes: (R | ItemError)[] = new Array(texts.length);
  const refuse = (place: number, error: NerveError): void => {
    outcomes[place] = new ItemError(first + place, texts[place] ?? "", error);
  };
  const ask = async (places: readonly number[]): Promise<void> => {
    try {
      const results = await send(places.map((place) => texts[place] ?? ""));
      for (const [n, result] of results.entries()) outcomes[places[n] ?? 0] = result;
    } catch (error) {
      if (!(error instanceof NerveError) || !isAboutTexts(error)) throw error;
      const [place = 0] = places;
      if (places.length === 1) return refuse(place, error);
      const middle = Math.ceil(places.length / 2);
      await ask(places.slice(0, middle));
      await ask(places.slice(middle));
    }
  };
  const sound: number[] = [];
  for (const [place, text] of texts.entries()) {
    const error = textError(text);
    if (error === undefined) sound.push(place);
    else refuse(place, error);
  }
  if (sound.length > 0) await ask(sound);
  return outcomes;
}

/** The items of lists in order; `onError` says what is done with those that are errors. */
export async function* flat<R>(
  lists: AsyncGenerator<(R | ItemError)[], void, undefined>,
  onError: "throw" | "return",
): AsyncGenerator<R | ItemError, void, undefined> {
  for await (const list of lists) {
    for (const item of list) {
      if (item instanceof ItemError && onError === "throw") throw item;
      yield item;
    }
  }
}

const ABOUT_TEXTS: ReadonlySet<number | undefined> = new Set([400, 413, 422]);

/** Whether a text is to blame, and not an option, which would fail every other text too. */
function isAboutTexts({ kind, status, reason, message }: NerveError): boolean {
  if (kind !== "invalid_request" || !ABOUT_TEXTS.has(status)) return false;
  return reason !== "invalid_field" || message.startsWith("inputs");
}

function textError(text: string): NerveError | undefined {
  if (text === "") {
    return new NerveError("invalid_request", "the text is empty", { reason: "empty_input" });
  }
  const fault = surrogateFault(text);
  return fault === undefined ? undefined : new NerveError("invalid_request", fault);
}
