// Puts the interactive charts in the place of the static plots. The library lies packed in the page; nothing is fetched.
(() => {
  "use strict";
  const specs = JSON.parse(document.getElementById("modbench-charts").textContent);
  const views = [];
  let hidden = [];

  async function loadLibrary() {
    const packed = document.getElementById("modbench-library").textContent.trim();
    const bytes = Uint8Array.from(atob(packed), (char) => char.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    const script = document.createElement("script");
    script.type = "module";
    script.textContent = await new Response(stream).text();
    const loaded = new Promise((resolve) => {
      document.addEventListener("modbench-library", resolve, { once: true });
    });
    document.head.append(script);
    await loaded;
  }

  async function draw(figure) {
    const options = {
      renderer: "svg",
      actions: false,
      ast: true, // expressions are interpreted: the page's policy forbids eval
      config: { font: getComputedStyle(document.body).fontFamily }, // measured as it is drawn
      tooltip: { theme: "page", disableDefaultStyle: true },
    };
    const chart = figure.querySelector(".chart");
    const { view } = await vegaEmbed(chart, specs[figure.dataset.plot], options);
    chart.querySelector("svg").ariaHidden = "true"; // the caption names the figure, the table has its numbers
    figure.dataset.drawn = ""; // hides the static plot
    views.push(view);
  }

  function hide(methods) {
    hidden = methods;
    for (const view of views) view.signal("hidden", hidden).runAsync();
  }

  async function start() {
    await loadLibrary();
    const figures = [...document.querySelectorAll("figure.plot")].filter((figure) => figure.dataset.plot in specs);
    for (const figure of figures) await draw(figure);
    hide(hidden); // chosen meanwhile
    document.documentElement.dataset.charts = "ready";
  }

  document.addEventListener("modbench-methods", (event) => hide(event.detail));
  start();
})();
