/* From JavaScript's offsets, which count UTF-16 units, to code points. Pure. */

/** Offsets of one text. */
export class Offsets {
  #pairs = []; // where the second half of each surrogate pair is

  /** @param {string} text without lone surrogates. */
  constructor(text) {
    for (const { index } of text.matchAll(/[\u{10000}-\u{10ffff}]/gu)) this.#pairs.push(index + 1);
  }

  /** Code points before a place that is given in UTF-16 units. */
  codePoints(unit) {
    let low = 0;
    let high = this.#pairs.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.#pairs[middle] < unit) low = middle + 1;
      else high = middle;
    }
    return unit - low;
  }
}

/** What can be sent as UTF-8: a lone surrogate becomes U+FFFD, so offsets stay as they are. */
export function wellFormed(text) {
  return text.toWellFormed?.() ??
    text.replace(/[\ud800-\udbff](?![\udc00-\udfff])|(?<![\ud800-\udbff])[\udc00-\udfff]/g, "\ufffd");
}
