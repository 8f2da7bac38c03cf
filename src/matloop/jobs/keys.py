"""The key under which a result is stored: same structure, method and inputs, same key."""

from __future__ import annotations

from collections.abc import Sequence

from matloop.documents.base import digest
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


def evaluation_keys(
    evaluator: Evaluator, candidates: Sequence[Candidate], resources: Resources
) -> list[str]:
    """Return the key of each candidate's evaluation by one evaluator.

    A verdict that depends on the whole batch has the whole batch in its key.
    """
    structures = [structure_digest(candidate.structure) for candidate in candidates]
    shared = {
        "method": method_digest(evaluator),
        "resources": {name: resources.digests.get(name, "") for name in evaluator.resources},
    }
    if evaluator.scope == "batch":
        names = [candidate.candidate_id for candidate in candidates]
        shared["batch"] = digest([names, structures])
    reads: tuple[str, ...] = getattr(evaluator, "reads", tuple)()
    keys = []
    for candidate, structure in zip(candidates, structures, strict=True):
        inputs = {
            name: candidate.quantities[name].model_dump(mode="json")
            for name in (*evaluator.requires, *reads)
            if name in candidate.quantities
        }
        own = {"id": candidate.candidate_id} if evaluator.scope == "batch" else {}
        keys.append(digest({**shared, **own, "structure": structure, "inputs": inputs}))
    return keys
