// For every page: the theme button, copy buttons, and a print with everything unfolded.
(() => {
  "use strict";
  const root = document.documentElement;
  const THEMES = ["system", "light", "dark"];
  root.dataset.scripted = ""; // shows the controls that need a script

  // The choice is kept where the browser lets a local file keep one.
  const store = {
    read() {
      try { return localStorage.getItem("modbench-theme"); } catch { return null; }
    },
    write(theme) {
      try { localStorage.setItem("modbench-theme", theme); } catch { /* the page forgets it */ }
    },
  };

  function applyTheme(theme) {
    if (theme === "system") delete root.dataset.theme;
    else root.dataset.theme = theme;
    const button = document.getElementById("theme");
    if (button) button.textContent = `Theme: ${theme}`;
  }

  let theme = THEMES.includes(store.read()) ? store.read() : "system";
  applyTheme(theme); // in the head, before anything is drawn

  function nextTheme() {
    theme = THEMES[(THEMES.indexOf(theme) + 1) % THEMES.length];
    store.write(theme);
    applyTheme(theme);
  }

  async function copy(button) {
    const code = document.querySelector(`#${button.dataset.copy} code`);
    let outcome = "Copied";
    try {
      await navigator.clipboard.writeText(code.textContent);
    } catch {
      getSelection().selectAllChildren(code);
      outcome = "Selected";
    }
    button.textContent = outcome;
    setTimeout(() => { button.textContent = "Copy"; }, 2000);
  }

  document.addEventListener("DOMContentLoaded", () => {
    applyTheme(theme);
    document.getElementById("theme").addEventListener("click", nextTheme);
    for (const button of document.querySelectorAll("button[data-copy]")) {
      button.addEventListener("click", () => copy(button));
    }
  });

  let unfolded = [];
  addEventListener("beforeprint", () => {
    unfolded = [...document.querySelectorAll("details:not([open])")];
    for (const details of unfolded) details.open = true;
  });
  addEventListener("afterprint", () => {
    for (const details of unfolded) details.open = false;
  });
})();
