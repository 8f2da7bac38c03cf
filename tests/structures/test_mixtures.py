"""The least mixture: what a general solver finds, and what conservation demands."""

import numpy as np
import pytest
from scipy.optimize import linprog

from matloop.structures.mixtures import least_mixture


def system(elements, phases, seed):
    """Return fractions and energies: pure elements at zero first, then compounds."""
    rng = np.random.default_rng(seed)
    # Small integers make many compositions lie on one line: degenerate on purpose.
    amounts = rng.integers(0, 4, size=(phases, elements))
    amounts = amounts[amounts.sum(axis=1) > 0]
    fractions = np.vstack([np.eye(elements), amounts / amounts.sum(axis=1, keepdims=True)])
    energies = np.concatenate([np.zeros(elements), rng.uniform(-1.5, 0.3, len(amounts))])
    return fractions, energies


@pytest.mark.parametrize("elements", [2, 3, 5, 8])
def test_the_energy_is_that_of_a_general_solver(elements):
    """Up to eight elements, degenerate compositions included: equal to HiGHS within 1e-9."""
    rng = np.random.default_rng(elements)
    fractions, energies = system(elements, 30 * elements, seed=elements)
    targets = [*fractions[:40], *rng.dirichlet(np.ones(elements), 40)]
    for target in targets:
        energy, shares = least_mixture(fractions, energies, target)
        solved = linprog(energies, A_eq=fractions.T, b_eq=target, bounds=(0, None))
        assert energy == pytest.approx(solved.fun, abs=1e-9)
        np.testing.assert_allclose(shares @ fractions, target, atol=1e-9)
        assert shares.sum() == pytest.approx(1)
        assert (shares >= 0).all()
        assert energy == pytest.approx(shares @ energies, abs=1e-12)


def test_an_excluded_phase_takes_no_part():
    """Infinite energy takes a phase out, even the one of the composition asked for."""
    fractions = np.array([[1, 0], [0, 1], [0.5, 0.5], [0.25, 0.75]])
    energies = np.array([0, 0, -1.0, -0.6])
    assert least_mixture(fractions, energies, fractions[2])[0] == -1.0
    energies[2] = np.inf
    energy, shares = least_mixture(fractions, energies, fractions[2])
    assert energy == pytest.approx(-0.4)
    np.testing.assert_allclose(shares, [1 / 3, 0, 0, 2 / 3])


def test_equal_phases_are_chosen_by_their_order():
    """Of two phases alike the first is taken, so that results do not depend on chance."""
    fractions = np.array([[1, 0], [0, 1], [0.5, 0.5], [0.5, 0.5]])
    shares = least_mixture(fractions, np.array([0, 0, -1.0, -1.0]), np.array([0.5, 0.5]))[1]
    np.testing.assert_allclose(shares, [0, 0, 1, 0])
