// The list of examples: columns for filters, details parsed a chunk at a time, only the rows in sight in the document.
const ROW = 58; // pixels, as in page.css
const SPARE = 6; // rows kept above and below what is in sight
const COLUMNS = JSON.parse(document.getElementById("columns").textContent);
const COUNT = COLUMNS.number.length;
const CHUNK = COLUMNS.chunk;
const chunks = new Map();
const searchable = new Map();
let found = []; // examples that fit the filters, in order
let chosen = -1; // position in found
const list = document.getElementById("list");
const spacer = document.getElementById("spacer");
const rows = new Map(); // position -> element

const column = (name, i) => COLUMNS[name].words[COLUMNS[name].codes[i]];

function detail(i) {
  const k = Math.floor(i / CHUNK);
  if (!chunks.has(k)) chunks.set(k, JSON.parse(document.getElementById(`chunk-${k}`).textContent));
  return chunks.get(k)[i % CHUNK];
}

function textOf(i) {
  if (!searchable.has(i)) {
    const d = detail(i);
    const truth = d.kind === "options" ? d.options[d.truth] : d.kind === "text" ? d.truth : d.items.map((x) => x.label).join(" ");
    searchable.set(i, [COLUMNS.number[i], d.id, d.topic, d.prompt, d.text, truth].join("\n").toLowerCase());
  }
  return searchable.get(i);
}

const FILTERS = ["task", "dataset", "language", "verdict"];
const control = (name) => document.getElementById(name === "search" ? "search" : `filter-${name}`);

function fillFilters() {
  const names = { task: taskWord, verdict: (v) => `${SYMBOLS[v]} ${word(`v_${v}`)}` };
  for (const name of FILTERS) {
    const select = control(name), before = select.value, counts = new Map();
    for (const code of COLUMNS[name].codes) counts.set(code, (counts.get(code) || 0) + 1);
    const options = COLUMNS[name].words.map((value, code) =>
      make("option", { value, text: `${(names[name] || String)(value)} (${counts.get(code)})` }));
    select.replaceChildren(make("option", { value: "", text: word("any") }), ...options);
    select.value = before;
  }
  const order = control("order"), before = order.value || "file";
  order.replaceChildren(...["file", "worst", "best"].map((value) => make("option", { value, text: word(`order_${value}`) })));
  order.value = before;
}

// Worst first: wrong before right, then by what is measured; millimetres count the other way round.
function badness(i) {
  const verdict = { unreadable: 0, wrong: 1, unjudged: 2, right: 3 }[column("verdict", i)];
  const value = COLUMNS.value[i];
  return [verdict, value === null ? 0 : column("measure", i).startsWith("mre_mm") ? -value : value];
}

function filter() {
  const wanted = FILTERS.map((name) => [name, COLUMNS[name].words.indexOf(control(name).value)]).filter(([, code]) => code >= 0);
  const needles = control("search").value.toLowerCase().split(/\s+/).filter(Boolean);
  const before = chosen >= 0 ? found[chosen] : -1;
  found = [];
  for (let i = 0; i < COUNT; i++) {
    if (!wanted.every(([name, code]) => COLUMNS[name].codes[i] === code)) continue;
    if (needles.length && !needles.every((needle) => textOf(i).includes(needle))) continue;
    found.push(i);
  }
  const order = control("order").value;
  if (order === "worst" || order === "best") {
    const keys = new Map(found.map((i) => [i, badness(i)]));
    const sign = order === "worst" ? 1 : -1;
    found.sort((a, b) => sign * (keys.get(a)[0] - keys.get(b)[0] || keys.get(a)[1] - keys.get(b)[1]) || a - b);
  }
  chosen = found.indexOf(before);
  redraw();
  for (const button of document.querySelectorAll("[data-step]")) allow(button); // of the example that stays open
  document.getElementById("found").textContent = found.length || !COUNT ? word("found", { n: found.length.toLocaleString("en"), all: COUNT.toLocaleString("en") }) : word("nothing_found");
}

function redraw() {
  for (const element of rows.values()) element.remove();
  rows.clear();
  spacer.style.height = `${found.length * ROW}px`;
  drawRows();
}

function drawRows() {
  const first = Math.max(0, Math.floor(list.scrollTop / ROW) - SPARE);
  const last = Math.min(found.length, Math.ceil((list.scrollTop + list.clientHeight) / ROW) + SPARE);
  for (const [position, element] of rows) {
    if ((position < first || position >= last) && position !== chosen) { element.remove(); rows.delete(position); }
  }
  for (let position = first; position < last; position++) drawRow(position);
  if (chosen >= 0) drawRow(chosen);
  if (chosen >= 0) list.setAttribute("aria-activedescendant", `row-${chosen}`);
  else list.removeAttribute("aria-activedescendant");
}

function drawRow(position) {
  if (rows.has(position)) return;
  const i = found[position], d = detail(i);
  const head = make("div", {}, badge(column("verdict", i)), make("span", { text: taskWord(column("task", i)) }),
    make("span", { text: column("dataset", i) }), make("span", { text: `#${COLUMNS.number[i]}` }));
  const row = make("div", { class: "row", role: "option", id: `row-${position}`, "aria-selected": String(position === chosen),
    "aria-setsize": found.length, "aria-posinset": position + 1 }, head, make("p", { text: d.prompt || d.text || word("empty") }));
  row.style.top = `${position * ROW}px`;
  row.addEventListener("click", () => choose(position));
  rows.set(position, row);
  spacer.append(row);
}

function choose(position) {
  if (position < 0 || position >= found.length) return;
  const before = rows.get(chosen);
  if (before) before.setAttribute("aria-selected", "false");
  chosen = position;
  const top = position * ROW;
  if (top < list.scrollTop) list.scrollTop = top;
  if (top + ROW > list.scrollTop + list.clientHeight) list.scrollTop = top + ROW - list.clientHeight;
  drawRows();
  rows.get(chosen).setAttribute("aria-selected", "true");
  showDetail();
}
