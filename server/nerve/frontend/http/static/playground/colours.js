/* A colour for each label: the same in every text, theme and session. Pure. */

const COUNT = 12; // as many as tag.css has
const USUAL = {
  PER: 0, PERSON: 0, ORG: 1, LOC: 2, GPE: 2, MISC: 3, DATE: 4, TIME: 4, MONEY: 5, PERCENT: 5,
  PRODUCT: 6, EVENT: 7, LAW: 8, NORP: 9, FAC: 10, LANGUAGE: 11, WORK_OF_ART: 8, QUANTITY: 5,
};

/** The kind of entity, of a label with or without prefix ("B-PER"). */
export const kind = (label) => label.slice(label.indexOf("-") + 1);

/**
 * Colours of a model's labels.
 *
 * @param {string[]} labels all of them.
 * @returns {(label: string) => number} the number of a label's colour; two kinds share one only
 *   where there are more of them than colours.
 */
export function colours(labels) {
  const given = new Map();
  const taken = new Array(COUNT).fill(0);
  const take = (name) => {
    const wanted = USUAL[name.toUpperCase()] ?? hash(name) % COUNT;
    const least = Math.min(...taken);
    let at = wanted;
    while (!(name.toUpperCase() in USUAL) && taken[at] > least) at = (at + 1) % COUNT;
    taken[at] += 1;
    given.set(name, at);
    return at;
  };
  const names = [...new Set(labels.map(kind))].filter((name) => name !== "O").sort();
  const usual = (name) => (name.toUpperCase() in USUAL ? 0 : 1);
  names.sort((a, b) => usual(a) - usual(b)).forEach(take);
  return (label) => given.get(kind(label)) ?? take(kind(label));
}

function hash(name) {
  let value = 0;
  for (const character of name) value = (value * 31 + character.codePointAt(0)) % 1_000_003;
  return value;
}
