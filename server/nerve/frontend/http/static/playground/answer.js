/* What the copied request would be answered, made from the answers that came. Pure. */

/**
 * The body of each request's answer, or as much of them as has so many entities.
 *
 * @param {Array<{pieces: object[], entities: object[][]}>} batches see ask.js.
 * @param {(entity: object) => boolean} wanted by threshold and label.
 * @param {import("./offsets.js").Offsets} offsets of the whole text.
 * @param {number} most entities; nothing is behind the last of them.
 * @returns {object[][][]} predict_tokens' answers with code points: a list a text, of each request.
 */
export function answers(batches, wanted, offsets, most = Infinity) {
  let left = most;
  const answer = ({ pieces, entities }) => entities.flatMap((found, at) => {
    if (left <= 0) return [];
    const base = offsets.codePoints(pieces[at].start);
    const shown = found.filter(wanted).slice(0, left);
    left -= shown.length;
    return [shown.map(({ start, end, item }) => ({
      token: item.token,
      token_id: item.token_id,
      start: offsets.codePoints(start) - base,
      end: offsets.codePoints(end) - base,
      results: item.results,
    }))];
  });
  return batches.flatMap((batch) => (left > 0 ? [answer(batch)] : []));
}

/** An answer as JSON, an entity a line. */
export function written(answer) {
  const lists = answer.map((found) => {
    const lines = found.map((each) => `    ${line(each)}`);
    return lines.length ? `  [\n${lines.join(",\n")}\n  ]` : "  []";
  });
  return `[\n${lists.join(",\n")}\n]\n`;
}

function line(value) {
  if (value === null || typeof value !== "object") return JSON.stringify(value);
  const pairs = Object.entries(value).map(([name, each]) => `${JSON.stringify(name)}: ${line(each)}`);
  return `{${pairs.join(", ")}}`;
}

/**
 * Whether a score is at least the threshold, as the server compares them: as 32-bit floats.
 *
 * @param {number} score
 * @param {number} threshold
 */
export const reaches = (score, threshold) => Math.fround(score) >= Math.fround(threshold);
