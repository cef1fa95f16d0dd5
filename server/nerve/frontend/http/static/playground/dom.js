/* Making elements. Nothing becomes HTML here: strings are text. */

/**
 * An element with properties and children.
 *
 * @param {string} tag
 * @param {Record<string, unknown>} [properties] `class`, `data` (an object), `on` (an object of
 *   listeners), names with a hyphen and `role` as attributes, all else as properties; what is
 *   null or undefined is left out.
 * @param {...(Node | string | null | undefined)} children
 * @returns {HTMLElement}
 */
export function el(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === null || value === undefined) continue;
    if (name === "class") made.className = value;
    else if (name === "data") Object.assign(made.dataset, value);
    else if (name === "on") {
      for (const [event, listener] of Object.entries(value)) made.addEventListener(event, listener);
    } else if (name.includes("-") || name === "role" || name === "for") made.setAttribute(name, value);
    else made[name] = value;
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

/** "1,234" in the reader's own way of writing. */
export const number = (value) => value.toLocaleString();

/** "1 entity", "2 entities". */
export function counted(count, one, many) {
  return `${number(count)} ${count === 1 ? one : many}`;
}

/** Have a file saved. */
export function download(name, type, text) {
  const address = URL.createObjectURL(new Blob([text], { type }));
  el("a", { href: address, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(address), 10_000);
}

/**
 * Put text on the clipboard; browsers give `navigator.clipboard` to HTTPS and localhost only.
 *
 * @returns {Promise<boolean>} whether it is there.
 */
export async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    const held = document.activeElement;
    const area = el("textarea", { class: "hidden", value: text });
    document.body.append(area);
    area.select();
    const done = document.execCommand("copy");
    area.remove();
    held?.focus();
    return done;
  }
}
