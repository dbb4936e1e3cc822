// The words of the page in two languages, and elements made without any markup text.
const WORDS = JSON.parse(document.getElementById("words").textContent);
let language = (navigator.language || "en").toLowerCase().startsWith("zh") ? 1 : 0;

function word(key, values = {}) {
  const text = key in WORDS ? WORDS[key][language] : key;
  return text.replace(/\{(\w+)\}/g, (all, name) => (name in values ? String(values[name]) : all));
}

// make("p", {class: "note", text: "..."}, child, ...): text is always text, never markup.
function make(tag, attributes = {}, ...children) {
  const drawn = ["svg", "g", "path", "rect", "circle", "text", "image", "line", "title"].includes(tag);
  const element = drawn ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "text") element.textContent = value;
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null));
  return element;
}

function speak(chosen) {
  language = chosen;
  document.documentElement.lang = ["en", "zh"][chosen];
  for (const element of document.querySelectorAll("[data-t]")) element.textContent = word(element.dataset.t);
  for (const element of document.querySelectorAll("[data-t-label]")) {
    element.setAttribute("aria-label", word(element.dataset.tLabel));
  }
  for (const button of document.querySelectorAll("[data-language]")) {
    button.setAttribute("aria-pressed", String(button.dataset.language === document.documentElement.lang));
  }
  document.title = `umit_jax: ${word("title")}`;
}

const SYMBOLS = { right: "✓", wrong: "✗", unreadable: "?", unjudged: "–" };
const taskWord = (task) => (`t_${task}` in WORDS ? word(`t_${task}`) : task);
const badge = (verdict) => make("span", { class: `badge ${verdict}`, text: `${SYMBOLS[verdict]} ${word(`v_${verdict}`)}` });
