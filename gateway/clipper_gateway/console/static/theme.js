"use strict";
// Runs before the page is drawn, so that it never shows in the wrong theme first.
try {
  const chosen = localStorage.getItem("console-theme");
  if (chosen === "light" || chosen === "dark") document.documentElement.dataset.theme = chosen;
} catch { /* storage is not permitted: the system's theme is used */ }
