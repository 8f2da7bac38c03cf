"""Densities of cell numbers and coordinates, given a state: mixtures, and monotonic splines."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

NARROWEST, WIDEST = 0.004, 0.3
"""Standard deviations that a component of a mixture may have: of a cell number, and of a coordinate
in periods."""

CELL_RANGE = 3.0
"""Cell numbers lie within this distance from zero: lengths are logarithms of ratios, angles are in
units of 30°."""

_LEAST_WIDTH, _LEAST_HEIGHT, _LEAST_SLOPE = 1e-4, 1e-4, 1e-3


class MixtureHeads(nn.Module):
    """Mixtures of normal distributions for cell numbers, of von Mises ones for coordinates.

    Parameters
    ----------
    width
        Length of a state.
    components
        Of each mixture.
    """

    def __init__(self, width: int, components: int) -> None:
        super().__init__()
        self.to_cell = nn.Linear(width, 3 * components)
        self.to_coordinate = nn.Linear(width, 4 * components)

    def log_density(self, state: Tensor, value: Tensor, *, periodic: bool) -> Tensor:
        """Return the log density of values of shape (n,), given states of shape (n, width)."""
        if periodic:
            return von_mises_log_density(value, *self._coordinate(state))
        return normal_log_density(value, *self._cell(state))

    def draw(
        self, state: Tensor, *, periodic: bool, temperature: float, generator: torch.Generator
    ) -> Tensor:
        """Return one value per state, shape (n,)."""
        weights, means, widths = self._coordinate(state) if periodic else self._cell(state)
        chances = torch.softmax(weights / temperature, -1)
        which = torch.multinomial(chances, 1, generator=generator)
        mean, width = means.gather(1, which)[:, 0], widths.gather(1, which)[:, 0]
        # A narrow von Mises distribution is a normal one wrapped around.
        spread = torch.exp(-0.5 * width) / (2 * math.pi) if periodic else torch.exp(width)
        value = mean + temperature * spread * torch.randn(len(mean), generator=generator)
        return value % 1.0 if periodic else value.clamp(-CELL_RANGE, CELL_RANGE)

    def _cell(self, state: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return log weights, means and log standard deviations, each of shape (n, k)."""
        weights, means, widths = self.to_cell(state).chunk(3, dim=-1)
        low, high = math.log(NARROWEST), math.log(WIDEST)
        return (
            functional.log_softmax(weights, -1),
            means,
            low + (high - low) * torch.sigmoid(widths),
        )

    def _coordinate(self, state: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return log weights, means in periods, and log concentrations, each of shape (n, k)."""
        weights, x, y, widths = self.to_coordinate(state).chunk(4, dim=-1)
        means = torch.atan2(y, x) / (2 * math.pi)
        low, high = math.log(NARROWEST), math.log(WIDEST)
        spread = low + (high - low) * torch.sigmoid(widths)
        return functional.log_softmax(weights, -1), means, -2 * (spread + math.log(2 * math.pi))


class SplineHeads(nn.Module):
    """Monotonic rational-quadratic splines from a uniform base: a normalizing flow.

    The spline's knots follow from the state, that is, from all numbers before this one, so that the
    numbers of a crystal together are an autoregressive flow with an exact likelihood. Splines of
    coordinates close on themselves and are shifted, so that no place on the circle is special.

    Parameters
    ----------
    width
        Length of a state.
    bins
        Pieces of each spline.

    References
    ----------
    Durkan et al., Neural spline flows, NeurIPS 2019; on circles: Rezende et al., ICML 2020.
    """

    def __init__(self, width: int, bins: int) -> None:
        super().__init__()
        self.bins = bins
        self.to_cell = nn.Linear(width, 3 * bins + 1)
        self.to_coordinate = nn.Linear(width, 3 * bins + 2)

    def log_density(self, state: Tensor, value: Tensor, *, periodic: bool) -> Tensor:
        """Return the log density of values of shape (n,), given states of shape (n, width)."""
        knots, shift, scale = self._knots(state, periodic=periodic)
        inside = self._inside(value, shift, periodic=periodic)
        return torch.log(_spline_slope(inside, *knots)) - math.log(scale)

    def draw(
        self, state: Tensor, *, periodic: bool, temperature: float, generator: torch.Generator
    ) -> Tensor:
        """Return one value per state, shape (n,): the likeliest of 1 / temperature draws."""
        knots, shift, _ = self._knots(state, periodic=periodic)
        tries = max(1, round(1 / temperature))
        best = torch.zeros(len(state))
        highest = torch.full((len(state),), -torch.inf)
        for _ in range(tries):
            inside = _spline_inverse(torch.rand(len(state), generator=generator), *knots)
            density = _spline_slope(inside, *knots)
            better = density > highest
            best[better], highest[better] = inside[better], density[better]
        if periodic:
            return (best + shift) % 1.0
        return (2 * best - 1) * CELL_RANGE

    def _knots(
        self, state: Tensor, *, periodic: bool
    ) -> tuple[tuple[Tensor, Tensor, Tensor], Tensor, float]:
        raw = (self.to_coordinate if periodic else self.to_cell)(state)
        widths, heights, slopes = raw[:, : 3 * self.bins + 1].split(
            [self.bins, self.bins, self.bins + 1], dim=-1
        )
        if periodic:
            slopes = torch.cat([slopes[:, :-1], slopes[:, :1]], dim=-1)
        least = 1 - _LEAST_WIDTH * self.bins, 1 - _LEAST_HEIGHT * self.bins
        return (
            (
                _LEAST_WIDTH + least[0] * torch.softmax(widths, -1),
                _LEAST_HEIGHT + least[1] * torch.softmax(heights, -1),
                _LEAST_SLOPE + functional.softplus(slopes + math.log(math.e - 1)),
            ),
            raw[:, -1] if periodic else raw.new_zeros(len(raw)),
            1.0 if periodic else 2 * CELL_RANGE,
        )

    def _inside(self, value: Tensor, shift: Tensor, *, periodic: bool) -> Tensor:
        if periodic:
            return (value - shift) % 1.0
        return ((value / CELL_RANGE + 1) / 2).clamp(1e-6, 1 - 1e-6)


def normal_log_density(value: Tensor, weights: Tensor, means: Tensor, widths: Tensor) -> Tensor:
    """Return the log density of a mixture of normal distributions at values of shape (...).

    Parameters
    ----------
    value
        Shape (...).
    weights, means, widths
        Log weights, means and log standard deviations, shape (..., k).
    """
    apart = (value.unsqueeze(-1) - means) * torch.exp(-widths)
    each = -0.5 * apart**2 - widths - 0.5 * math.log(2 * math.pi)
    return torch.logsumexp(weights + each, dim=-1)


def von_mises_log_density(
    value: Tensor, weights: Tensor, means: Tensor, concentrations: Tensor
) -> Tensor:
    """Return the log density, per period, of a mixture of von Mises distributions.

    Parameters
    ----------
    value
        Coordinates in periods, shape (...).
    weights, means, concentrations
        Of the components, the last as logarithms; shape (..., k).
    """
    kappa = torch.exp(concentrations)
    turn = torch.cos(2 * math.pi * (value.unsqueeze(-1) - means))
    each = kappa * (turn - 1.0) - torch.log(torch.special.i0e(kappa))
    return torch.logsumexp(weights + each, dim=-1)


def _spline_slope(x: Tensor, widths: Tensor, heights: Tensor, slopes: Tensor) -> Tensor:
    """Return dy/dx of the spline on [0, 1] at x, shape (n,)."""
    place = _bin(x, widths)
    width, height, left, low, high = _piece(place, widths, heights, slopes)
    steep = height / width
    t = ((x - left) / width).clamp(0, 1)
    below = steep + (low + high - 2 * steep) * t * (1 - t)
    above = steep**2 * (high * t**2 + 2 * steep * t * (1 - t) + low * (1 - t) ** 2)
    return above / below**2


def _spline_inverse(y: Tensor, widths: Tensor, heights: Tensor, slopes: Tensor) -> Tensor:
    """Return x with spline(x) = y, shape (n,)."""
    place = _bin(y, heights)
    width, height, left, low, high = _piece(place, widths, heights, slopes)
    bottom = (torch.cumsum(heights, -1) - heights).gather(1, place)[:, 0]
    steep, up = height / width, y - bottom
    bend = up * (low + high - 2 * steep)
    a = height * (steep - low) + bend
    b = height * low - bend
    c = -steep * up
    root = torch.sqrt((b**2 - 4 * a * c).clamp(min=0))
    t = 2 * c / (-b - root)
    return (left + t.clamp(0, 1) * width).clamp(0, 1)


def _bin(x: Tensor, sizes: Tensor) -> Tensor:
    edges = torch.cumsum(sizes, -1)[:, :-1].contiguous()
    return torch.searchsorted(edges, x[:, None].contiguous())


def _piece(
    place: Tensor, widths: Tensor, heights: Tensor, slopes: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return width, height, left edge, and the slopes at both ends of the bins."""
    lefts = torch.cumsum(widths, -1) - widths
    return (
        widths.gather(1, place)[:, 0],
        heights.gather(1, place)[:, 0],
        lefts.gather(1, place)[:, 0],
        slopes.gather(1, place)[:, 0],
        slopes.gather(1, place + 1)[:, 0],
    )
