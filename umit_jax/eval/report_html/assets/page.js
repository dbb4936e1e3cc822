// What ties the page together: language, filters, keys.
function speakAll(chosenLanguage) {
  speak(chosenLanguage);
  fillFilters();
  filter();
  if (chosen >= 0) showDetail();
}

for (const button of document.querySelectorAll("[data-language]")) {
  button.addEventListener("click", () => speakAll(["en", "zh"].indexOf(button.dataset.language)));
}
const help = document.getElementById("help");
document.getElementById("help-open").addEventListener("click", () => help.showModal());

const form = document.getElementById("filters");
form.addEventListener("change", filter);
form.addEventListener("submit", (event) => event.preventDefault());
form.addEventListener("reset", (event) => {
  event.preventDefault();
  for (const name of [...FILTERS, "search"]) control(name).value = "";
  control("order").value = "file";
  filter();
});
let waiting = 0;
control("search").addEventListener("input", () => { clearTimeout(waiting); waiting = setTimeout(filter, 120); });
list.addEventListener("scroll", drawRows, { passive: true });
new ResizeObserver(drawRows).observe(list);

// From elsewhere on the page the example would be chosen out of sight.
function step(by) {
  choose(chosen + by);
  const { top, bottom } = article.getBoundingClientRect();
  if (top > innerHeight / 2 || bottom < innerHeight / 4) article.scrollIntoView({ block: "start" });
}

const KEYS = {
  j: () => step(1),
  k: () => step(-1),
  "/": () => control("search").focus(),
  "?": () => help.showModal(),
  ArrowLeft: () => volumes.forEach((move) => move(-1)),
  ArrowRight: () => volumes.forEach((move) => move(1)),
  t: () => setLayer("truth", !layers.truth),
  p: () => setLayer("said", !layers.said),
  z: nextZoom,
};
const LIST_KEYS = {
  ArrowDown: () => choose(chosen + 1),
  ArrowUp: () => choose(chosen - 1),
  PageDown: () => choose(Math.min(chosen + 10, found.length - 1)),
  PageUp: () => choose(Math.max(chosen - 10, 0)),
  Home: () => choose(0),
  End: () => choose(found.length - 1),
};

document.addEventListener("keydown", (event) => {
  const at = event.target, typing = at.matches("input, select, textarea");
  if (help.open || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "Escape" && at.id === "search") { at.value = ""; filter(); list.focus(); return; }
  if (event.key === "Enter" && at.id === "search") { event.preventDefault(); filter(); list.focus(); if (chosen < 0) choose(0); return; }
  if (typing && at.type !== "checkbox") return;
  if (!volumes.length && ["ArrowLeft", "ArrowRight"].includes(event.key)) return; // they move a zoomed picture
  const action = (at === list && LIST_KEYS[event.key]) || KEYS[event.key];
  if (!action) return;
  event.preventDefault();
  action();
});

const closed = [];
addEventListener("beforeprint", () => { for (const element of document.querySelectorAll("main details:not([open])")) { closed.push(element); element.open = true; } });
addEventListener("afterprint", () => { while (closed.length) closed.pop().open = false; });

speakAll(language);
const asked = /^#example-(\d+)$/.exec(location.hash);
if (asked) choose(found.indexOf(COLUMNS.number.indexOf(Number(asked[1]))));
