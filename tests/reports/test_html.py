"""The page is whole, safe, and opens without a network."""

import json
import re
import shutil
import subprocess
from html.parser import HTMLParser

import pytest

from matloop.reports.html import render_report, write_report
from matloop.reports.summary import summarize
from matloop.reports.wording import headline

NAMES = ("finished", "running", "begun", "binary", "quaternary")
MOST_BYTES = 8_000_000


class Page(HTMLParser):
    """Collects elements with their attributes, and the text outside scripts and styles."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.data: dict[str, str] = {}
        self._inside: tuple[str, str] | None = None
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.elements.append((tag, found))
        if tag in ("script", "style"):
            self._inside = (tag, found.get("id") or "")

    def handle_endtag(self, tag):
        if tag in ("script", "style"):
            self._inside = None

    def handle_data(self, data):
        if self._inside is None:
            self.text += data
        elif self._inside[1]:
            self.data[self._inside[1]] = self.data.get(self._inside[1], "") + data


@pytest.fixture(scope="module")
def pages(summaries):
    return {name: render_report(summaries[name]) for name in NAMES}


@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_loaded_from_elsewhere(pages, name):
    """No element refers to another file: all sources are data or places on the page."""
    for tag, attributes in Page(pages[name]).elements:
        for key in ("src", "href", "xlink:href", "srcset", "action"):
            value = attributes.get(key)
            assert value is None or value.startswith(("data:", "#")), (tag, key, value)
    assert "@import" not in pages[name].split("</style>")[0]
    assert len(pages[name].encode()) < MOST_BYTES


@pytest.mark.parametrize("name", NAMES)
def test_every_figure_has_data_and_words(pages, name):
    """Each figure names its data, which is JSON, and has a text for those who cannot see it."""
    page = Page(pages[name])
    plots = [found for _, found in page.elements if found.get("class") == "plot"]
    assert plots
    for plot in plots:
        assert len(plot["aria-label"]) > 20
        figure = json.loads(page.data[plot["data-figure"]])
        assert figure["data"]


def test_ids_are_unique_and_pictures_have_their_colours(pages):
    """Pictures are defined once, and every colour they use is on the page."""
    page = Page(pages["finished"])
    ids = [found["id"] for _, found in page.elements if "id" in found]
    assert len(ids) == len(set(ids))
    used = {found["href"][1:] for tag, found in page.elements if tag == "use"}
    colours = set(re.findall(r"url\(#(atom-\w+)\)", pages["finished"]))
    assert used
    assert colours
    assert used | colours <= set(ids)


def test_the_first_screen_says_what_was_found(pages, summaries):
    """Numbers of discoveries and rediscoveries stand in the headline."""
    summary = summaries["finished"]
    new = sum(finding.novelty != "withheld" for finding in summary.discoveries)
    again = sum(item.discovery for item in summary.rediscoveries)
    text = headline(summary)
    assert f"{new} new phase" in text
    assert f"{again} of {len(summary.rediscoveries)} withheld phases rediscovered" in text
    assert text in Page(pages["finished"]).text
    assert headline(summaries["begun"]) == "No discovery so far, after 1 iteration"


def test_text_of_users_is_escaped(summaries):
    """A campaign that describes itself in HTML does not change the page."""
    attack = '<img src="http://evil.example/x" onerror=alert(1)></script><script>alert(2)</script>'
    summary = summaries["finished"]
    campaign = summary.record.campaign.model_copy(update={"description": attack})
    record = summary.record.model_copy(
        update={"campaign": campaign, "versions": {attack: attack}, "machine": {attack: attack}}
    )
    first = summary.findings[0].model_copy(
        update={"generator": attack, "space_group": attack, "matches": attack}
    )
    last = summary.findings[-1].model_copy(update={"candidate_id": attack, "fate": attack})
    page = render_report(
        summary.model_copy(
            update={
                "record": record,
                "findings": (first, *summary.findings[1:-1], last),
                "reason": attack,
            }
        )
    )
    clean = Page(render_report(summary))
    dirty = Page(page)
    assert "evil.example" in dirty.text
    assert not [found for tag, found in dirty.elements if tag == "img"]
    assert [tag for tag, _ in dirty.elements].count("script") == [
        tag for tag, _ in clean.elements
    ].count("script")


def test_the_file_replaces_an_older_one_and_its_folder_is_made(ledger, tmp_path):
    """Writing twice leaves one file, and no draft."""
    path = tmp_path / "new" / "report.html"
    assert write_report(ledger, "begun", path) == path
    write_report(ledger, "binary", path)
    assert "Al–Ni" in path.read_text(encoding="utf-8")
    assert [item.name for item in path.parent.iterdir()] == ["report.html"]


def test_a_baseline_is_drawn_and_compared(ledger, summaries):
    """With a baseline campaign the page gives enhancement at equal cost instead of the excuse."""
    baseline = summaries["running"]
    summary = summarize(ledger, "finished", baseline)
    assert summary.versus is not None
    assert summary.arms[-1].kind == "campaign"
    text = Page(render_report(summary, baseline)).text
    assert f"{summary.versus.baseline} in the baseline campaign running" in text


@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs chromium")
@pytest.mark.parametrize("name", ["finished", "begun"])
def test_a_browser_draws_every_figure(pages, tmp_path, name):
    """In a real browser without network each figure becomes a drawing, and nothing overflows."""
    path = tmp_path / "report.html"
    probe = (
        "<script>window.addEventListener('load', function () { var root = document.documentElement;"
        "root.dataset.drawn = document.querySelectorAll('.plot .main-svg').length > 0 && "
        "Array.from(document.querySelectorAll('.plot')).every(p => p.querySelector('.main-svg'));"
        "root.dataset.wide = root.scrollWidth > root.clientWidth; });</script>"
    )
    path.write_text(pages[name].replace("</body>", probe + "</body>"), encoding="utf-8")
    command = [
        "chromium", "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run",
        "--disable-background-networking", "--window-size=500,900", "--virtual-time-budget=9000",
        f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", f"file://{path}",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    root = re.search(r"<html[^>]*>", done.stdout).group()
    assert 'data-drawn="true"' in root
    assert 'data-wide="false"' in root
