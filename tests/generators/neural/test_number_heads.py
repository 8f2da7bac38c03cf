"""Densities of numbers integrate to one, and draws follow them."""

from __future__ import annotations

import math

import pytest
import torch

from matloop.generators.neural.architectures.number_heads import (
    CELL_RANGE,
    MixtureHeads,
    SplineHeads,
    normal_log_density,
    von_mises_log_density,
)


def test_mixtures_are_densities() -> None:
    """Mixtures integrate to one: over a period, and over the line."""
    rng = torch.Generator().manual_seed(0)
    weights = torch.log_softmax(torch.randn(4, generator=rng), 0)
    means, widths = torch.rand(4, generator=rng), torch.randn(4, generator=rng) - 1
    line = torch.linspace(-30, 30, 120_001)
    over_line = torch.trapezoid(normal_log_density(line, weights, means, widths).exp(), line)
    assert float(over_line) == pytest.approx(1, abs=1e-4)
    period = torch.linspace(0, 1, 20_001)
    density = von_mises_log_density(period, weights, means, -2 * widths).exp()
    assert float(torch.trapezoid(density, period)) == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("periodic", [True, False])
def test_splines_are_densities_that_draws_follow(*, periodic: bool) -> None:
    """A spline integrates to one, and the histogram of its draws is its density."""
    torch.manual_seed(1)
    heads = SplineHeads(6, 8)
    state = 3 * torch.randn(1, 6)
    low, high = (0.0, 1.0) if periodic else (-CELL_RANGE, CELL_RANGE)
    line = torch.linspace(low, high, 40_001)[1:-1]
    spread = state.expand(len(line), -1)
    density = heads.log_density(spread, line, periodic=periodic).exp().detach()
    assert float(torch.trapezoid(density, line)) == pytest.approx(1, abs=2e-3)
    generator = torch.Generator().manual_seed(2)
    drawn = heads.draw(
        state.expand(40_000, -1), periodic=periodic, temperature=1.0, generator=generator
    )
    edges = torch.linspace(low, high, 21)
    counts = torch.histogram(drawn.detach(), edges).hist / len(drawn)
    for number, count in enumerate(counts.tolist()):
        inside = (line >= edges[number]) & (line < edges[number + 1])
        expected = float(density[inside].mean()) * (high - low) / 20
        assert count == pytest.approx(expected, abs=5 * math.sqrt(0.05 / 40_000) + 5e-3)


def test_cold_draws_keep_to_what_is_likely() -> None:
    """At a low temperature draws are likelier than at a high one."""
    torch.manual_seed(0)
    state = torch.randn(1, 6).expand(2000, -1)
    for heads in (MixtureHeads(6, 4), SplineHeads(6, 8)):
        for periodic in (True, False):
            found = []
            for temperature in (0.1, 1.0):
                generator = torch.Generator().manual_seed(0)
                drawn = heads.draw(
                    state, periodic=periodic, temperature=temperature, generator=generator
                )
                found.append(heads.log_density(state, drawn, periodic=periodic).mean())
            assert found[0] > found[1]
