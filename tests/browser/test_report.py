"""The page in a real browser, from the disk: filters, pictures, slices, search, keyboard, languages, hostile texts."""

import json
import pathlib

import pytest

from tests.browser import pages
from umit_jax.eval.predictions import read_predictions
from umit_jax.eval.report_html.pictures import FOLDER, read_pictures

FOUND = "document.getElementById('found').textContent"
TITLE = "document.getElementById('detail-title')?.textContent"


def choose(page, name, value):
    page.run(
        f"(() => {{ const e = document.getElementById('filter-{name}'); e.value = {json.dumps(value)};"
        " e.dispatchEvent(new Event('change', {bubbles: true})); })()"
    )


def open_example(page, number):
    page.run("(() => { document.getElementById('filters').reset(); })()")
    page.run(f"(() => {{ document.getElementById('list').scrollTop = {number - 1} * 58; }})()")
    row = f"[...document.querySelectorAll('.row')].find(r => r.querySelector('div').textContent.endsWith('#{number}'))"
    page.wait(f"Boolean({row})")
    page.run(f"{row}.click()")
    assert page.run(TITLE) == f"Example {number}"


def drawn(page, side):
    """(x, y, width, height) of what is drawn of one side, as fractions of the picture."""
    code = f"""[...document.querySelectorAll('.canvas .mark.{side}')].map(e => {{
        const b = e.getBBox(), v = e.ownerSVGElement.viewBox.baseVal;
        return [b.x / v.width, b.y / v.height, b.width / v.width, b.height / v.height]; }})"""
    return page.run(code)


def test_filters_by_task_data_set_language_and_verdict_count_what_they_leave(page):
    assert page.run(FOUND) == "22 of 22 examples"
    choose(page, "task", "vqa")
    assert page.run(FOUND) == "14 of 22 examples"
    choose(page, "verdict", "unreadable")
    assert page.run(FOUND) == "1 of 22 examples"
    page.click("#filters button[type=reset]")
    choose(page, "language", "zh")
    assert page.run(FOUND) == "2 of 22 examples"
    choose(page, "dataset", "set")
    assert page.run("document.querySelectorAll('.row').length") == 2


@pytest.mark.parametrize(("number", "frame"), list(enumerate(pages.FRAMES, 1)))
def test_a_box_lies_on_what_it_names_whatever_its_frame(page, number, frame):
    open_example(page, number)
    w, h = pages.SIZE
    x1, y1, x2, y2 = pages.BOX
    wanted = [x1 / w, y1 / h, (x2 - x1) / w, (y2 - y1) / h]
    for side in ("truth", "said"):
        (found,) = drawn(page, side)
        assert found == pytest.approx(wanted, abs=0.006), frame  # half a pixel of the resized image
    assert page.run("document.querySelector('.canvas image').href.baseVal").startswith("report_files/")


def test_the_picture_under_the_boxes_is_the_one_that_the_shard_holds(page):
    open_example(page, 1)
    code = """(async () => { const i = new Image(); i.src = document.querySelector('.canvas image').href.baseVal;
        await i.decode(); return [i.naturalWidth, i.naturalHeight]; })()"""
    assert page.run(code) == list(pages.SIZE)


def test_slices_move_by_wheel_keys_and_slider_and_boxes_show_on_those_they_cut(page):
    open_example(page, 5)
    shown = "document.querySelector('.slices output').textContent"
    assert page.run(shown) == "6 of 12"  # the middle of the true box
    assert (len(drawn(page, "truth")), len(drawn(page, "said"))) == (1, 1)
    page.press("ArrowRight")
    page.press("ArrowRight")
    assert page.run(shown) == "8 of 12"
    assert (len(drawn(page, "truth")), len(drawn(page, "said"))) == (0, 1)
    page.wheel(".canvas svg", -120)
    page.wait(f"{shown} === '7 of 12'")
    assert len(drawn(page, "truth")) == 1
    slide = "const e = document.querySelector('.slices input'); e.value = 1; e.dispatchEvent(new Event('input'))"
    page.run(f"(() => {{ {slide} }})()")
    assert page.run(shown) == "1 of 12"
    assert (len(drawn(page, "truth")), len(drawn(page, "said"))) == (0, 0)
    page.press("ArrowLeft")
    assert page.run(shown) == "1 of 12"
    marks = "['truth', 'said'].map(s => document.querySelectorAll(`.marks .${s}`).length)"
    assert page.run(marks) == [4, 4]


def test_every_slice_shows_its_own_part_of_the_sheet(page, report):
    """Each in its cell of the sheet, without the margin around it."""
    open_example(page, 5)
    (sheet,) = [p for p in read_pictures(report / FOLDER).shown.values() if p.kind == "volume"]
    code = """(async () => { const svg = document.querySelector('.canvas svg svg'), i = new Image();
        i.src = svg.querySelector('image').href.baseVal; await i.decode();
        const c = document.createElement('canvas'); c.width = i.naturalWidth; c.height = i.naturalHeight;
        const v = svg.viewBox.baseVal, w = svg.querySelector('image');
        return [v.x, v.y, v.width, v.height, w.width.baseVal.value, w.height.baseVal.value, c.width, c.height]; })()"""
    for k in range(5, pages.DEPTH):
        x, y, w, h, sheet_w, sheet_h, real_w, real_h = page.run(code)
        assert (w, h, sheet_w, sheet_h) == (*sheet.cell, real_w, real_h)
        row, column = divmod(k, sheet.columns)
        assert (x, y) == (column * (w + 2 * sheet.gap) + sheet.gap, row * (h + 2 * sheet.gap) + sheet.gap)
        page.press("ArrowRight")


def test_a_point_shows_on_its_own_slice_only(page):
    open_example(page, 6)
    shown = "document.querySelector('.slices output').textContent"
    assert page.run(shown) == "10 of 12"
    assert (len(drawn(page, "truth")), len(drawn(page, "said"))) == (1, 0)
    for _ in range(7):
        page.press("ArrowLeft")
    assert page.run(shown) == "3 of 12"
    assert (len(drawn(page, "truth")), len(drawn(page, "said"))) == (0, 1)


def test_layers_are_switched_off_and_on_by_key_and_by_box(page):
    open_example(page, 1)
    page.press("t")
    assert (len(drawn(page, "truth")), len(drawn(page, "said"))) == (0, 1)
    assert page.run("document.getElementById('layer-truth').checked") is False
    page.click("#layer-truth")
    page.press("p")
    assert (len(drawn(page, "truth")), len(drawn(page, "said"))) == (1, 0)
    page.press("p")


def test_zoom_brings_what_is_drawn_to_the_middle(page):
    open_example(page, 1)
    middle = """(selector) => { const r = document.querySelector(selector).getBoundingClientRect();
        return [r.x + r.width / 2, r.y + r.height / 2]; }"""
    for _ in range(2):
        page.press("z")
        frame, mark = (page.run(f"({middle})({name!r})") for name in (".canvas", ".mark.truth"))
        assert mark == pytest.approx(frame, abs=12)
    page.press("z")
    assert page.run("document.querySelector('.canvas').scrollLeft") == 0


def test_search_looks_into_questions_answers_and_truths(page):
    page.press("/")
    assert page.run("document.activeElement.id") == "search"
    page.type("needle hay")
    page.wait(f"{FOUND} === '1 of 22 examples'")
    page.press("Enter")
    assert page.run(TITLE) == "Example 20"
    page.press("/")
    page.type("and nothing else")
    page.wait(f"{FOUND} === 'No example fits these filters.'")
    assert page.run("[...document.querySelectorAll('.steps button')].map((b) => b.disabled)") == [True, True]
    page.press("Escape")
    assert page.run(FOUND) == "22 of 22 examples"


def test_the_keyboard_alone_reaches_an_example_and_the_help(page):
    top = "document.getElementById('detail').getBoundingClientRect().top"
    assert page.run(f"{top} > innerHeight")
    page.press("j")
    assert page.run(TITLE) == "Example 1"
    page.wait(f"{top} > 0 && {top} < innerHeight / 2")
    page.press("j")
    page.press("k")
    page.press("j")
    assert page.run(TITLE) == "Example 2"
    page.run("document.getElementById('list').focus()")
    page.press("ArrowDown")
    assert page.run(TITLE) == "Example 3"
    active = "document.getElementById(document.getElementById('list').getAttribute('aria-activedescendant'))"
    assert page.run(f"{active}.getAttribute('aria-selected')") == "true"
    assert page.run("document.querySelectorAll('[aria-selected=true]').length") == 1
    page.press("?", shift=True)
    assert page.run("document.getElementById('help').open") is True
    page.press("Escape")
    page.wait("!document.getElementById('help').open")


def test_tab_goes_through_the_page_in_the_order_of_its_text_and_is_always_seen(page):
    page.press("j")
    seen, places = [], []
    for _ in range(60):
        page.press("Tab")
        name, top, outline = page.run(
            """(() => { const e = document.activeElement, s = getComputedStyle(e);
            const all = [...document.querySelectorAll('*')];
            return [e.id || e.textContent.trim().slice(0, 20), all.indexOf(e), parseFloat(s.outlineWidth)]; })()"""
        )
        if name in seen and top < places[-1]:
            break
        seen.append(name)
        places.append(top)
        assert outline >= 2, name
    assert places == sorted(places)
    assert {"help-open", "filter-task", "search", "list"} <= set(seen)


def test_the_language_of_the_page_is_switched_whole(page):
    page.press("j")
    page.click("[data-language=zh]")
    assert page.run("document.documentElement.lang") == "zh"
    assert page.run("document.querySelector('#summary h2').textContent") == "摘要"
    assert page.run(FOUND) == "22 个样例中的 22 个"
    assert page.run(TITLE) == "样例 1"
    left = """[...document.querySelectorAll('[data-t]')].filter(e => e.textContent
        && e.textContent === JSON.parse(document.getElementById('words').textContent)[e.dataset.t]?.[0]
        && /[a-z]{4}/.test(e.textContent) && e.dataset.t !== 'version').map(e => e.dataset.t)"""
    assert page.run(left) == []
    page.click("[data-language=en]")
    assert page.run("document.querySelector('#summary h2').textContent") == "Summary"


def test_a_script_in_an_answer_is_shown_and_not_run(page):
    open_example(page, 20)
    assert page.run("window.hurt === undefined") is True
    assert page.run("document.querySelectorAll('img, #detail script').length") == 0
    codes = "[...document.querySelector('.said-text.said').textContent].map(c => c.codePointAt(0))"
    assert page.run(codes) == [ord(character) for character in pages.NASTY]  # half a character included


def test_the_policy_refuses_what_the_page_did_not_bring(browser, report):
    browser.open((report / "report.html").as_uri())
    for code in (
        "document.body.append(Object.assign(document.createElement('script'), {textContent: 'window.hurt = 3'}))",
        "document.body.innerHTML = '<b>x</b>'",
        "document.body.setAttribute('onclick', 'window.hurt = 4'); document.body.click()",
    ):
        browser.run(f"(() => {{ try {{ {code} }} catch (e) {{ return 'refused' }} }})()")
    assert browser.run("window.hurt === undefined") is True
    assert browser.run("document.querySelectorAll('main section').length") == 5
    refused = browser.run("fetch('report_files/pictures.json').then(() => 'read', () => 'refused')")
    assert refused == "refused"


def test_nothing_is_asked_of_a_network(page):
    open_example(page, 5)
    assert page.requests
    assert all(url.startswith(("file:", "data:")) for url in page.requests)


def test_a_question_without_its_picture_says_so(page):
    open_example(page, 21)
    assert "left out" in page.run("document.getElementById('detail').textContent")
    open_example(page, 22)
    assert "no image" in page.run("document.getElementById('detail').textContent")


def test_ten_thousand_examples_keep_the_document_small(browser, large):
    browser.open((large / "report.html").as_uri())
    nodes = "document.querySelectorAll('*').length"
    before = browser.run(nodes)
    assert browser.run(FOUND) == "10,000 of 10,000 examples"
    assert browser.run("document.querySelectorAll('.row').length") <= 40
    code = """(() => { const start = performance.now(); const e = document.getElementById('filter-verdict');
        e.value = 'wrong'; e.dispatchEvent(new Event('change', {bubbles: true}));
        document.getElementById('list').scrollTop = 1e7; return performance.now() - start; })()"""
    assert browser.run(code) < 2000
    assert browser.run(FOUND) == "3,334 of 10,000 examples"
    browser.wait("[...document.querySelectorAll('.row')].some(r => r.textContent.includes('#10000'))")
    assert browser.run("document.querySelectorAll('.row').length") <= 40
    travel = """(async () => { const list = document.getElementById('list');
        for (let k = 0; k < 20; k++) { list.scrollTop = 3000 * k; await new Promise(requestAnimationFrame); } })()"""
    browser.run(travel)
    assert browser.run("document.querySelectorAll('.row').length") <= 40
    browser.press("/")
    browser.type("zebra")
    browser.wait(f"{FOUND} === '1 of 10,000 examples'")
    browser.press("Enter")
    assert browser.run(TITLE) == "Example 778"
    assert browser.run(nodes) <= before + 150
    assert browser.complaints == []


def test_the_page_in_the_docs_opens_with_all_its_pictures(browser):
    folder = pathlib.Path(__file__).parents[2] / "docs" / "example_report"
    browser.open((folder / "report.html").as_uri() + "#example-1")
    assert browser.run(FOUND) == "43 of 43 examples"
    shown = {picture.file for picture in read_pictures(folder / FOLDER).shown.values()}
    assert shown == {path.name for path in (folder / FOLDER).glob("*.png")}
    lines = read_predictions(folder / "predictions.jsonl")
    assert all(line["synthetic"] for line in lines)
    assert browser.complaints == []


def test_a_page_is_opened_at_the_example_that_its_address_names(browser, report):
    browser.open((report / "report.html").as_uri() + "#example-5")
    assert browser.run(TITLE) == "Example 5"
