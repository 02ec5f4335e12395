"use strict";
(() => {
  const root = document.documentElement;
  const button = document.getElementById("theme");
  const system = matchMedia("(prefers-color-scheme: dark)");
  const dark = () => (root.dataset.theme || (system.matches ? "dark" : "light")) === "dark";
  const name = () => { button.textContent = dark() ? "Light colours" : "Dark colours"; };
  try {
    const stored = localStorage.getItem("marsretrieval-theme");
    if (stored === "dark" || stored === "light") root.dataset.theme = stored;
  } catch { /* a file may have no storage */ }
  name();
  button.hidden = false;
  system.addEventListener("change", name);
  button.addEventListener("click", () => {
    root.dataset.theme = dark() ? "light" : "dark";
    name();
    try { localStorage.setItem("marsretrieval-theme", root.dataset.theme); } catch { /* as above */ }
  });
})();
