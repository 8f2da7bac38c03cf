"""CHGNet as it is trained: chgnet's own network, which can be differentiated by its weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import redirect_stdout
from io import StringIO
from typing import Any

import numpy as np
import torch
from chgnet.graph import CrystalGraph
from chgnet.model.model import CHGNet
from numpy.typing import NDArray

from matloop.documents.labelled import Frame
from matloop.evaluators.mlip.tuning import Output, Weights, restored

_GPA = 160.21766208
"""GPa per eV/Å^3, as chgnet has it."""

REFERENCES = "composition_model.fc.weight"
"""Name of the element energies among the weights, shape (1, 94)."""


class ChgnetTrainee:
    """chgnet's network, for the training loop.

    Parameters
    ----------
    version
        Which of its models.
    weights
        Other weights to begin with.
    """

    network: Any

    def __init__(self, version: str, weights: Mapping[str, NDArray[Any]] | None = None) -> None:
        with redirect_stdout(StringIO()):
            self.network = CHGNet.load(model_name=version, use_device="cpu", verbose=False)
        restored(self.network, weights)

    def prepare(self, frame: Frame) -> CrystalGraph:
        """Return the crystal's graph."""
        return self.network.graph_converter(frame.structure)

    def output(self, inputs: Sequence[CrystalGraph]) -> Output:
        """Return energies, forces and stresses."""
        device = next(self.network.parameters()).device
        found = self.network([graph.to(device) for graph in inputs], task="efs")
        stresses = torch.stack(list(found["s"])) / _GPA
        return Output(
            found["e"], torch.cat(list(found["f"])), 0.5 * (stresses + stresses.transpose(1, 2))
        )

    def readout(self) -> Iterator[torch.nn.Parameter]:
        """Return the parameters of the last layers."""
        yield from self.network.mlp.parameters()


def shift(weights: Weights, energies: Mapping[int, float]) -> Weights:
    """Return weights with an energy (eV) added per atom of each atomic number."""
    references = np.array(weights[REFERENCES])
    for number, energy in energies.items():
        references[0, number - 1] += energy
    return {**weights, REFERENCES: references}
