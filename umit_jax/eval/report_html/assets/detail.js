// The chosen example in full: its pictures, what was asked and answered, what is true.
const article = document.getElementById("detail");
let figures = [];

function showDetail() {
  const i = found[chosen], d = detail(i), n = COLUMNS.number[i];
  volumes = [];
  figures = [];
  const steps = make("div", { class: "steps" }, stepButton("previous", -1), stepButton("next", 1));
  const measure = column("measure", i), value = COLUMNS.value[i];
  const bar = make("div", { class: "bar" }, make("h3", { id: "detail-title", text: `${word("example")} ${n}` }), badge(column("verdict", i)),
    value === null ? null : make("span", { class: "muted" }, make("code", { text: measure }), ` ${value.toFixed(3)}`),
    make("span", { class: "muted", text: [taskWord(column("task", i)), column("dataset", i), column("language", i)].join(" · ") }), steps);
  const about = make("p", { class: "note", text: [word("line_of", { n }), d.id, d.topic && `${word("topic")}: ${d.topic}`, d.modality && `${word("modality")}: ${d.modality}`, d.synthetic && word("synthetic")].filter(Boolean).join(" · ") });
  const shown = pictureSide(d);
  const split = make("div", { class: d.pictures.length ? "split" : "split alone" }, shown, textSide(d, column("language", i)));
  article.replaceChildren(bar, split, about);
  for (const figure of figures) { figure.redraw(); figure.zoom(); }
  history.replaceState(null, "", `#example-${n}`);
}

function stepButton(key, step) {
  const button = make("button", { type: "button", text: word(key), "data-step": step });
  allow(button);
  button.addEventListener("click", () => { choose(chosen + step); list.focus({ preventScroll: true }); });
  return button;
}

function allow(button) {
  const to = chosen + Number(button.dataset.step);
  button.disabled = to < 0 || to >= found.length;
}

function pictureSide(d) {
  const side = make("div", {});
  if (!d.pictures.length) {
    side.append(make("p", { class: "note", text: word(d.images ? "no_picture" : "no_image") }));
    return side;
  }
  const coordinates = d.kind === "boxes" || d.kind === "points";
  const holder = make("div", { class: "pictures" });
  d.pictures.forEach((picture, k) => {
    const own = coordinates && d.place === k;
    const name = word("picture", { k: k + 1, n: d.pictures.length });
    const figure = showPicture(picture, own ? { truth: d.truth, said: d.said } : { truth: [], said: [] }, name);
    if (d.pictures.length > 1) figure.classList.add("many");
    const facts = [picture.modality, picture.size.join(" × "), picture.window && `${word("window")} ${picture.window}`];
    figure.append(make("figcaption", { class: "note", text: facts.filter(Boolean).join(" · ") }));
    figures.push(figure);
    holder.append(figure);
  });
  side.append(holder, controls(coordinates && d.place !== null));
  if (coordinates && d.place === null) side.append(make("p", { class: "note", text: word("not_drawn") }));
  return side;
}

function controls(drawn) {
  const box = make("div", { class: "controls" });
  for (const side of drawn ? ["truth", "said"] : []) {
    const input = make("input", { type: "checkbox", id: `layer-${side}` });
    input.checked = layers[side];
    input.addEventListener("change", () => setLayer(side, input.checked));
    box.append(make("label", {}, input, make("span", { "data-t": `layer_${side}`, text: word(`layer_${side}`) })));
  }
  const button = make("button", { type: "button", id: "zoom", text: `${word("zoom")} ${zoom}×` });
  button.addEventListener("click", nextZoom);
  box.append(button);
  return box;
}

function setLayer(side, on) {
  layers[side] = on;
  const input = document.getElementById(`layer-${side}`);
  if (input) input.checked = on;
  for (const figure of figures) figure.redraw();
}

function nextZoom() {
  zoom = zoom === 4 ? 1 : zoom * 2;
  for (const figure of figures) figure.zoom();
  const button = document.getElementById("zoom");
  if (button) button.textContent = `${word("zoom")} ${zoom}×`;
}

function block(key, ...content) {
  return make("div", { class: "block" }, make("h4", { text: word(key) }), ...content);
}

const quoted = (text, kind, lang) => make("p", { class: `said-text ${kind}`, lang, text: text || word("empty") });

function textSide(d, lang) {
  const side = make("div", {}, block("question", quoted(d.prompt, "question", lang)), block("answer", quoted(d.text, "said", lang)));
  if (d.problems.length) side.append(block("refused", make("p", { class: "problems", text: d.problems.join("; ") })));
  if (d.kind === "text") side.append(block("truth", quoted(d.truth, "truth", lang)));
  else if (d.kind === "options") side.append(optionTable(d, lang));
  else side.append(itemTable(d));
  return side;
}

function optionTable(d, lang) {
  const head = make("tr", {}, ...["option", ...(d.scores ? ["probability"] : []), ""].map((key) => (key ? make("th", { scope: "col", text: word(key) }) : make("td"))));
  const body = d.options.map((option, k) => {
    const notes = [k === d.truth && word("is_true"), k === d.said && word("said")].filter(Boolean).join(", ");
    const mark = k === d.truth ? "✓ " : k === d.said ? "✗ " : "";
    return make("tr", {}, make("th", { scope: "row", lang, text: `${k + d.first}: ${option}` }), d.scores ? make("td", {}, share(d.scores[k]), ` ${d.scores[k].toFixed(3)}`) : null,
      make("td", {}, notes ? make("span", { class: `badge ${k === d.truth ? "right" : "wrong"}`, text: mark + notes }) : ""));
  });
  return block("options", make("table", { class: "items" }, make("thead", {}, head), make("tbody", {}, ...body)));
}

function share(value) {
  return make("svg", { class: "share", viewBox: "0 0 90 10", "aria-hidden": "true" }, make("rect", { x: 0, y: 1, width: 90 * value, height: 8 }), make("path", { d: "M0 .5H89.5V9.5H0Z" }));
}

function itemTable(d) {
  const scored = d.items.some((item) => item.scores.length);
  const keys = ["label", "truth", "answer", ...(scored ? ["confidence"] : [])];
  const write = (all) => (all.length ? all.map((numbers) => `(${numbers.join(", ")})`).join(" ") : word("none"));
  const body = d.items.map((item) => make("tr", {}, make("th", { scope: "row", text: item.label }), make("td", { text: write(item.truth) }), make("td", { text: write(item.said) }), scored ? make("td", { text: item.scores.join(" ") }) : null));
  const frame = word("frame", { name: d.frame.name, size: d.frame.size.join(" × ") });
  return block("coordinates", make("table", { class: "items" }, make("thead", {}, make("tr", {}, ...keys.map((key) => make("th", { scope: "col", text: word(key) })))), make("tbody", {}, ...body)), make("p", { class: "note", text: frame }));
}
