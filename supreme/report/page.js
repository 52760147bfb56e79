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
  input.parentElement.querySelector(".chosen").hidden = true;
  input.parentElement.querySelectorAll(".run").forEach((run) => {
    const text = run.querySelector("summary").textContent.toLowerCase();
    run.hidden = !words.every((word) => text.includes(word));
  });
}

// Show the runs of one row; up to six are opened, of more the first.
function showRuns(link) {
  const fold = document.querySelector(link.getAttribute("href"));
  const { entry, target } = link.dataset;
  const runs = Array.from(fold.querySelectorAll(".run"));
  const mine = runs.filter((run) => run.dataset.entry === entry && (target === undefined || run.dataset.target === target));
  runs.forEach((run) => { run.hidden = !mine.includes(run); run.open = false; });
  mine.forEach((run, place) => { run.open = place === 0 || mine.length <= 6; });
  fold.querySelector(".find").value = "";
  const line = fold.querySelector(".chosen");
  const place = target === undefined ? "" : `, target ${target}`;
  line.firstElementChild.textContent = `${mine.length} of ${runs.length} runs: ${link.textContent}${place}`;
  line.hidden = false;
  fold.open = true;
  line.focus({ preventScroll: true });
}

document.addEventListener("click", (event) => {
  const button = event.target.closest("button");
  const link = event.target.closest("a[data-entry]");
  const cell = event.target.closest("td[data-column]");
  if (button && button.dataset.column) sortBy(button);
  if (button && button.matches(".every")) {
    const input = button.closest(".fold").querySelector(".find");
    filter(input);
    input.focus();
  }
  if (link) showRuns(link);
  const name = cell && cell.parentElement.querySelector("a[data-entry]");
  if (name && getSelection().isCollapsed) name.click();
});
document.addEventListener("input", (event) => {
  if (event.target.matches(".find")) filter(event.target);
});
