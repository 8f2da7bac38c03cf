"""Shared foundation of all documents: frozen pydantic models, and crystals inside them."""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Any

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    PlainSerializer,
    SerializationInfo,
    ValidationInfo,
    WithJsonSchema,
)
from pymatgen.core import Lattice, Structure


class Document(BaseModel):
    """A frozen document without unknown fields."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        arbitrary_types_allowed=True,
        ser_json_inf_nan="constants",  # what is not finite comes back, and is no ``null``
    )


class Rows:
    """Where crystals are that a document only names: the context in which it is validated."""

    def crystal(self, held: dict[str, Any]) -> Structure | None:
        """Return the crystal that is named; None if this names none."""
        raise NotImplementedError


def _read_structure(value: Any, info: ValidationInfo) -> Any:
    if not isinstance(value, dict):
        return value
    if isinstance(info.context, Rows) and (named := info.context.crystal(value)) is not None:
        return named
    if value.get("sites") == [] and "lattice" in value:  # `from_dict` reads none without sites
        return Structure(Lattice.from_dict(value["lattice"]), [], [])
    return Structure.from_dict(value)


class Collector:
    """Who takes crystals in while documents are written: the context of their serialisation."""

    def held(self, structure: Structure) -> dict[str, Any]:
        """Return what the document holds instead."""
        raise NotImplementedError


def _write_structure(structure: Structure, info: SerializationInfo) -> dict[str, Any]:
    if isinstance(info.context, Collector):
        return info.context.held(structure)
    return dict(structure.as_dict(verbosity=0))


Crystal = Annotated[
    Structure,
    BeforeValidator(_read_structure),
    PlainSerializer(_write_structure, return_type=dict),
    WithJsonSchema({"type": "object", "description": "pymatgen Structure dictionary"}),
]
"""A pymatgen `Structure` that travels as its own dictionary, for any MSON reader to load."""

Scalar = bool | int | float | str | None
"""A JSON scalar, as plugin parameters are recorded."""


def digest(value: object) -> str:
    """Return the sha256 of a JSON-serialisable value, independent of dictionary order."""
    return hashlib.sha256(text_of(value).encode()).hexdigest()


def text_of(value: object) -> str:
    """Return the JSON text that `digest` hashes: sorted names, no spaces."""
    return _ENCODER.encode(value)


_ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":"), default=str)
