/* The part of the address behind #: a page, and what is chosen there. Never a text. */

/** The page, "/" or "/models" for instance. */
export function page() {
  return location.hash.slice(1).split("?")[0] || "/";
}

/** What is chosen, by name. */
export function choices() {
  return new URLSearchParams(location.hash.split("?").slice(1).join("?"));
}

/** Keep what is chosen in the address, so that it can be sent to someone; empty values are left out. */
export function choose(values) {
  const kept = Object.entries(values).filter(([, value]) => value !== "" && value !== null);
  const query = new URLSearchParams(kept).toString();
  history.replaceState(history.state, "", `#${page()}${query ? `?${query}` : ""}`);
}
