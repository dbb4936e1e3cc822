// One picture with boxes and points over it. Everything is in the picture's own units (see pictures.py), strokes and
// letters in pixels of the screen; of a volume one slice is seen, with the boxes that it cuts and the points in it.
const layers = { truth: true, said: true };
let zoom = 1;
let volumes = []; // of the example in sight: functions that move the slice by a number of slices

const lettersOf = (side) => (side === "truth" ? "T" : "A");
const extent = (item) => item.box || [...item.point, ...item.point];

// Of everything that is drawn, as shares of the picture's width and height; without any its own middle.
function middle(items, w, h) {
  const spans = [...items.truth, ...items.said].map(extent);
  if (!spans.length) return [0.5, 0.5];
  const share = (axis, size) => {
    const ends = spans.flatMap((span) => [span[axis], span[span.length / 2 + axis]]);
    return (Math.min(...ends) + Math.max(...ends)) / 2 / size;
  };
  return [share(0, w), share(1, h)];
}

// Letters of Chinese are as wide as they are high.
const widthOf = (text) => [...text].reduce((width, letter) => width + (letter > "\u2e7f" ? 1 : 0.62), 0);

function cuts(item, slice, depth) {
  const span = extent(item), z = span.length / 2 - 1;
  if (item.point) return Math.min(Math.max(Math.floor(span[z]), 0), depth - 1) === slice;
  return span[z] < slice + 1 && span[span.length / 2 + z] > slice;
}

function drawItem(item, side, unit) {
  const span = extent(item), axes = span.length / 2;
  const [x1, y1, x2, y2] = [span[0], span[1], span[axes], span[axes + 1]];
  const group = make("g", {}, make("title", { text: `${word(side === "truth" ? "truth" : "answer")}: ${item.label}` }));
  const r = 7 * unit;
  const path = item.box ? `M${x1} ${y1}H${x2}V${y2}H${x1}Z`
    : side === "truth" ? `M${x1 - r} ${y1}a${r} ${r} 0 1 0 ${2 * r} 0a${r} ${r} 0 1 0 ${-2 * r} 0M${x1 - r / 3} ${y1}H${x1 + r / 3}M${x1} ${y1 - r / 3}V${y1 + r / 3}`
      : `M${x1 - r} ${y1 - r}L${x1 + r} ${y1 + r}M${x1 + r} ${y1 - r}L${x1 - r} ${y1 + r}`;
  // Both lines of an answer have gaps, so that a truth in the same place shows through them.
  for (const name of [`under ${item.point ? "whole" : side}`, `mark ${side}${item.point ? " whole" : ""}`]) group.append(make("path", { class: name, d: path }));
  return { group, x: x1, top: item.box ? y1 : y1 - r, bottom: item.box ? y2 : y1 + r };
}

function drawItems(svg, overlay, picture, items, slice) {
  const unit = picture.view[0] / (svg.clientWidth || 480), size = 13 * unit;
  overlay.replaceChildren();
  for (const side of ["truth", "said"]) {
    for (const item of layers[side] ? items[side] : []) {
      if (picture.kind === "volume" && !cuts(item, slice, picture.size[2])) continue;
      const drawn = drawItem(item, side, unit);
      const above = side === "truth" ? drawn.top - 4 * unit : drawn.bottom + size;
      const y = Math.min(Math.max(above, size), picture.view[1] - 3 * unit);
      const text = `${lettersOf(side)} ${item.label}`;
      const x = Math.min(Math.max(drawn.x, 2 * unit), Math.max(picture.view[0] - size * widthOf(text), 2 * unit));
      drawn.group.append(make("text", { class: `tagged ${side}`, x, y, "font-size": size, text }));
      overlay.append(drawn.group);
    }
  }
}

function showPicture(picture, items, name) {
  const [w, h] = picture.view, volume = picture.kind === "volume", depth = volume ? picture.size[2] : 1;
  const image = make("image", { href: `report_files/${picture.file}`, preserveAspectRatio: "none" });
  const inner = make("svg", { x: 0, y: 0, width: w, height: h, preserveAspectRatio: "none" }, image);
  const overlay = make("g", {});
  const svg = make("svg", { viewBox: `0 0 ${w} ${h}`, role: "img", "aria-label": name }, inner, overlay);
  const canvas = make("div", { class: `canvas z${zoom}`, tabindex: "0", role: "group", "aria-label": name }, svg);
  const figure = make("figure", { class: "picture" }, canvas);
  let slice = 0;
  const pitch = volume ? picture.cell.map((side) => side + 2 * picture.gap) : [1, 1];
  const sheet = volume ? [pitch[0] * picture.columns, pitch[1] * Math.ceil(depth / picture.columns)] : [1, 1];
  image.setAttribute("width", sheet[0]);
  image.setAttribute("height", sheet[1]);
  image.addEventListener("error", () => { figure.append(make("p", { class: "note", "data-t": "picture_missing", text: word("picture_missing") })); }, { once: true });
  const output = make("output", {}), slider = make("input", { type: "range", min: 1, max: depth, step: 1, "aria-label": word("slice"), "data-t-label": "slice" });

  function show(k) {
    slice = Math.min(Math.max(k, 0), depth - 1);
    const column = slice % (picture.columns || 1), row = Math.floor(slice / (picture.columns || 1));
    inner.setAttribute("viewBox", volume ? `${column * pitch[0] + picture.gap} ${row * pitch[1] + picture.gap} ${picture.cell[0]} ${picture.cell[1]}` : "0 0 1 1");
    slider.value = slice + 1;
    output.textContent = word("slice_of", { k: slice + 1, n: depth });
    slider.setAttribute("aria-valuetext", output.textContent);
    drawItems(svg, overlay, picture, items, slice);
  }

  if (volume) {
    slider.addEventListener("input", () => show(Number(slider.value) - 1));
    svg.addEventListener("wheel", (event) => {
      if (event.ctrlKey) return;
      event.preventDefault();
      show(slice + Math.sign(event.deltaY));
    }, { passive: false });
    const label = make("span", { "data-t": "slice", text: word("slice") });
    figure.append(make("div", { class: "slices" }, label, slider, output, sliceMarks(items, depth)));
    volumes.push((step) => show(slice + step));
    const first = [...items.truth, ...items.said].find((item) => extent(item).length === 6);
    const span = first ? extent(first) : null;
    slice = span ? Math.floor((span[2] + span[5]) / 2) : Math.floor(depth / 2);
  }
  new ResizeObserver(() => drawItems(svg, overlay, picture, items, slice)).observe(svg);
  figure.redraw = () => show(slice);
  figure.zoom = () => {
    canvas.className = `canvas z${zoom}`;
    const [x, y] = middle(items, w, h);
    canvas.scrollLeft = x * canvas.scrollWidth - canvas.clientWidth / 2;
    canvas.scrollTop = y * canvas.scrollHeight - canvas.clientHeight / 2;
  };
  show(slice);
  return figure;
}

// Under the slider: above the line the slices that hold truth, below those that hold an answer.
function sliceMarks(items, depth) {
  if (!items.truth.length && !items.said.length) return null;
  const svg = make("svg", { class: "marks", viewBox: `0 0 ${depth} 12`, preserveAspectRatio: "none", role: "img", "aria-label": word("marks"), "data-t-label": "marks" }, make("path", { d: `M0 6H${depth}` }));
  for (const [side, y] of [["truth", 0], ["said", 7]]) {
    for (let k = 0; k < depth; k++) {
      if (items[side].some((item) => cuts(item, k, depth))) svg.append(make("rect", { class: side, x: k + 0.1, y, width: 0.8, height: 5 }));
    }
  }
  return svg;
}
