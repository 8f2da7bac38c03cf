"""An autoregressive normalizing flow over the numbers of symmetric crystals."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from matloop.generators.neural.architecture import Statistics
from matloop.generators.neural.architectures.number_heads import SplineHeads
from matloop.generators.neural.architectures.wyckoff_network import WyckoffNetwork
from matloop.generators.neural.architectures.wyckoff_transformer import WyckoffTransformer


@dataclass(frozen=True)
class WyckoffFlow(WyckoffTransformer):
    """Write sites as `WyckoffTransformer` does, and numbers by a normalizing flow.

    Cell numbers and coordinates are the image of uniform noise under monotonic rational-quadratic
    splines, those of coordinates on the circle. Knots follow from everything written before, so
    that the likelihood of a whole crystal, sites and numbers, is exact. `components` is the number
    of pieces of each spline.

    References
    ----------
    Autoregressive flows: Papamakarios et al., NeurIPS 2017; splines: Durkan et al., NeurIPS 2019;
    on circles: Rezende et al., ICML 2020.
    """

    components: int = 16

    def build(self, statistics: Statistics) -> nn.Module:
        """Return the network with random weights."""
        numbers = SplineHeads(self.width, self.components)
        return WyckoffNetwork(self.width, self.depth, self.heads, self.dropout, numbers, statistics)
