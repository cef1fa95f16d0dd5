/* The theme that was chosen, before anything is drawn; the rest of it is in app.js. */
"use strict";
try {
  const theme = localStorage.getItem("nerve-theme");
  if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
} catch {
  // A browser that keeps nothing has the theme of its system.
}
