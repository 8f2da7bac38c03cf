"""Errors as the MongoDB protocol reports them."""

from __future__ import annotations

from typing import Any

import mongomock_ng
from pymongo.errors import OperationFailure, PyMongoError

_NAMES = {
    2: "BadValue",
    9: "FailedToParse",
    20: "IllegalOperation",
    26: "NamespaceNotFound",
    27: "IndexNotFound",
    43: "CursorNotFound",
    48: "NamespaceExists",
    59: "CommandNotFound",
    66: "ImmutableField",
    72: "InvalidOptions",
    73: "InvalidNamespace",
    85: "IndexOptionsConflict",
    86: "IndexKeySpecsConflict",
    238: "NotImplemented",
    10334: "BSONObjectTooLarge",
    11000: "DuplicateKey",
}


class CommandError(Exception):
    """A command, or one write of a command, is refused.

    Parameters
    ----------
    code
        MongoDB's number of the error.
    message
        What the client reads.
    details
        Further fields of the reply.
    """

    def __init__(self, code: int, message: str, details: dict[str, Any] | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.details = details or {}

    def reply(self) -> dict[str, Any]:
        """Return the reply to a command that failed."""
        name = _NAMES.get(self.code, f"Location{self.code}")
        return {
            "ok": 0.0,
            "errmsg": self.message,
            "code": self.code,
            "codeName": name,
            **self.details,
        }

    def write_error(self, index: int) -> dict[str, Any]:
        """Return the entry of ``writeErrors`` for one write of a batch."""
        return {"index": index, "code": self.code, "errmsg": self.message, **self.details}


def refusal(error: Exception) -> CommandError:
    """Return any error as the protocol reports it."""
    match error:
        case CommandError():
            return error
        case OperationFailure():
            return CommandError(error.code or 2, str(error))
        case NotImplementedError():
            return CommandError(238, f"the test server cannot do this: {error}")
        case KeyError():
            return CommandError(9, f"BSON field {error} is missing")
        case ValueError() | TypeError() | PyMongoError() | mongomock_ng.OperationFailure():
            return CommandError(2, str(error))
    return CommandError(8, f"{type(error).__name__}: {error}")
