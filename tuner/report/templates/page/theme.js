"use strict";
(() => {
  // Light or dark: as the system has it, until the reader chooses.
  const dark = matchMedia("(prefers-color-scheme: dark)");
  let theme = null;
  try { theme = localStorage.getItem("tuner-theme"); } catch { /* a page from a file may have none */ }
  const root = document.documentElement, button = document.createElement("button");
  button.type = "button";
  button.className = "button switch";
  const show = () => {
    if (theme) root.dataset.theme = theme;
    button.textContent = (theme ? theme === "dark" : dark.matches) ? "Light" : "Dark";
    button.setAttribute("aria-label", `${button.textContent} theme`);
  };
  button.addEventListener("click", () => {
    theme = button.textContent.toLowerCase();
    try { localStorage.setItem("tuner-theme", theme); } catch { /* it lasts until the page closes */ }
    show();
  });
  dark.addEventListener("change", show);
  show();
  document.querySelector("header").append(button);
  root.classList.add("js");
})();
