"""Files named by what is in them."""

from __future__ import annotations

from matloop.documents.base import Document


class Artifact(Document):
    """A file in the artifact store.

    Attributes
    ----------
    sha256
        Hash of its bytes, and its name.
    kind
        What it is: ``crystals``, ``phases``, ``surrogate``, ``archive``.
    media_type
        How to read it.
    size
        Bytes.
    """

    sha256: str
    kind: str
    media_type: str
    size: int
    schema_version: int = 1
