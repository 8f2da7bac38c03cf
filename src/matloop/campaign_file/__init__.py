"""Campaign files: reading them with every mistake at once, and writing them."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from matloop.campaign_file.checking import check
from matloop.campaign_file.fields import mistakes, truth_values
from matloop.campaign_file.reading import Source, read, text_of
from matloop.campaign_file.template import suits_charge_balance, template
from matloop.campaign_file.writing import dump
from matloop.documents.campaign import Campaign
from matloop.errors import ConfigurationError, Mistake

__all__ = ["dump", "load", "parse", "suits_charge_balance", "template"]


def load(path: Path) -> Campaign:
    """Return the campaign that a file declares.

    Paths inside it stay as written, relative to the folder of the file; `Campaign.located` makes
    them absolute.

    Raises
    ------
    ConfigurationError
        With every mistake in the file, each with its line.
    """
    return parse(text_of(path), path)


def parse(text: str, path: Path) -> Campaign:
    """Return the campaign that a text declares.

    Parameters
    ----------
    text
        Content of a campaign file.
    path
        Where it stands, for messages and for relative paths.

    Raises
    ------
    ConfigurationError
        With every mistake in the text, each with its line.
    """
    source = read(text)
    found = list(source.mistakes)
    if not isinstance(source.value, dict):
        if not found:
            found.append(Mistake("", "a campaign file holds fields, such as `name: my-search`", 1))
        raise ConfigurationError(found, path)
    campaign, wrong = _validated(source)
    checked = check(source, path.parent)
    unread = {mistake.field for mistake in found}
    for mistake in [item for item in wrong if not _said(item, checked)] + checked:
        if mistake.field not in unread:  # what follows from it is not told again
            found.append(mistake)
    if found or campaign is None:
        unique = dict.fromkeys(found)
        raise ConfigurationError(sorted(unique, key=lambda mistake: mistake.line or 0), path)
    return campaign


def _validated(source: Source) -> tuple[Campaign | None, list[Mistake]]:
    try:
        return Campaign.model_validate(source.value), truth_values(source)
    except ValidationError as error:
        return None, mistakes(error, source) + truth_values(source)


def _said(mistake: Mistake, checked: list[Mistake]) -> bool:
    """Whether the checks name the very place where the model only names the field around it."""
    if not mistake.field:
        return any(other.message == mistake.message for other in checked)
    return mistake.field.startswith("space.") and any(
        other.field == mistake.field or other.field.startswith(f"{mistake.field}[")
        for other in checked
    )
