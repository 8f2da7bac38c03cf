"""The site: which database, which shared folder, and which kinds of workers a cluster offers."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import PrivateAttr, ValidationError, field_validator

from matloop.campaign_file.fields import Models, choice, mistakes, truth_values
from matloop.campaign_file.reading import FieldPath, Source, read, text_of
from matloop.documents.base import Document
from matloop.documents.campaign import Name
from matloop.errors import ConfigurationError, Mistake
from matloop.launch.worker_kind import VARIABLE_NAME, WorkerKind

if TYPE_CHECKING:
    from fireworks import LaunchPad

    from matloop.ledger.opening import LedgerConfig

VARIABLE = "MATLOOP_SITE"
"""Environment variable that names the site file where ``--site`` is not given."""

DEFAULT_KIND = "cpu"
"""The kind of worker every site has: it runs what asks for no other."""

_URI = re.compile(r"mongodb(\+srv)?:|://[^/\s]*@|[\w.-]+:[^\s/@]+@\w", re.IGNORECASE)
_DATABASE = re.compile(r"[A-Za-z0-9_-]{1,63}")


class Database(Document):
    """The MongoDB server that holds campaigns and jobs; its URI is a secret and stands elsewhere.

    Attributes
    ----------
    name
        Name of the database on the server; the ledger, the jobs' outputs and FireWorks share it.
    uri_variable
        Environment variable that holds the server's URI, here and on every worker.
    uri_file
        File that holds the URI instead, readable by its owner only (``chmod 600``).
    """

    name: str = "matloop"
    uri_variable: str = "MATLOOP_MONGODB_URI"
    uri_file: Path | None = None

    @field_validator("name")
    @classmethod
    def _is_a_name(cls, value: str) -> str:
        if not _DATABASE.fullmatch(value):
            raise ValueError("must hold only letters, digits, - and _, at most 63 of them")
        return value

    @field_validator("uri_variable")
    @classmethod
    def _is_a_variable(cls, value: str) -> str:
        if not VARIABLE_NAME.fullmatch(value):  # not repeated: it may be the URI, with its password
            raise ValueError("must be the name of an environment variable, not the URI itself")
        return value

    @field_validator("uri_file")
    @classmethod
    def _is_written_out(cls, value: Path | None) -> Path | None:
        return value and _written_out(value)


class Site(Document):
    """Where campaigns run: one file per cluster and user.

    Attributes
    ----------
    name
        Name of the cluster, for people.
    database
        The MongoDB server.
    directory
        Folder that every node sees: artifacts, logs, launch folders, FireWorks' files. Relative to
        the site file.
    scheduler
        The queueing system.
    kinds
        Kinds of workers by name; ``cpu`` among them runs what asks for no other.
    """

    name: Name
    database: Database = Database()
    directory: Path
    scheduler: Literal["slurm"] = "slurm"
    kinds: dict[Name, WorkerKind]

    _file: Path | None = PrivateAttr(None)

    @field_validator("directory")
    @classmethod
    def _is_written_out(cls, value: Path) -> Path:
        if not str(value).strip() or value == Path():
            raise ValueError("names no folder of its own; write one that every node sees")
        return _written_out(value)

    @field_validator("kinds")
    @classmethod
    def _has_cpu(cls, value: dict[str, WorkerKind]) -> dict[str, WorkerKind]:
        if DEFAULT_KIND not in value:
            raise ValueError(f"{DEFAULT_KIND!r} is missing; it runs what asks for no other kind")
        return value

    @property
    def file(self) -> Path:
        """The site file.

        Raises
        ------
        ValueError
            If the site was not read from a file.
        """
        if self._file is None:
            raise ValueError("this site has no file")
        return self._file

    @property
    def fireworks(self) -> Path:
        """Folder of FireWorks' own files: ``lpad -c`` and ``qlaunch -c`` take it."""
        return self.directory / "fireworks"

    @property
    def logs(self) -> Path:
        """Folder of what the workers write, and where they are launched."""
        return self.directory / "logs"

    def kind(self, name: str) -> WorkerKind:
        """Return a kind of worker.

        Raises
        ------
        ConfigurationError
            If the site has none of that name.
        """
        if name not in self.kinds:
            near = choice(name, self.kinds, "kinds are")
            raise ConfigurationError(
                f"the site {self.name!r} has no kind of worker {name!r}{near}", self._file
            )
        return self.kinds[name]

    def resolve_kind(self, wanted: str) -> str:
        """Return the name of the kind that runs what asks for `wanted`: that one, or ``cpu``."""
        return wanted if wanted in self.kinds else DEFAULT_KIND

    def uri(self) -> str:
        """Return the URI of the database: a secret.

        Raises
        ------
        ConfigurationError
            If it cannot be had: no variable, no file, or one that others can read.
        """
        from matloop.ledger.secrets import read_uri

        file = self.database.uri_file
        return read_uri(self.database.uri_variable, str(file) if file else "")

    def ledger(self) -> LedgerConfig:
        """Return where the campaigns of this site are; jobs may carry it, it holds no secret."""
        from matloop.ledger.opening import LedgerConfig

        file = self.database.uri_file
        return LedgerConfig(
            directory=str(self.directory),
            kind="mongodb",
            uri_variable=self.database.uri_variable,
            uri_file=str(file) if file else "",
            database=self.database.name,
        )

    def launchpad(self) -> LaunchPad:
        """Return FireWorks' LaunchPad in the site's database.

        Raises
        ------
        ConfigurationError
            If the URI cannot be had: no variable, no file, or one that others can read.
        """
        from fireworks import LaunchPad

        return LaunchPad(**self.launchpad_settings())

    def launchpad_settings(self) -> dict[str, Any]:
        """Return what a ``my_launchpad.yaml`` says; it holds the URI, a secret."""
        return {
            "host": self.uri(),
            "name": self.database.name,
            "uri_mode": True,
            "mongoclient_kwargs": {"serverSelectionTimeoutMS": 30_000},
            "strm_lvl": "WARNING",
        }


MODELS: Models = {
    (): Site,
    ("database",): Database,
    ("kinds", "*"): WorkerKind,
}


def find_site(given: Path | None = None) -> Path:
    """Return the site file: given, named by ``MATLOOP_SITE``, or in the user's configuration.

    Raises
    ------
    ConfigurationError
        If there is none.
    """
    if given is not None:
        return given
    if named := os.environ.get(VARIABLE):
        return Path(named).expanduser()
    path = default_file()
    if not path.exists():
        raise ConfigurationError(
            f"no site file: there is no {path}, {VARIABLE} is not set; write one with "
            "`matloop site init`, or name it with --site"
        )
    return path


def default_file() -> Path:
    """Return where the site file is when nobody says so."""
    home = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    return Path(home) / "matloop" / "site.yaml"


def load_site(given: Path | None = None) -> Site:
    """Find and read the site file; its paths become absolute.

    Parameters
    ----------
    given
        The file; by default it is found by `find_site`.

    Raises
    ------
    ConfigurationError
        If there is none, or with every mistake in it, each with its line.
    """
    path = find_site(given)
    return parse_site(text_of(path, "site file"), path)


def parse_site(text: str, path: Path) -> Site:
    """Return the site that a text declares.

    Parameters
    ----------
    text
        Content of a site file.
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
            found.append(Mistake("", "a site file holds fields, such as `name: my-cluster`", 1))
        raise ConfigurationError(found, path)
    secret = [
        place for place in source.lines if _is_uri(source.get(place)) or _is_uri(_last(place))
    ]
    if secret:  # nothing else is said of the file: the message might quote the secret
        message = "a connection string does not belong here; use database.uri_file"
        raise ConfigurationError([_unquoted(source, place, message) for place in secret], path)
    unread = {mistake.field for mistake in found}
    site: Site | None = None
    try:
        site = Site.model_validate(source.value)
        wrong: list[Mistake] = []
    except ValidationError as error:
        wrong = mistakes(error, source, MODELS)
    wrong += [*truth_values(source, MODELS), *_doubled(source)]
    found += [mistake for mistake in wrong if mistake.field not in unread]
    if found or site is None:
        unique = dict.fromkeys(found)
        raise ConfigurationError(sorted(unique, key=lambda mistake: mistake.line or 0), path)
    return _located(site, path)


def _located(site: Site, path: Path) -> Site:
    base = path.absolute().parent
    file = site.database.uri_file
    database = site.database.model_copy(update={"uri_file": file and base / file})
    located = site.model_copy(update={"directory": base / site.directory, "database": database})
    located._file = path.absolute()
    return located


def _doubled(source: Source) -> Iterator[Mistake]:
    database = source.get(("database",))
    if isinstance(database, dict) and {"uri_file", "uri_variable"} <= database.keys():
        message = "is given beside uri_variable; keep one of them"
        yield source.mistake(("database", "uri_file"), message)


def _written_out(path: Path) -> Path:
    if "$" in str(path):
        raise ValueError(f"{str(path)!r} holds a variable; write the path out")
    return path.expanduser()


def _last(place: FieldPath) -> Any:
    return place[-1] if place else None


def _is_uri(value: Any) -> bool:
    return isinstance(value, str) and bool(_URI.search(value))


def _unquoted(source: Source, place: FieldPath, message: str) -> Mistake:
    """Return a mistake at a place, without the parts of its path that are themselves secret."""
    line = source.line(place)
    while any(_is_uri(part) for part in place):
        place = place[:-1]
    return Mistake(source.mistake(place, "").field, message, line)
