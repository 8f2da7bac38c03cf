"""What the commands of the protocol have in common."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from matloop.testing.mongodb.errors import CommandError

Json = dict[str, Any]
Handler = Callable[[Json], Json]
_PREFIX = "_do_"


def handlers(room: object) -> dict[str, Handler]:
    """Return the methods ``_do_<command>`` of an object, by the command in lower case."""
    return {
        name.removeprefix(_PREFIX).lower(): getattr(room, name)
        for name in dir(room)
        if name.startswith(_PREFIX)
    }


def namespace_of(command: Json, name: str) -> str:
    """Return ``database.collection`` of a command.

    Raises
    ------
    CommandError
        If it names no collection.
    """
    collection = next(iter(command.values()))
    if not isinstance(collection, str) or not collection:
        raise CommandError(73, f"{name}: collection name has invalid type or is empty")
    return f"{command['$db']}.{collection}"


def refuse(command: Mapping[str, Any], *names: str) -> None:
    """Refuse options that the test server does not know.

    Raises
    ------
    CommandError
        Naming the first that is given.
    """
    for name in names:
        if command.get(name):
            raise CommandError(238, f"the test server knows no {name!r}")
