"""A MACE of a few thousand weights, trained in seconds on effective medium theory."""

from __future__ import annotations

from pathlib import Path

import ase
import numpy as np
import torch
from ase.build import bulk
from ase.calculators.emt import EMT

from matloop.evaluators.mlip.mace_file import import_mace

ELEMENTS = (13, 29, 79)
R_MAX = 4.5


def network(*, heads: tuple[str, ...] = ("Default",), seed: int = 0) -> torch.nn.Module:
    """Return an untrained network in double precision, with repulsion at short distances."""
    import_mace()
    from e3nn import o3
    from mace import modules

    blocks = modules.interaction_classes
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(seed)
    try:
        return modules.ScaleShiftMACE(
            r_max=R_MAX,
            num_bessel=6,
            num_polynomial_cutoff=6,
            max_ell=1,
            interaction_cls=blocks["RealAgnosticResidualInteractionBlock"],
            interaction_cls_first=blocks["RealAgnosticInteractionBlock"],
            num_interactions=2,
            num_elements=len(ELEMENTS),
            hidden_irreps=o3.Irreps("8x0e"),
            MLP_irreps=o3.Irreps("8x0e"),
            atomic_energies=np.zeros((len(heads), len(ELEMENTS))),
            avg_num_neighbors=20.0,
            atomic_numbers=list(ELEMENTS),
            correlation=2,
            gate=torch.nn.functional.silu,
            pair_repulsion=True,
            radial_MLP=[16],
            heads=list(heads),
            atomic_inter_scale=[1.0] * len(heads) if len(heads) > 1 else 1.0,
            atomic_inter_shift=[0.0] * len(heads) if len(heads) > 1 else 0.0,
        )
    finally:
        torch.set_default_dtype(before)


def train(path: Path, *, steps: int = 40, seed: int = 0) -> None:
    """Fit a network to energies and forces of strained metals with mace's own loss; save it."""
    model = network(seed=seed)
    from mace import data, modules
    from mace.tools import AtomicNumberTable
    from mace.tools.torch_geometric import dataloader

    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        table = AtomicNumberTable(list(ELEMENTS))
        keys = data.KeySpecification.from_defaults()
        graphs = [
            data.AtomicData.from_config(
                data.config_from_atoms(atoms, key_specification=keys),
                z_table=table,
                cutoff=R_MAX,
                heads=["Default"],
            )
            for atoms in _examples(np.random.default_rng(seed))
        ]
        loss = modules.WeightedEnergyForcesLoss(energy_weight=1.0, forces_weight=10.0)
        optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
        batch = next(iter(dataloader.DataLoader(graphs, batch_size=len(graphs), shuffle=False)))
        for _ in range(steps):
            optimizer.zero_grad()
            found = model(batch.to_dict(), training=True, compute_force=True)
            loss(pred=found, ref=batch).backward()
            optimizer.step()
    finally:
        torch.set_default_dtype(before)
    torch.save(model, path)


def _examples(rng: np.random.Generator) -> list[ase.Atoms]:
    examples = []
    for symbol, a in (("Al", 4.0), ("Cu", 3.6), ("Au", 4.07)):
        for scale in (0.94, 0.98, 1.0, 1.02, 1.06):
            atoms = bulk(symbol, "fcc", a=a * scale, cubic=True)
            strain = np.eye(3) + rng.normal(0.0, 0.02, (3, 3))
            atoms.set_cell(atoms.cell.array @ strain, scale_atoms=True)
            atoms.positions += rng.normal(0.0, 0.08, atoms.positions.shape)
            atoms.calc = EMT(asap_cutoff=True)
            atoms.info["REF_energy"] = atoms.get_potential_energy()
            atoms.arrays["REF_forces"] = atoms.get_forces()
            atoms.calc = None
            examples.append(atoms)
    return examples
