"use strict";
// Makes tables sortable. Without this script they are complete, in their original order.
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    if (!head.dataset.kind) return;
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = head.textContent.trim();
    head.textContent = "";
    head.append(button);
    button.addEventListener("click", () => {
      const number = head.dataset.kind === "number";
      const before = head.getAttribute("aria-sort");
      const down = before ? before === "ascending" : number;
      const key = (row) => {
        const text = row.cells[column].textContent.trim();
        const value = parseFloat(text.replace("<", ""));
        return number ? (Number.isNaN(value) ? null : value) : text;
      };
      const rows = [...body.rows].sort((a, b) => {
        const x = key(a), y = key(b);
        if (x === null || y === null) return (x === null) - (y === null);
        const order = number ? x - y : x.localeCompare(y);
        return down ? -order : order;
      });
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      body.append(...rows);
    });
  });
}
