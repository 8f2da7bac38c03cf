"""Whether generators still offer something new: what is watched, the limits, and the alarms."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from matloop.documents.base import Document

Measure = Literal["uniqueness", "novelty", "divergence", "top_formula", "top_prototype", "replayed"]


class Watch(Document):
    """Limits beyond which a generator is taken to have collapsed, in one iteration.

    Attributes
    ----------
    min_proposals
        Proposals of a generator in an iteration below which no alarm begins.
    uniqueness
        Least share of distinct crystals among its proposals.
    novelty
        Least share of its proposals that repeat no reference phase and none of its own earlier
        proposals.
    divergence
        Largest Jensen-Shannon divergence (bits, between 0 and 1) of its element histogram from the
        one of its first iteration. Half of the atoms replaced by an absent element is 0.31.
    top_formula, top_prototype
        Largest share of one reduced formula, and of one prototype (anonymous formula and space
        group), among its proposals.
    replayed
        Largest share of proposals that repeat the training data of a generator that learns, where
        it says so.
    """

    min_proposals: int = Field(12, ge=2)
    uniqueness: float = Field(0.4, ge=0, le=1)
    novelty: float = Field(0.1, ge=0, le=1)
    divergence: float = Field(0.35, ge=0, le=1)
    top_formula: float = Field(0.6, ge=0, le=1)
    top_prototype: float = Field(0.7, ge=0, le=1)
    replayed: float = Field(0.5, ge=0, le=1)


class Diversity(Document):
    """What one generator offered in one iteration.

    Attributes
    ----------
    iteration, generator
        Which.
    proposed, compared
        Proposals, and how many of them were compared as crystals: all, or an even sample of a
        large batch. Shares are of the compared.
    uniqueness
        Share of distinct crystals.
    novelty
        Share that repeats neither a reference phase nor an earlier proposal of the generator.
    divergence
        Jensen-Shannon divergence (bits) of the element histogram, by atoms, from the first
        iteration's.
    top_formula, formula
        Share of the most frequent reduced formula, and which.
    top_prototype, prototype
        Share of the most frequent prototype, and which.
    replayed
        Share that repeats training data; None where the generator does not say.
    """

    iteration: int
    generator: str
    proposed: int
    compared: int
    uniqueness: float
    novelty: float
    divergence: float
    top_formula: float
    formula: str
    top_prototype: float
    prototype: str
    replayed: float | None = None


class Alarm(Document):
    """A limit that a generator has passed, and what follows.

    Attributes
    ----------
    iteration, generator
        Whose proposals.
    measure
        What is beyond its limit.
    value, limit
        What was found, and what is allowed.
    reason
        Both in one clause.
    reaction
        What the campaign did about it for the next iteration; empty if nothing.
    """

    iteration: int
    generator: str
    measure: Measure
    value: float
    limit: float
    reason: str = Field(min_length=1)
    reaction: str = ""
