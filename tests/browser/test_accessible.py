"""The page for who cannot tell colours apart, does not use a mouse or listens to it: names, contrast, shapes, print."""

import pytest

from tests.browser.test_report import open_example

CONTROLS = {"button", "link", "searchbox", "textbox", "combobox", "slider", "checkbox", "listbox", "option", "image"}

# For every element with text of its own that is in sight: its ratio of contrast with what lies behind it.
CONTRASTS = """(() => {
  const parse = (c) => { const n = c.match(/[\\d.]+/g).map(Number); return [n[0], n[1], n[2], n[3] ?? 1]; };
  const over = (a, b) => [0, 1, 2].map((i) => a[i] * a[3] + b[i] * (1 - a[3])).concat(1);
  const light = (c) => [0.2126, 0.7152, 0.0722].reduce((sum, w, i) => {
    const v = c[i] / 255; return sum + w * (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4); }, 0);
  const behind = (e) => { const stack = [];
    for (let at = e; at; at = at.parentElement) stack.unshift(parse(getComputedStyle(at).backgroundColor));
    return stack.reduce((below, c) => over(c, below), [255, 255, 255, 1]); };
  const found = [];
  for (const e of document.querySelectorAll('body *')) {
    if (e.closest('script, noscript, .canvas, option, dialog:not([open])') || !e.getClientRects().length) continue;
    if (![...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim())) continue;
    const style = getComputedStyle(e), drawn = e instanceof SVGElement;
    if (e.disabled) continue;
    const back = behind(e), ink = over(parse(drawn ? style.fill : style.color), back);
    const [a, b] = [light(ink), light(back)].sort((x, y) => y - x);
    found.push([(a + 0.05) / (b + 0.05), e.outerHTML.slice(0, 120)]);
  }
  return found; })()"""


def names(browser):
    """(role, name) of everything that a screen reader can stop at."""
    nodes = browser.command("Accessibility.getFullAXTree")["nodes"]
    shown = [node for node in nodes if not node.get("ignored")]
    return [(n["role"]["value"], n.get("name", {}).get("value", "")) for n in shown if "role" in n]


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_text_contrasts_with_what_is_behind_it(browser, report, dark):
    browser.open((report / "report.html").as_uri() + "#example-5", dark=dark)
    browser.run("(() => { for (const e of document.querySelectorAll('details')) e.open = true; })()")
    found = browser.run(CONTRASTS)
    assert len(found) > 200
    assert [item for item in found if item[0] < 4.5] == []


@pytest.mark.parametrize("number", [1, 5, 7], ids=["image", "volume", "options"])
def test_everything_that_can_be_operated_has_a_name(page, number):
    open_example(page, number)
    page.command("Accessibility.enable")
    found = [(role, name) for role, name in names(page) if role.lower() in CONTROLS]
    assert {"button", "link", "combobox", "listbox", "option"} <= {role.lower() for role, _ in found}
    assert [role for role, name in found if not name.strip()] == []
    page.command("Accessibility.disable")


def test_ids_are_unique_and_headings_skip_no_level(page):
    open_example(page, 5)
    ids = page.run("[...document.querySelectorAll('[id]')].map(e => e.id)")
    assert len(ids) == len(set(ids))
    levels = page.run("[...document.querySelectorAll('main :is(h1,h2,h3,h4)')].map(e => Number(e.tagName[1]))")
    assert all(b - a <= 1 for a, b in zip([1, *levels], levels, strict=False))


def test_truth_and_answer_differ_without_colour(page):
    """In their line, in a letter before the label, and as points in their shape."""
    open_example(page, 1)
    dash = "['truth', 'said'].map(s => getComputedStyle(document.querySelector(`.mark.${s}`)).strokeDasharray)"
    solid, dashed = page.run(dash)
    assert solid == "none"
    assert dashed != "none"
    assert page.run("[...document.querySelectorAll('.tagged')].map(e => e.textContent)") == ["T square", "A square"]
    open_example(page, 6)
    shapes = []
    for side in ("truth", "said"):
        shapes.append(page.run(f"document.querySelector('.mark.{side}')?.getAttribute('d').replace(/[^a-zA-Z]/g, '')"))
        for _ in range(7):
            page.press("ArrowLeft")
    assert shapes[0] is not None
    assert shapes[0] != shapes[1] is not None


def test_a_verdict_is_told_by_a_sign_and_a_word(page):
    badges = "[...new Set([...document.querySelectorAll('#list .badge')].map(e => e.textContent))]"
    assert set(page.run(badges)) >= {"✓ right", "✗ wrong"}


def test_a_narrow_window_needs_no_scrolling_sideways(browser, report):
    browser.open((report / "report.html").as_uri() + "#example-5", width=400)
    assert browser.run("document.documentElement.scrollWidth") <= 400
    box = browser.run("document.querySelector('.canvas svg').getBoundingClientRect().right")
    assert box <= 400


def test_paper_shows_the_numbers_and_the_open_example_without_controls(browser, report):
    browser.open((report / "report.html").as_uri() + "#example-1")
    browser.command("Emulation.setEmulatedMedia", media="print")
    shown = "(s) => [...document.querySelectorAll(s)].some(e => e.getClientRects().length)"
    assert browser.run(f"['table.scores', '.plot', '.confusion', '.canvas'].map({shown})") == [True] * 4
    assert browser.run(f"['nav', '#filters', '#list', '.steps'].map({shown})") == [False] * 4
    browser.run("window.dispatchEvent(new Event('beforeprint'))")
    assert browser.run("document.querySelectorAll('main > section > details:not([open])').length") == 0
    browser.run("window.dispatchEvent(new Event('afterprint'))")
    browser.command("Emulation.setEmulatedMedia", media="")
