// Tables sort by a click on a heading, and are copied with tabs between the columns; so are code blocks. Without a script
// all is there and can be read.
const value = (row, column) => row.cells[column].innerText.trim();
const number = (text) => (/^[-+]?[\d,]*\.?\d/.test(text) ? parseFloat(text.replace(/,/g, "")) : NaN);

function sort(table, column, heading) {
  const down = heading.getAttribute("aria-sort") === "ascending";
  for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
  heading.setAttribute("aria-sort", down ? "descending" : "ascending");
  const rows = [...table.tBodies[0].rows];
  const numeric = heading.classList.contains("number");
  rows.sort((a, b) => {
    let [left, right] = [value(a, column), value(b, column)];
    if (numeric) [left, right] = [number(left), number(right)].map((each) => (isNaN(each) ? "" : each));
    if (left === "" || right === "") return (left === "") - (right === ""); // what has no value comes last
    const order = numeric ? left - right : left.localeCompare(right);
    return down ? -order : order;
  });
  table.tBodies[0].append(...rows);
}

function copyButton(what, text) {
  const button = document.createElement("button");
  button.className = "copy";
  button.type = "button";
  button.textContent = `Copy ${what}`;
  button.addEventListener("click", async () => {
    await navigator.clipboard.writeText(text());
    button.textContent = "Copied";
    setTimeout(() => (button.textContent = `Copy ${what}`), 1500);
  });
  return button;
}

for (const table of document.querySelectorAll(".table > table")) {
  [...(table.tHead?.rows[0]?.cells ?? [])].forEach((heading, column) => {
    const button = document.createElement("button");
    button.append(...heading.childNodes);
    button.addEventListener("click", () => sort(table, column, heading));
    heading.append(button);
  });
  const text = () => [...table.rows].map((row) => [...row.cells].map((cell) => cell.innerText.trim()).join("\t")).join("\n");
  table.parentElement.after(copyButton("table", text));
}
for (const block of document.querySelectorAll("pre")) block.after(copyButton("text", () => block.textContent));
