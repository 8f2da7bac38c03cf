"""A campaign as a file again."""

from __future__ import annotations

from typing import Any

import yaml
from pydantic import BaseModel

from matloop.documents.campaign import Campaign, PluginUse


def dump(campaign: Campaign) -> str:
    """Return a campaign file that declares exactly this campaign.

    Defaults are written out, so that the file keeps its meaning when a later version changes them;
    only what is empty by default and left empty is left out.
    """
    return yaml.dump(
        _plain(campaign), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100
    )


class _Dumper(yaml.SafeDumper):
    """Indents list items below their field."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, False)


def _plain(value: Any) -> Any:
    if type(value) is PluginUse and not value.parameters:
        return value.use
    if isinstance(value, BaseModel):
        content = {}
        for name, info in type(value).model_fields.items():
            item = getattr(value, name)
            if item in (None, "", (), {}) and item == info.get_default(call_default_factory=True):
                continue
            content[info.alias or name] = _plain(item)
        return content
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return value
