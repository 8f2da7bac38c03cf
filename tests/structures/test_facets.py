"""Facet planes: what Qhull says and no phase supports does not count, and no gap is left by it."""

import itertools

import numpy as np
import pytest
from pymatgen.analysis.phase_diagram import PDEntry, PhaseDiagram
from pymatgen.core import Composition, Element

from matloop.structures import facets
from matloop.structures.facets import LowerHull
from matloop.structures.mixtures import least_mixture


def tie_lines(elements, seed):
    """Return compounds of few elements and many phases exactly on the tie lines between them."""
    rng = np.random.default_rng(seed)
    counts = rng.integers(0, 4, size=(12, elements)).astype(float)
    compounds = counts[counts.sum(axis=1) > 0]
    compounds /= compounds.sum(axis=1, keepdims=True)
    energies = -rng.uniform(0.2, 1.0, len(compounds))
    fractions, formation = [np.eye(elements), compounds], [np.zeros(elements), energies]
    for i, j in itertools.combinations(range(len(compounds)), 2):
        for share in (0.25, 1 / 3, 0.5):
            fractions.append((share * compounds[i] + (1 - share) * compounds[j])[None])
            formation.append(np.array([share * energies[i] + (1 - share) * energies[j]]))
    return np.vstack(fractions), np.concatenate(formation)


@pytest.mark.parametrize("options", [("Qt", "QJ"), ("QJ",)], ids="-".join)
@pytest.mark.parametrize("elements", [3, 4, 5, 6])
def test_the_hull_is_that_of_linear_programming(monkeypatch, options, elements):
    """Many phases on tie lines: joggled, Qhull makes slivers, and the hull stays right.

    Without dropping planes that phases lie below, joggled hulls of four and more elements are
    wrong by more than 10 eV/atom.
    """
    monkeypatch.setattr(facets, "QHULL", options)
    fractions, formation = tie_lines(elements, seed=elements)
    hull = LowerHull(fractions, formation)
    questions = np.random.default_rng(1).dirichlet(np.ones(elements), 100)
    expected = [least_mixture(fractions, formation, question)[0] for question in questions]
    np.testing.assert_allclose(hull.energies(questions), expected, atol=1e-9)
    assert (hull.planes @ fractions.T <= formation + 1e-8).all()


def test_a_joggled_hull_of_six_elements_is_that_of_pymatgen(monkeypatch):
    """Within 1e-6 eV/atom, at compounds and at mixtures."""
    monkeypatch.setattr(facets, "QHULL", ("QJ",))
    fractions, formation = tie_lines(6, seed=6)
    elements = [Element.from_Z(z) for z in (3, 8, 9, 12, 13, 26)]
    contents = [Composition(dict(zip(elements, row * 144, strict=True))) for row in fractions]
    diagram = PhaseDiagram(
        [PDEntry(c, e * c.num_atoms) for c, e in zip(contents, formation, strict=True)]
    )
    questions = np.vstack([fractions[6:], np.random.default_rng(2).dirichlet(np.ones(6), 40)])
    expected = [
        diagram.get_hull_energy_per_atom(Composition(dict(zip(elements, row, strict=True))))
        for row in questions
    ]
    found = LowerHull(fractions, formation).energies(questions)
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_phases_above_the_hull_change_no_bit():
    """The same planes with and without them: a campaign that restarts sees the same numbers."""
    fractions, formation = tie_lines(5, seed=3)
    above = np.random.default_rng(3).dirichlet(np.ones(5), 50)
    first = LowerHull(fractions, formation)
    more = LowerHull(
        np.vstack([fractions, above]), np.concatenate([formation, first.energies(above) + 0.01])
    )
    assert np.array_equal(first.planes, more.planes)
    assert np.array_equal(first.stable, more.stable)


def test_many_questions_are_answered_in_bounded_memory():
    """Split into parts, the answers are those of one question at a time."""
    fractions, formation = tie_lines(4, seed=1)
    hull = LowerHull(fractions, formation)
    questions = np.random.default_rng(0).dirichlet(np.ones(4), 300_000)
    found = hull.energies(questions)
    for place in (0, 123_456, 299_999):
        assert found[place] == pytest.approx(hull.energies(questions[place : place + 1])[0])


@pytest.mark.parametrize("elements", [2, 3, 4, 5, 6])
def test_competitors_are_those_of_linear_programming_whatever_is_asked_beside(elements):
    """Simple facets and crowded ones: the same phases, and not a bit of difference alone."""
    chance = np.random.default_rng(elements)
    compounds = chance.integers(0, 5, size=(30, elements)).astype(float)
    compounds = compounds[(compounds > 0).sum(axis=1) > 1]
    compounds /= compounds.sum(axis=1, keepdims=True)
    simple = (
        np.vstack([np.eye(elements), compounds]),
        np.concatenate([np.zeros(elements), -chance.uniform(0.1, 1.0, len(compounds))]),
    )
    for fractions, formation in (simple, tie_lines(elements, seed=elements)):
        hull = LowerHull(fractions, formation)
        amounts = chance.integers(0, 6, size=(80, elements)).astype(float)
        amounts = amounts[amounts.sum(axis=1) > 0]
        questions = np.vstack([amounts / amounts.sum(axis=1, keepdims=True), fractions])
        energies, phases = hull.competitors(questions)
        np.testing.assert_allclose(energies, hull.energies(questions), atol=1e-12)
        for place, question in enumerate(questions):
            assert phases[place] == tuple(phase for phase, _ in hull.mixture(question))
            alone, rivals = hull.competitors(question[None])
            assert (alone[0], rivals[0]) == (energies[place], phases[place])


def test_competitors_beyond_the_facets_are_solved_one_by_one(monkeypatch):
    """Without planes the answers are those of the planes."""
    fractions, formation = tie_lines(4, seed=7)
    questions = np.random.default_rng(4).dirichlet(np.ones(4), 20)
    expected, _ = LowerHull(fractions, formation).competitors(questions)
    monkeypatch.setattr(facets, "MAX_FACET_ELEMENTS", 1)
    hull = LowerHull(fractions, formation)
    energies, phases = hull.competitors(questions)
    np.testing.assert_allclose(energies, expected, atol=1e-9)
    assert phases[3] == tuple(phase for phase, _ in hull.mixture(questions[3]))
