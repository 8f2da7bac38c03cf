"""Harmonic phonons of one crystal from forces in displaced supercells, with phonopy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from pymatgen.core import Element

from matloop.errors import MissingDependencyError
from matloop.evaluators.mlip.model import Floats, Integers, Member

try:
    from phonopy import Phonopy
    from phonopy.harmonic.dynmat_to_fc import get_commensurate_points
    from phonopy.structure.atoms import PhonopyAtoms
except ImportError as error:
    raise MissingDependencyError(
        "phonons need the package phonopy: pip install 'matloop[phonons]'"
    ) from error

PLANCK = 4.135667696e-3
"""Energy of a phonon of 1 THz (eV); CODATA 2018."""

BOLTZMANN = 8.617333262e-5
"""Boltzmann's constant (eV/K); CODATA 2018."""


@dataclass(frozen=True)
class Spectrum:
    """Phonon frequencies of a crystal; imaginary ones are negative.

    Attributes
    ----------
    frequencies
        Frequencies (THz) at the irreducible wave vectors of a mesh, acoustic modes at Gamma left
        out, flattened.
    weights
        Share of each in the Brillouin zone; they add up to 3 times the number of atoms in the
        primitive cell, less what was left out.
    lowest
        Lowest frequency on the mesh and at the supercell's own wave vectors (THz).
    wave_vector
        Where it lies, in terms of the reciprocal vectors of the primitive cell.
    fits
        Whether that wave vector fits into the supercell. If it does the frequency is that of the
        potential; if not it is interpolated, and a larger supercell may move it.
    atoms
        Atoms in the primitive cell.
    """

    frequencies: Floats
    weights: Floats
    lowest: float
    wave_vector: tuple[float, float, float]
    fits: bool
    atoms: int

    @property
    def highest(self) -> float:
        """Highest frequency on the mesh (THz)."""
        return float(self.frequencies.max())

    def zero_point_energy(self) -> float:
        """Return the energy of the real modes at 0 K (eV/atom)."""
        real = self.frequencies > 0
        return float(
            (0.5 * PLANCK * self.weights[real] * self.frequencies[real]).sum() / self.atoms
        )

    def free_energy(self, temperature: float) -> float:
        """Return the Helmholtz energy of the real modes at a temperature in K (eV/atom)."""
        real = self.frequencies > 0
        quanta = PLANCK * self.frequencies[real]
        thermal = BOLTZMANN * temperature
        modes = 0.5 * quanta + thermal * np.log1p(-np.exp(-quanta / thermal))
        return float((self.weights[real] * modes).sum() / self.atoms)


class Displacements:
    """The displaced supercells of one crystal, as few as its symmetry allows.

    Parameters
    ----------
    primitive
        Primitive cell, of exact symmetry.
    matrix
        Vectors of the supercell as rows, in terms of those of the primitive cell.
    distance
        How far one atom is moved in each supercell (Å).
    """

    def __init__(self, primitive: Member, matrix: Integers, distance: float) -> None:
        symbols = [Element.from_Z(number).symbol for number in primitive.numbers.tolist()]
        cell = PhonopyAtoms(symbols=symbols, positions=primitive.positions, cell=primitive.cell)
        # Phonopy writes the vectors of a supercell as columns. Its C part keeps to OMP_NUM_THREADS;
        # the Rust part, its default, starts a thread per core in every worker.
        self._phonopy: Any = Phonopy(
            cell, supercell_matrix=matrix.T, primitive_matrix="P", lang="C"
        )
        self._phonopy.generate_displacements(distance=distance)
        supercell = self._phonopy.supercell
        places = {s: u for u, s in enumerate(supercell.u2s_map.tolist())}
        self._images = [places[s] for s in supercell.s2u_map.tolist()]
        numbers = primitive.numbers[self._images]
        vectors = np.array(supercell.cell, dtype=np.float64)
        self.cells = [
            Member(numbers, np.array(moved.positions, dtype=np.float64), vectors)
            for moved in self._phonopy.supercells_with_displacements
        ]

    def spectrum(self, forces: list[Floats], residual: Floats, mesh_length: float) -> Spectrum:
        """Return the phonons that forces in the displaced supercells give.

        The force constants obey the space group, translations (the acoustic sum rule) and the
        exchange of atoms.

        Parameters
        ----------
        forces
            Forces in each of `cells` (eV/Å).
        residual
            Forces in the primitive cell where nothing is displaced, which are taken off (eV/Å).
        mesh_length
            Divisions of the mesh along each reciprocal vector, over the length of that vector (Å).
        """
        phonopy = self._phonopy
        phonopy.forces = np.array(forces) - residual[self._images]
        phonopy.produce_force_constants(calculate_full_force_constants=False, show_drift=False)
        # Ten rounds end within 1e-6 THz of symfc's projection, which takes 10 times as long.
        phonopy.symmetrize_force_constants(level=10, show_drift=False)
        mesh = phonopy.run_mesh(mesh=mesh_length, is_gamma_center=True)
        fitting = np.array(get_commensurate_points(phonopy.supercell_matrix))
        exact = phonopy.run_qpoints(fitting).frequencies
        points = np.concatenate([fitting, mesh.qpoints])
        modes = [
            np.array(found) if q.any() else self._optical_modes()
            for q, found in zip(points, [*exact, *mesh.frequencies], strict=True)
        ]
        # Translations have no frequency; they are the lowest modes of a stable crystal.
        minima = [
            float(found.min(initial=np.inf if q.any() else 0.0))
            for q, found in zip(points, modes, strict=True)
        ]
        place = int(np.argmin(minima))  # the first of equals, and those that fit come first
        on_mesh = modes[len(fitting) :]
        shares = mesh.weights / mesh.weights.sum()
        return Spectrum(
            np.concatenate(on_mesh),
            np.repeat(shares, [len(found) for found in on_mesh]),
            minima[place],
            tuple(points[place].tolist()),
            place < len(fitting),
            len(phonopy.primitive),
        )

    def _optical_modes(self) -> Floats:
        """Return the frequencies at Gamma that are no translations of the whole crystal (THz)."""
        phonopy = self._phonopy
        gamma = phonopy.run_qpoints([[0.0, 0.0, 0.0]], with_dynamical_matrices=True)
        matrix = gamma.dynamical_matrices[0].real
        masses = phonopy.primitive.masses
        translations = np.kron(np.sqrt(masses / masses.sum())[:, None], np.eye(3))
        # the other columns of a full orthogonal basis that starts with the translations
        others = np.linalg.qr(translations, mode="complete")[0][:, 3:]
        squares = np.linalg.eigvalsh(others.T @ matrix @ others)
        signed = np.sign(squares) * np.sqrt(np.abs(squares))
        return np.array(signed * phonopy.unit_conversion_factor, dtype=np.float64)
