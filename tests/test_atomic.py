"""Files that are there whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from matloop.atomic import whole_file


def test_a_file_appears_complete(tmp_path: Path) -> None:
    """The folder is made, an older file is replaced, others may read it, and nothing else stays."""
    path = tmp_path / "new" / "file.txt"
    for text in ("first", "second"):
        with whole_file(path) as draft:
            draft.write_text(text)
            assert not path.exists() or path.read_text() == "first"
    assert path.read_text() == "second"
    assert path.stat().st_mode & 0o777 == 0o644
    assert [file.name for file in path.parent.iterdir()] == ["file.txt"]


def test_an_error_leaves_the_older_file(tmp_path: Path) -> None:
    """Half a file is never seen: the older one stays, and the draft goes."""
    path = tmp_path / "file.txt"
    path.write_text("older")

    def interrupted() -> None:
        with whole_file(path) as draft:
            draft.write_text("ha")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert path.read_text() == "older"
    assert list(tmp_path.iterdir()) == [path]
