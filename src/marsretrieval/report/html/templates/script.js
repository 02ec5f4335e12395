"use strict";
(() => {
  const status = document.getElementById("status");
  const valueOf = (row, column) => {
    const cell = row.cells[column];
    if (!cell) return null;
    if (cell.dataset.v !== undefined) return Number(cell.dataset.v);
    const share = cell.style.getPropertyValue("--v");
    if (share) return Number(share);
    return cell.tagName === "TH" ? cell.textContent.trim().toLowerCase() : null;
  };
  const compare = (a, b) => (typeof a === "string" ? a.localeCompare(b) : a - b);
  for (const table of document.querySelectorAll("table.sortable")) {
    for (const head of table.querySelectorAll("th[data-column]")) {
      const press = document.createElement("button");
      press.type = "button";
      press.append(...head.childNodes);
      head.append(press);
      press.addEventListener("click", () => {
        const first = head.dataset.first || "descending";
        const other = first === "descending" ? "ascending" : "descending";
        const order = head.getAttribute("aria-sort") === first ? other : first;
        for (const sorted of table.querySelectorAll("th[aria-sort]")) sorted.removeAttribute("aria-sort");
        head.setAttribute("aria-sort", order);
        const sign = order === "ascending" ? 1 : -1;
        const column = Number(head.dataset.column);
        for (const body of table.querySelectorAll("tbody:not(.foreign):not(.chance)")) {
          const rows = [...body.rows].filter((row) => !row.classList.contains("group"));
          const keyed = rows.map((row) => [valueOf(row, column), row]);
          keyed.sort(([a], [b]) => (a === null || b === null ? (a === null) - (b === null) : sign * compare(a, b)));
          body.append(...keyed.map(([, row]) => row));
        }
        status.textContent = "Sorted by " + press.textContent.trim() + ", " + order;
      });
    }
  }

  let opened = [];
  addEventListener("beforeprint", () => {
    opened = [...document.querySelectorAll("details:not([open])")];
    for (const details of opened) details.open = true;
  });
  addEventListener("afterprint", () => { for (const details of opened) details.open = false; });
})();
