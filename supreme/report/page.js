"use strict";
document.documentElement.classList.remove("no-script");

// Sort the methods of a table by one column: ascending, descending, then the given order again.
function sortBy(button) {
  const head = button.closest("th");
  const table = head.closest("table");
  const body = table.tBodies[table.tBodies.length - 1];
  const rows = Array.from(body.rows);
  const state = { none: "ascending", ascending: "descending", descending: "none" }[head.getAttribute("aria-sort") || "none"];
  table.querySelectorAll("th[aria-sort]").forEach((cell) => cell.setAttribute("aria-sort", "none"));
  head.setAttribute("aria-sort", state);
  const key = button.dataset.column;
  const value = (row) => {
    if (state === "none") return Number(row.dataset.place);
    if (key === "name") return row.dataset.name;
    const text = row.querySelector(`td[data-column="${key}"]`).dataset.value;
    return text === "" ? null : Number(text);
  };
  const sign = state === "descending" ? -1 : 1;
  rows.sort((first, second) => {
    const [a, b] = [value(first), value(second)];
    if (a === null || b === null) return (a === null) - (b === null);
    return sign * (typeof a === "string" ? a.localeCompare(b, undefined, { numeric: true }) : a - b);
  });
  body.append(...rows);
}

// Show only the runs whose line holds every word that was typed.
function filter(input) {
  const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
  input.parentElement.querySelectorAll(".run").forEach((run) => {
    const text = run.querySelector("summary").textContent.toLowerCase();
    run.hidden = !words.every((word) => text.includes(word));
  });
}

document.addEventListener("click", (event) => {
  const button = event.target.closest("button[data-column]");
  if (button) sortBy(button);
});
document.addEventListener("input", (event) => {
  if (event.target.matches(".find")) filter(event.target);
});
