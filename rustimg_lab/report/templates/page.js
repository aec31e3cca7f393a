// Without a script all is there and can be read, but the plot of the trade-off, which the notebook's plots stand for.
const make = (name, properties = {}, ...children) => {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
};

// Tables: a click on a heading sorts, long ones are filtered, and all are copied with tabs between the columns.
const FILTERED_ROWS = 10;
const value = (row, column) => row.cells[column].textContent.trim();
const number = (text) => (/^[-+]?[\d,]*\.?\d/.test(text) ? parseFloat(text.replace(/,/g, "")) : NaN);

function sort(table, column, heading) {
  const down = heading.getAttribute("aria-sort") === "ascending";
  for (const other of table.tHead.rows[0].cells) other.setAttribute("aria-sort", "none");
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
  const button = make("button", { className: "copy", type: "button", textContent: `Copy ${what}` });
  button.addEventListener("click", async () => {
    await navigator.clipboard.writeText(text());
    button.textContent = "Copied";
    setTimeout(() => (button.textContent = `Copy ${what}`), 1500);
  });
  return button;
}

// While there is a filter, it is of all rows, also of those that are not shown yet.
function filterField(frame, table) {
  const input = make("input", { type: "search", size: 14 });
  const count = make("span", { role: "status" });
  input.addEventListener("input", () => {
    const wanted = input.value.toLowerCase().split(/\s+/).filter(Boolean);
    const rows = [...table.tBodies[0].rows];
    for (const row of rows) {
      const text = row.textContent.toLowerCase();
      row.classList.toggle("unlike", !wanted.every((word) => text.includes(word)));
    }
    frame.classList.toggle("filtered", wanted.length > 0);
    const left = rows.filter((row) => !row.classList.contains("unlike")).length;
    count.textContent = wanted.length ? ` ${left} of ${rows.length} rows` : "";
  });
  return make("label", { className: "filter" }, "Filter rows: ", input, count);
}

// On a narrow screen a row of a wide table is shown as a list, each value after its column's name: no column is cut. As
// that takes the roles from a table's parts, they are written down.
const WIDE_COLUMNS = 1;
function stack(table) {
  const headings = [...(table.tHead?.rows[0]?.cells ?? [])].map((each) => each.textContent.trim());
  if (headings.length <= WIDE_COLUMNS) return;
  table.classList.add("stacks");
  table.setAttribute("role", "table");
  for (const part of table.querySelectorAll("thead, tbody")) part.setAttribute("role", "rowgroup");
  for (const row of table.rows) {
    row.setAttribute("role", "row");
    [...row.cells].forEach((cell, i) => {
      cell.setAttribute("role", cell.tagName === "TH" ? "columnheader" : "cell");
      if (cell.tagName === "TD") cell.dataset.label = headings[i] ?? "";
    });
  }
}

for (const frame of document.querySelectorAll(".rows")) {
  const scroller = frame.querySelector(".table");
  const table = scroller.querySelector("table");
  if ((table.tBodies[0]?.rows.length ?? 0) > 1) {
    [...(table.tHead?.rows[0]?.cells ?? [])].forEach((heading, column) => {
      if (!heading.textContent.trim()) return;
      const button = make("button", { type: "button" }, ...heading.childNodes);
      button.addEventListener("click", () => sort(table, column, heading));
      heading.setAttribute("aria-sort", "none");
      heading.append(button);
    });
    if (table.tBodies[0].rows.length > FILTERED_ROWS) scroller.before(filterField(frame, table));
  }
  stack(table);
  const line = (row) => [...row.cells].map((cell) => cell.textContent.trim()).join("\t");
  scroller.after(copyButton("table", () => [...table.rows].map(line).join("\n")));
}
for (const block of document.querySelectorAll("pre")) block.after(copyButton("text", () => block.textContent));

// What is printed is whole; a link into what is folded opens it.
const print = matchMedia("print");
const folded = [...document.querySelectorAll("details:not([open])")];
const unfold = () => folded.forEach((each) => each.toggleAttribute("open", print.matches));
print.addEventListener("change", unfold);
addEventListener("beforeprint", () => folded.forEach((each) => (each.open = true)));
addEventListener("afterprint", () => folded.forEach((each) => (each.open = false)));

// The contents say where one is.
const links = new Map([...document.querySelectorAll("nav a")].map((link) => [link.hash.slice(1), link]));
const seen = new IntersectionObserver(
  (entries) => {
    for (const entry of entries.filter((each) => each.isIntersecting)) {
      for (const link of links.values()) link.removeAttribute("aria-current");
      links.get(entry.target.id).setAttribute("aria-current", "true");
    }
  },
  { rootMargin: "-20% 0px -75% 0px" },
);
for (const id of links.keys()) seen.observe(document.getElementById(id));

// The trade-off: cells by two criteria, both axes logarithmic, within the constraints that the reader chooses.
const SVG = "http://www.w3.org/2000/svg";
const [WIDEST, HEIGHT, LEFT, RIGHT, TOP, BOTTOM] = [896, 440, 60, 20, 20, 50];

function draw(parent, name, attributes, text = "") {
  const made = document.createElementNS(SVG, name);
  for (const [key, each] of Object.entries(attributes)) made.setAttribute(key, each);
  made.textContent = text;
  parent.append(made);
  return made;
}

const isBetter = (a, b) => a.every((each, i) => each <= b[i]) && a.some((each, i) => each < b[i]);

// From a value to its place on the axis, and the values between the ends that are powers of ten, or where those are fewer
// than three, round multiples of them: the fewest digits of these that give three, and never more than about eight.
const steps = (count) => Array.from({ length: count * 9 }, (_, i) => 1 + i / count);
const DIGITS = [[1], [1, 2, 5], [1, 1.5, 2, 3, 4, 5, 6, 8], steps(2), steps(5), steps(10)];
function logarithmic(values, from, to) {
  const [low, high] = [Math.log10(Math.min(...values) * 0.8), Math.log10(Math.max(...values) * 1.25)];
  let ticks = [];
  for (const digits of DIGITS) {
    if (ticks.length > 2) break;
    ticks = [];
    for (let power = Math.floor(low); power <= high; power++)
      for (const digit of digits) {
        const tick = digit * 10 ** power;
        if (Math.log10(tick) >= low && Math.log10(tick) <= high) ticks.push(Number(tick.toPrecision(2)));
      }
  }
  return [(each) => from + ((Math.log10(each) - low) / (high - low)) * (to - from), ticks];
}

// Puts a name beside its point where it covers no other name and no point; where there is no room it is left out, and
// pointing at the cell shows it.
function placeName(svg, cell, [x, y], taken, right) {
  const text = draw(svg, "text", { class: "name" }, cell.name);
  const { width, height } = text.getBBox();
  for (const [dx, dy] of [[10, 4], [-10 - width, 4], [-width / 2, -11], [-width / 2, 21], [10, -10], [10, 18]]) {
    const box = [x + dx, y + dy - height + 3, x + dx + width, y + dy + 3];
    const inside = box[0] > LEFT && box[2] < right && box[1] > 0 && box[3] < HEIGHT - BOTTOM;
    if (inside && !taken.some((b) => box[0] < b[2] && b[0] < box[2] && box[1] < b[3] && b[1] < box[3])) {
      text.setAttribute("x", x + dx);
      text.setAttribute("y", y + dy);
      taken.push(box);
      return;
    }
  }
  text.remove();
}

function showTip(svg, cell, criteria, [x, y], wide) {
  svg.querySelectorAll(".tip").forEach((each) => each.remove());
  const lines = [cell.name, ...criteria.map((each, i) => `${each.label} ${cell.texts[i]}`)];
  const tips = lines.map((line, i) => draw(svg, "text", { class: "tip", x, y: y + 24 + 16 * i }, line));
  const widest = Math.max(...tips.map((each) => each.getBBox().width));
  const above = y + 24 + 16 * lines.length > HEIGHT ? -24 - 16 * lines.length : 0;
  for (const each of tips) {
    each.setAttribute("x", Math.max(4, Math.min(x, wide - widest - 4)));
    each.setAttribute("y", Number(each.getAttribute("y")) + above);
  }
}

function drawTradeOff(section, { criteria, cells }) {
  const form = section.querySelector("form");
  const options = () => criteria.map((each, i) => make("option", { value: i, textContent: each.label }));
  const across = make("select", {}, ...options());
  const up = make("select", {}, ...options());
  up.selectedIndex = criteria.length - 2 || 1;
  const limits = criteria.map(() => make("input", { type: "number", min: 0, step: "any", placeholder: "any" }));
  const shell = make("input", { type: "checkbox" });
  const stable = make("input", { type: "checkbox", checked: true });
  form.append(make("label", {}, "Across: ", across), make("label", {}, "Up: ", up));
  criteria.forEach((each, i) => form.append(make("label", {}, `${each.label}, at most (${each.unit}): `, limits[i])));
  form.append(make("label", {}, shell, " with a shell"), make("label", {}, stable, " stable flags only"));
  const redraw = () => {
    const [x, y] = [Number(across.value), Number(up.value)];
    const fits = (cell) =>
      limits.every((each, i) => each.value === "" || (cell.values[i] !== null && cell.values[i] <= each.value)) &&
      (cell.shell || !shell.checked) && (cell.stable || !stable.checked);
    const shown = cells.filter((cell) => cell.values[x] !== null && cell.values[y] !== null);
    const kept = shown.filter(fits);
    const whole = kept.filter((cell) => !cell.values.includes(null));
    const front = new Set(whole.filter((cell) => !whole.some((other) => isBetter(other.values, cell.values))));
    const least = kept.reduce((a, b) => (a && a.values[x] <= b.values[x] ? a : b), null);
    const facts = least && criteria.map((each, i) => `${each.label} ${least.texts[i]}`).join(", ");
    const within = cells.filter(fits).length;
    const nothing = within ? " None of them was measured in both." : " Relax a constraint.";
    const of = `Of the ${kept.length} measured in both, lowest ${criteria[x].label} (ringed in orange)`;
    section.querySelector("[role=status]").textContent =
      `${within} of ${cells.length} cells are within the constraints.${least ? ` ${of}: ${least.name}: ${facts}.` : nothing}`;
    plot(section, shown, { criteria, x, y, kept, front, least });
  };
  form.addEventListener("input", redraw);
  form.addEventListener("submit", (event) => event.preventDefault());
  section.hidden = false;
  new ResizeObserver(redraw).observe(form); // also calls it at once
}

function plot(section, shown, { criteria, x, y, kept, front, least }) {
  const figure = section.querySelector("figure");
  figure.replaceChildren();
  if (!shown.length) return;
  const wide = Math.min(WIDEST, figure.clientWidth - 18);
  const label = `${criteria[y].label} against ${criteria[x].label}, both logarithmic, a point for each cell`;
  const svg = draw(figure, "svg", { viewBox: `0 0 ${wide} ${HEIGHT}`, width: wide, role: "group", "aria-label": label });
  const [placeX, ticksX] = logarithmic(shown.map((cell) => cell.values[x]), LEFT, wide - RIGHT);
  const [placeY, ticksY] = logarithmic(shown.map((cell) => cell.values[y]), HEIGHT - BOTTOM, TOP);
  for (const tick of ticksX) {
    draw(svg, "line", { class: "grid", x1: placeX(tick), x2: placeX(tick), y1: TOP, y2: HEIGHT - BOTTOM });
    draw(svg, "text", { x: placeX(tick), y: HEIGHT - BOTTOM + 16, "text-anchor": "middle" }, tick);
  }
  for (const tick of ticksY) {
    draw(svg, "line", { class: "grid", x1: LEFT, x2: wide - RIGHT, y1: placeY(tick), y2: placeY(tick) });
    draw(svg, "text", { x: LEFT - 6, y: placeY(tick) + 4, "text-anchor": "end" }, tick);
  }
  const title = (i) => `${criteria[i].label}, ${criteria[i].unit}`;
  draw(svg, "text", { x: (LEFT + wide) / 2, y: HEIGHT - 8, "text-anchor": "middle" }, title(x));
  draw(svg, "text", { x: 12, y: HEIGHT / 2, "text-anchor": "middle", transform: `rotate(-90 12 ${HEIGHT / 2})` }, title(y));
  const places = shown.map((cell) => [placeX(cell.values[x]), placeY(cell.values[y])]);
  const taken = places.map(([cx, cy]) => [cx - 8, cy - 8, cx + 8, cy + 8]);
  shown.forEach((cell, i) => {
    const [cx, cy] = places[i];
    const marks = [!kept.includes(cell) && "out", front.has(cell) && "front", cell === least && "least"];
    const values = criteria.map((each, j) => `${each.label} ${cell.texts[j]}`).join(", ");
    const outside = kept.includes(cell) ? "" : ", outside the constraints";
    const point = draw(svg, "circle", {
      cx, cy, r: 7, class: marks.filter(Boolean).join(" "), tabindex: 0, role: "img",
      "aria-label": `${cell.name}${outside}: ${values}`,
    });
    for (const event of ["pointerenter", "focus"])
      point.addEventListener(event, () => showTip(svg, cell, criteria, [cx, cy], wide));
    for (const event of ["pointerleave", "blur"])
      point.addEventListener(event, () => svg.querySelectorAll(".tip").forEach((each) => each.remove()));
  });
  const rank = (cell) => (cell === least ? 0 : front.has(cell) ? 1 : 2);
  for (const cell of [...kept].sort((a, b) => rank(a) - rank(b)))
    placeName(svg, cell, places[shown.indexOf(cell)], taken, wide);
}

const tradeOff = document.querySelector("[data-trade-off]");
if (tradeOff) drawTradeOff(tradeOff, JSON.parse(tradeOff.dataset.tradeOff));
