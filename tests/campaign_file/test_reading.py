"""YAML with line numbers."""

from __future__ import annotations

import pytest

from matloop.campaign_file.reading import dotted, read


def test_every_field_and_item_knows_its_line() -> None:
    """A value deep in lists and mappings is found in the line where it stands."""
    source = read("name: a\nstages:\n  - name: x\n    evaluate:\n      - p\n      - use: q\n")
    assert source.line(("stages", 0, "evaluate", 1, "use")) == 6
    assert source.line(("stages", 0, "evaluate", 0)) == 5
    assert source.line(("stages", 0, "missing", "deeper")) == 3
    assert dotted(("stages", 0, "evaluate", 1, "use")) == "stages[0].evaluate[1].use"


def test_words_stay_words_and_numbers_become_numbers() -> None:
    """YAML 1.1 would turn `off`, `no` and `1:30` into something else and keep `1e-3` as text."""
    text = "a: off\nb: no\nc: 1:30\nd: 1e-3\ne: 0123\nf: N\ng: '7'\nh: true\ni:\nj: 2026-01-01\n"
    assert read(text).value == {
        "a": "off", "b": "no", "c": "1:30", "d": 0.001, "e": 123, "f": "N", "g": "7", "h": True,
        "i": None, "j": "2026-01-01",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "line", "part"),
    [
        ("a: 1\nb: 2\na: 3\n", 3, "given twice (first in line 1)"),
        ("a:\n\t- b\n", 2, "tab"),
        ("a: 1\n  b: 2\n", 2, "colon"),
        ("a: [1, 2\nb: 3\n", 2, "YAML"),
        ("a: &x 1\nb: *x\n", 1, "anchor"),
        ("a: !!python/object:os.system 1\n", 1, "tag"),
        ("a: .inf\n", 1, "finite"),
        ("a: 1e999\n", 1, "finite"),
        ("a: 123456789012345678901234567890\n", 1, "digits"),
        ("? [1]\n: 2\n", 1, "plain word"),
        ("", 1, "empty"),
        ("# only a comment\n", 1, "empty"),
        ("a: \x00\n", 1, "text file"),
    ],
)
def test_what_cannot_be_read_is_named_with_its_line(text: str, line: int, part: str) -> None:
    """Each kind of unreadable text gives one mistake, in the right line."""
    (mistake,) = read(text).mistakes
    assert mistake.line == line
    assert part in mistake.message


def test_repeated_anchors_do_not_explode() -> None:
    """A file of nested aliases is refused instead of expanded."""
    lines = ["a0: &a0 [x, x]"]
    lines += [f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}, *a{i - 1}]" for i in range(1, 60)]
    assert read("\n".join(lines)).mistakes
