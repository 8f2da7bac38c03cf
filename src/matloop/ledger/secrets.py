"""Where the URI of a server comes from: an environment variable, or a file only its owner reads."""

from __future__ import annotations

import os
import re
import stat

from matloop.errors import ConfigurationError, Mistake

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_SCHEMES = ("mongodb://", "mongodb+srv://")
_LONGEST = 65_536


def check_names(uri_variable: str, uri_file: str) -> None:
    """Refuse a URI where its variable or its file is to be named.

    Raises
    ------
    ConfigurationError
        Without the value, which may hold a password.
    """
    if not _VARIABLE.fullmatch(uri_variable):
        message = "must be the name of an environment variable, not the URI itself"
        raise ConfigurationError([Mistake("uri_variable", message)])
    if "://" in uri_file or "@" in uri_file.partition("/")[0]:
        raise ConfigurationError([Mistake("uri_file", "must be a file's path, not the URI itself")])


def source(uri_variable: str, uri_file: str) -> str:
    """Return what messages call the place of the URI."""
    return uri_file or f"the environment variable {uri_variable}"


def read_uri(uri_variable: str, uri_file: str = "") -> str:
    """Return the URI of a MongoDB server: a secret, to be handed to the driver and to nobody else.

    Parameters
    ----------
    uri_variable
        Environment variable that holds it.
    uri_file
        File that holds it instead, on one line; ``~`` is the home folder. Empty for none.

    Raises
    ------
    ConfigurationError
        If it is not there, is no URI of MongoDB, or lies in a file that is not the user's own or
        that others can read. No message repeats what was found.
    """
    text = _content(uri_file) if uri_file else os.environ.get(uri_variable, "").strip()
    if not text:
        raise ConfigurationError(
            f"{uri_file} is empty; it must hold the URI of the MongoDB server"
            if uri_file
            else f"the environment variable {uri_variable} is not set; it must hold the URI of the "
            "MongoDB server"
        )
    if not text.startswith(_SCHEMES) or len(text.split()) != 1:
        raise ConfigurationError(
            f"{source(uri_variable, uri_file)} does not hold the URI of a MongoDB server, which "
            "begins with mongodb:// or mongodb+srv://"
        )
    return text


def _content(uri_file: str) -> str:
    path = os.path.expanduser(uri_file)
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise ConfigurationError(
            f"cannot read {uri_file} ({error.strerror}); it must hold the URI of the MongoDB server"
        ) from None
    try:
        status = os.fstat(handle)  # of the open file: what is checked is what is read
        if not stat.S_ISREG(status.st_mode):
            raise ConfigurationError(f"{uri_file} is no regular file")
        if status.st_uid != os.geteuid():
            raise ConfigurationError(f"{uri_file} holds a secret, but belongs to another user")
        if status.st_mode & 0o077:
            raise ConfigurationError(
                f"{uri_file} holds a secret, but others may read or change it "
                f"(mode {stat.S_IMODE(status.st_mode):04o}); run `chmod 600 {uri_file}`"
            )
        return os.read(handle, _LONGEST).decode(errors="replace").strip()
    finally:
        os.close(handle)
