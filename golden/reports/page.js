"use strict";
// Filters rows by text and verdict, and sorts a table by a column. The choice is kept after the # of the
// address, so that a link shows what its sender saw: report.html#verdict=mismatch&text=CONV
const text = document.getElementById("text");
const verdict = document.getElementById("verdict");
const rows = [...document.querySelectorAll("tbody tr")];

function show() {
  const wanted = text.value.toLowerCase();
  let shown = 0;
  for (const row of rows) {
    const found = row.textContent.toLowerCase().includes(wanted);
    row.hidden = !found || (verdict.value !== "" && row.dataset.verdict !== verdict.value);
    shown += row.hidden ? 0 : 1;
  }
  document.getElementById("shown").textContent = `${shown} of ${rows.length} rows`;
}

function choose() {
  const state = new URLSearchParams({ verdict: verdict.value, text: text.value });
  history.replaceState(null, "", `#${state}`);
  show();
}

function sort(button) {
  const heading = button.closest("th");
  const column = [...heading.parentNode.children].indexOf(heading);
  const down = heading.getAttribute("aria-sort") === "ascending";
  for (const other of heading.parentNode.children) other.removeAttribute("aria-sort");
  heading.setAttribute("aria-sort", down ? "descending" : "ascending");
  const body = heading.closest("table").tBodies[0];
  const value = (row) => row.cells[column].textContent;
  const number = (row) => (value(row) === "" ? -Infinity : Number(value(row)));
  const compare =
    button.dataset.kind === "number" ? (a, b) => number(a) - number(b) || 0 : (a, b) => value(a).localeCompare(value(b));
  const ordered = [...body.rows].sort((a, b) => (down ? compare(b, a) : compare(a, b)));
  body.append(...ordered);
}

const state = new URLSearchParams(location.hash.slice(1));
verdict.value = state.get("verdict") ?? "";
text.value = state.get("text") ?? "";
text.addEventListener("input", choose);
verdict.addEventListener("change", choose);
document.querySelector("form").addEventListener("submit", (event) => event.preventDefault());
for (const button of document.querySelectorAll("th button")) {
  button.addEventListener("click", () => sort(button));
  if (button.textContent === state.get("sort")) sort(button);
}
show();
