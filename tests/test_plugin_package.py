"""An outside package is found through its entry points, and fulfils the conformance checks."""

from __future__ import annotations

import json
import subprocess
import sys

CHECK = """
import json
from pymatgen.core import Lattice, Structure
from matloop import registry
from matloop.documents.space import ChemicalSpace
from matloop.protocols import Parent, ProposalRequest
from matloop.testing.conformance import check_generator
rattle = registry.build("generators", "rattle", {"amplitude": 0.05})
salt = Parent("NaCl", Structure.from_spacegroup(
    "Fm-3m", Lattice.cubic(5.64), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]]))
request = ProposalRequest(ChemicalSpace(system="Na-Cl"), 3, 1, references=[salt])
check_generator(rattle, request)
entry = registry.names("generators")["rattle"]
print(json.dumps([entry.dist.name, entry.dist.version, len(rattle.propose(request))]))
"""


def test_an_installed_plugin_is_found_and_conforms(environment: dict[str, str]) -> None:
    """The registry knows the plugin, its package and version; its proposals are sound."""
    result = subprocess.run(
        [sys.executable, "-c", CHECK], env=environment, check=True, capture_output=True, text=True
    )
    assert json.loads(result.stdout) == ["matloop-rattle", "1.2.3", 3]


def test_the_command_lists_it_with_its_origin(environment: dict[str, str]) -> None:
    """`matloop plugins --json` shows where the plugin is from and what its parameter means."""
    result = subprocess.run(
        [sys.executable, "-m", "matloop", "plugins", "--json"],
        env=environment,
        check=True,
        capture_output=True,
        text=True,
    )
    assert "matloop-rattle" in result.stdout
    assert "Standard deviation of each Cartesian displacement" in result.stdout
