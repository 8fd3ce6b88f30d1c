// The table of all points: sorting by its headers, a text filter, and check boxes that hide methods everywhere.
(() => {
  "use strict";
  const table = document.getElementById("points");
  const filter = document.getElementById("filter");
  const boxes = [...document.querySelectorAll("#methods input[data-method]")];
  const rows = table ? [...table.tBodies[0].rows] : []; // in the order of the run
  const plain = (text) => text.toLowerCase().replace(/(\d),(?=\d{3})/g, "$1"); // 4096 finds 4,096
  const texts = new Map(rows.map((row) => [row, plain(row.textContent)]));

  function update() {
    const hidden = new Set(boxes.filter((box) => !box.checked).map((box) => box.dataset.method));
    const words = filter ? plain(filter.value).split(/\s+/).filter(Boolean) : [];
    for (const row of rows) {
      row.hidden = hidden.has(row.dataset.method) || !words.every((word) => texts.get(row).includes(word));
    }
    for (const body of document.querySelectorAll(".measures tbody")) {
      const members = [...body.querySelectorAll("tr[data-method]")];
      for (const row of members) row.hidden = hidden.has(row.dataset.method);
      body.hidden = members.length > 0 && members.every((row) => row.hidden);
    }
    if (table) {
      const count = rows.filter((row) => !row.hidden).length;
      document.getElementById("shown").textContent = `${count} of ${rows.length} rows`;
    }
    document.dispatchEvent(new CustomEvent("modbench-methods", { detail: [...hidden] }));
  }

  // Numbers by their base unit, texts as people count; what is unknown comes last either way.
  function compare(left, right, sign) {
    const [a, b] = [left.dataset.value, right.dataset.value];
    if (a !== undefined && b !== undefined) return sign * (Number(a) - Number(b));
    if (a !== undefined || b !== undefined) return a === undefined ? 1 : -1;
    return sign * left.textContent.localeCompare(right.textContent, "en", { numeric: true });
  }

  function sort(header) {
    const order = header.ariaSort === "ascending" ? "descending" : "ascending";
    for (const other of header.parentElement.cells) other.ariaSort = "none";
    header.ariaSort = order;
    const index = header.cellIndex;
    const sign = order === "ascending" ? 1 : -1;
    table.tBodies[0].append(...[...rows].sort((a, b) => compare(a.cells[index], b.cells[index], sign)));
  }

  for (const header of table ? table.tHead.rows[0].cells : []) {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...header.childNodes);
    button.addEventListener("click", () => sort(header));
    header.append(button);
    header.ariaSort = "none";
  }
  for (const control of [filter, ...boxes]) control?.addEventListener("input", update);
  update();
})();
