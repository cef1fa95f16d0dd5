/* Long texts in pieces that a model can read whole, cut where sentences end. Pure. */

const CHARACTERS_A_TOKEN = 3;
const SENTENCE_END = /[\p{Sentence_Terminal}…][\p{Pe}\p{Pf}"'\s]*$/u;
const SPACE = /\s/u;

const segmenter = (granularity) =>
  typeof Intl !== "undefined" && Intl.Segmenter ? new Intl.Segmenter(undefined, { granularity }) : null;
const sentences = segmenter("sentence");
const graphemes = segmenter("grapheme");

/**
 * Cut a text.
 *
 * @param {string} text
 * @param {number} tokens about how many a piece may have. Letters of an alphabet like this one are
 *   counted as a third, all else as one each, which is on the safe side for most texts.
 * @returns {Array<{start: number, end: number}>} in UTF-16 units, next to each other, in all the
 *   whole text; blank pieces only where all of the text is blank.
 */
export function cut(text, tokens) {
  const pieces = [];
  let start = 0;
  while (start < text.length) {
    const most = reach(text, start, tokens);
    let end = most === text.length ? most : start + boundary(text.slice(start, most));
    if (text.slice(end).length < 400 && !text.slice(end).trim()) end = text.length;
    const last = pieces.at(-1);
    if (last && !text.slice(start, end).trim()) last.end = end;
    else pieces.push({ start, end });
    start = end;
  }
  return pieces;
}

/** The two halves of a piece, or the piece alone where it cannot be cut. */
export function halves(text, piece) {
  const whole = text.slice(piece.start, piece.end);
  const half = Math.floor(whole.length / 2);
  if (half < 8) return [piece];
  const middle = piece.start + boundary(whole.slice(0, half + Math.floor(half / 4)));
  if (!text.slice(piece.start, middle).trim() || !text.slice(middle, piece.end).trim()) return [piece];
  return [{ start: piece.start, end: middle }, { start: middle, end: piece.end }];
}

/** Where the tokens are used up, counted from `start`. */
function reach(text, start, tokens) {
  let left = tokens * CHARACTERS_A_TOKEN;
  let at = start;
  while (at < text.length) {
    left -= text.charCodeAt(at) < 0x250 ? 1 : CHARACTERS_A_TOKEN;
    if (left < 0) break;
    at += 1;
  }
  return Math.max(at, Math.min(start + 2, text.length));
}

/** Where to cut a stretch, from its start: behind a paragraph, sentence, line, word or character. */
function boundary(stretch) {
  const least = Math.floor(stretch.length * 0.4);
  const paragraph = /^[\s\S]*\n[^\S\n]*\n\s*/.exec(stretch)?.[0].length ?? 0;
  if (paragraph > least && paragraph < stretch.length) return paragraph;
  return sentence(stretch, least) || space(stretch, least) || character(stretch);
}

function sentence(stretch, least) {
  if (sentences === null) return 0;
  let best = 0;
  let line = 0;
  for (const { segment, index } of sentences.segment(stretch)) {
    const end = index + segment.length;
    if (end === stretch.length || end <= least) continue; // the last one may go on
    if (SENTENCE_END.test(segment)) best = end;
    else line = end;
  }
  return best || line;
}

function space(stretch, least) {
  for (let at = stretch.length - 1; at > least; at -= 1) if (SPACE.test(stretch[at])) return at + 1;
  return 0;
}

function character(stretch) {
  const tail = Math.max(0, stretch.length - 64);
  let from = tail;
  if (from > 0 && isLow(stretch, from)) from -= 1;
  if (graphemes !== null) {
    const starts = [...graphemes.segment(stretch.slice(from))].map(({ index }) => index);
    const last = from + starts.at(-1);
    if (starts.length > 1 && last > 0) return last;
  }
  return isLow(stretch, stretch.length) ? stretch.length - 1 : stretch.length;
}

/** Whether a cut here would go through a pair of surrogates. */
function isLow(text, at) {
  const before = text.charCodeAt(at - 1);
  return before >= 0xd800 && before < 0xdc00;
}
