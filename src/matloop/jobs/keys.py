"""The key under which a result is stored: same structure, method and inputs, same key."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

from pymatgen.core import Structure

from matloop.documents.base import digest, text_of
from matloop.documents.candidate import Candidate, structure_digest
from matloop.protocols import Engine, Evaluator, Resources


def method_digest(evaluator: Evaluator | Engine) -> str:
    """Return the hash of a method: its class, parameters, and what they do not show.

    An evaluator whose results depend on more than its parameters, such as the weights of a model,
    has a method ``identity() -> str`` that names it.
    """
    described = evaluator.as_dict() if hasattr(evaluator, "as_dict") else {}
    identity = evaluator.identity() if hasattr(evaluator, "identity") else ""
    return digest(
        {
            "class": f"{type(evaluator).__module__}.{type(evaluator).__qualname__}",
            "parameters": {k: v for k, v in described.items() if not k.startswith("@")},
            "identity": identity,
        }
    )


class Digests:
    """Digests of the crystals in hand, each computed once while nobody changes them."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[Structure, str]] = {}  # the structure keeps its id in use

    def __call__(self, structure: Structure) -> str:
        """Return the digest of a crystal."""
        known = self._known.get(id(structure))
        if known is None:
            known = self._known[id(structure)] = structure, structure_digest(structure)
        return known[1]


def evaluation_keys(
    evaluator: Evaluator,
    candidates: Sequence[Candidate],
    resources: Resources,
    name: Callable[[Structure], str] = structure_digest,
) -> list[str]:
    """Return the key of each candidate's evaluation by one evaluator.

    A verdict that depends on the whole batch has the whole batch in its key.

    Parameters
    ----------
    evaluator, candidates, resources
        Who judges whom, reading what.
    name
        Returns the digest of a crystal.
    """
    structures = [name(candidate.structure) for candidate in candidates]
    shared = {
        "method": method_digest(evaluator),
        "resources": {name: resources.digests.get(name, "") for name in evaluator.resources},
    }
    if evaluator.scope == "batch":
        names = [candidate.candidate_id for candidate in candidates]
        shared["batch"] = digest([names, structures])
    reads: tuple[str, ...] = getattr(evaluator, "reads", tuple)()
    common = text_of(shared)[1:-1]  # the names in it lie between "inputs" and "structure"
    keys = []
    for candidate, structure in zip(candidates, structures, strict=True):
        inputs = {
            name: candidate.quantities[name].model_dump(mode="json")
            for name in (*evaluator.requires, *reads)
            if name in candidate.quantities
        }
        if evaluator.scope == "batch":
            own = {"id": candidate.candidate_id, "structure": structure, "inputs": inputs}
            keys.append(digest({**shared, **own}))
            continue
        stated = text_of(inputs) if inputs else "{}"
        text = f'{{"inputs":{stated},{common},"structure":"{structure}"}}'
        keys.append(hashlib.sha256(text.encode()).hexdigest())
    return keys
