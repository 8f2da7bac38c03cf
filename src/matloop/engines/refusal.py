"""A job for crystals that an engine does not take: it says why, so that a verdict can."""

from __future__ import annotations

from jobflow import Job


def refuse(reason: str, name: str) -> Job:
    """Return a job whose document is ``{"refused": reason}``.

    Parameters
    ----------
    reason
        Why the crystal is not calculated.
    name
        Name of the job.
    """
    return Job(function=refusal, function_args=(reason,), name=name)


def refusal(reason: str) -> dict[str, str]:
    """Return the document of a crystal that was not calculated."""
    return {"refused": reason}
