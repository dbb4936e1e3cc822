"""One browser for all tests of the folder, and the pages they look at."""

import pytest

from tests.browser import chromium, pages


@pytest.fixture(scope="session")
def browser(tmp_path_factory):
    if chromium.EXECUTABLE is None:
        pytest.skip("needs Chromium: apt-get install chromium")
    browser = chromium.Chromium(tmp_path_factory.mktemp("chromium"))
    yield browser
    browser.close()


@pytest.fixture(scope="session")
def report(tmp_path_factory):
    """One example of every kind and frame."""
    folder = tmp_path_factory.mktemp("report")
    pages.write(folder, pages.every_kind())
    return folder


@pytest.fixture
def page(browser, report):
    browser.open((report / "report.html").as_uri())
    yield browser
    assert browser.complaints == []


@pytest.fixture(scope="session")
def large(tmp_path_factory):
    """Ten thousand examples."""
    folder = tmp_path_factory.mktemp("large")
    pages.write(folder, pages.many(10_000))
    return folder
