"use strict";

// A click on a heading sorts its table by that column, another click reverses the order. Empty cells stay last.

// A number may be followed by its standard deviation, its source or its maximum: 71.5 ± 0.2, 72.0 (paper), 12 of 15.
const number = (text) => (/^[+-]?[\d.]+(e[+-]?\d+)?( ?[±(].*| of .*)?$/.test(text) ? parseFloat(text) : NaN);

function sort(table, column) {
  const heading = table.tHead.rows[0].cells[column];
  const numeric = heading.classList.contains("number");
  const first = numeric ? "descending" : "ascending";
  const second = numeric ? "ascending" : "descending";
  const order = heading.getAttribute("aria-sort") === first ? second : first;
  const sign = order === "ascending" ? 1 : -1;
  const text = (row) => row.cells[column].textContent;
  const compare = (a, b) =>
    (text(a) === "") - (text(b) === "") ||
    sign * (numeric ? number(text(a)) - number(text(b)) : text(a).localeCompare(text(b), undefined, { numeric: true }));
  table.tBodies[0].append(...[...table.tBodies[0].rows].sort(compare));
  for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
  heading.setAttribute("aria-sort", order);
}

for (const table of document.querySelectorAll("table")) {
  const rows = [...table.tBodies[0].rows];
  [...table.tHead.rows[0].cells].forEach((heading, column) => {
    const texts = rows.map((row) => row.cells[column].textContent).filter((text) => text !== "");
    if (texts.length && texts.every((text) => !Number.isNaN(number(text)))) {
      heading.classList.add("number");
      for (const row of rows) row.cells[column].classList.add("number");
    }
    heading.firstElementChild.addEventListener("click", () => sort(table, column));
  });
}
