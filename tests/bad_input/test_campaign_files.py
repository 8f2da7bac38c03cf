"""Campaign files that cannot be meant: one line per mistake, and nothing is begun."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import SOUND, Matloop, untouched

FOUND = (
    "e_above_hull, energy_per_atom, formation_energy, max_force, relaxation_drop, "
    "relaxation_steps, space_group, symprec, volume_change"
)
WORDS = "fields, one `name: value` per line"
WITH = "14: stages[1].evaluate[0].with."
UNITS = "write numbers with units, 0.05 eV/atom"
FIRST = "  - name: validity\n    evaluate: [minimum_distance, cell]\n"

MISTAKES = {
    "unknown element": ("Cu-Au", "Cu-Qq", "3: space.system: 'Qq' is no chemical element; write "
                        "symbols such as Ti"),
    "element by name": ("system: Cu-Au", "elements: [Cu, Gold]", "3: space.elements[1]: 'Gold' is "
                        "no chemical element; write Au"),
    "isotope": ("Cu-Au", "Cu-D", "3: space.system: 'D' is an isotope; write H"),
    "system without dashes": ("Cu-Au", "CuAu", "3: space.system: 'CuAu' is no chemical system; "
                              "write Cu-Au"),
    "system with a long dash": ("Cu-Au", "Cu\u2013Au", "3: space.system: 'Cu\u2013Au' is no "
                                "chemical system; write Cu-Au"),
    "unknown field": ("max_atoms", "max_atom", "3: space.max_atom: there is no such field here; "
                      "did you mean 'max_atoms'?"),
    "unknown section": ("budget:", "budgte:", "18: budgte: there is no such field here; did you "
                        "mean 'budget'?"),
    "word for a number": ("max_atoms: 4", "max_atoms: four", "3: space.max_atoms: must be a whole "
                          "number, got 'four'"),
    "truth for a number": ("max_atoms: 4", "max_atoms: true", "3: space.max_atoms: must be a "
                           "number, got True"),
    "not a number": ("max_atoms: 4", "max_atoms: .nan", "3: space.max_atoms: .nan is not a finite "
                     "number; where no limit is meant, leave the field out"),
    "mapping for a list": ("\n  - random_symmetric", " {random_symmetric: 1}", "6: generators: "
                           "must be a list, got {'random_symmetric': 1}"),
    "word for a list": ("\n  - random_symmetric", " random_symmetric", "6: generators: must be a "
                        "list; write [random_symmetric]"),
    "list for a mapping": ("{iterations: 1, candidates: 6}", "[1, 6]", "18: budget: must hold "
                           f"{WORDS}, got [1, 6]"),
    "one stage, no list": ("stages:\n" + FIRST, "stages: [validity]\nstop:\n" + FIRST, None),
    "negative budget": ("iterations: 1", "iterations: -1", "18: budget.iterations: must be at "
                        "least 1, got -1"),
    "negative seconds": ("candidates: 6", "seconds: -1", "18: budget.seconds: must be more than "
                         "0, got -1"),
    "unit for a budget": ("candidates: 6", "seconds: 10 min", "18: budget.seconds: must be a "
                          "number, got '10 min'"),
    "huge budget": ("candidates: 6", "candidates: 100000000000", "18: budget.candidates: must be "
                    "at most 100000, got 100000000000"),
    "too many digits": ("seed: 3", "seed: 99999999999999999999", "2: seed: 99999999... has too "
                        "many digits"),
    "negative seed": ("seed: 3", "seed: -1", "2: seed: must be at least 0, got -1"),
    "unknown quantity": ("minimize: e_above_hull", "minimize: hardness", "5: objective.minimize: "
                         f"no stage finds 'hardness'; they find: {FOUND}"),
    "quantity misspelt": ("minimize: e_above_hull", "minimize: e_abov_hull", "5: objective."
                          "minimize: no stage finds 'e_abov_hull'; did you mean 'e_above_hull'?"),
    "quantity of no stage": ("minimize: e_above_hull", "minimize: bulk_modulus", "5: objective."
                             "minimize: no stage finds 'bulk_modulus'; add bulk_modulus to a "
                             "stage"),
    "wrong unit": ("minimize: e_above_hull", "minimize: e_above_hull\n  discovery: e_above_hull "
                   "<= 3 GPa", "6: objective.discovery: units do not fit in 'e_above_hull <= 3 "
                   f"GPa': e_above_hull is in eV/atom; {UNITS}"),
    "no unit": ("minimize: e_above_hull", "minimize: e_above_hull\n  discovery: e_above_hull <= "
                "0.05", "6: objective.discovery: units do not fit in 'e_above_hull <= 0.05': "
                f"e_above_hull is in eV/atom; {UNITS}"),
    "unit misspelt": ("minimize: e_above_hull", "minimize: e_above_hull\n  discovery: "
                      "e_above_hull <= 0.05 eV/aotm", "6: objective.discovery: 'aotm' is neither "
                      "a unit nor a quantity; did you mean 'atom'?"),
    "unit in capitals": ("minimize: e_above_hull", "minimize: e_above_hull\n  discovery: "
                         "e_above_hull <= 0.05 EV/atom", "6: objective.discovery: cannot read the "
                         "expression 'e_above_hull <= 0.05 EV/atom': 'EV' is no unit; did you mean"
                         " 'eV'?"),
    "power too large": ("minimize: e_above_hull", "minimize: e_above_hull^1000", "5: objective."
                        "minimize: a number in 'e_above_hull^1000' is too large"),
    "tower of powers": ("minimize: e_above_hull", "minimize: e_above_hull / 0 * 9^9^9^9", "5: "
                        "objective.minimize: division by zero in 'e_above_hull / 0 * 9^9^9^9'"),
    "expression too deep": ("minimize: e_above_hull", f"minimize: {'(' * 400}e_above_hull"
                            f"{')' * 400}", None),
    "empty space": ("system: Cu-Au", "elements: []", "3: space: the chemical space is empty: name "
                    "it as in system: Sr-Ti-O"),
    "everything denied": ("max_atoms: 4", "deny: [Cu, Au]", "3: space: the chemical space is "
                          "empty: no element is left after deny"),
    "no room for the elements": ("max_atoms: 4", "max_atoms: 1, min_elements: 2", "3: space: the "
                                 "chemical space is empty: max_atoms is below min_elements"),
    "stage named twice": ("name: stability", "name: validity", "15: stages[2].name: two stages "
                          "are called 'validity'; give each its own name"),
    "generator named twice": ("- random_symmetric", "- random_symmetric\n  - random_symmetric",
                              "8: generators[1]: two generators are called 'random_symmetric'; "
                              "give each its own name"),
    "unknown plugin": ("[symmetry, hull_distance]", "[symetry, hull_distance]", "16: stages[2]."
                       "evaluate[0]: 'symetry' is not an evaluator; did you mean 'symmetry'?"),
    "unknown parameter": ("max_steps", "max_step", WITH + "max_step: relaxation has no such "
                          "parameter; did you mean 'max_steps'?"),
    "parameter of another type": ("max_steps: 60", "max_steps: many", WITH + "max_steps: must be "
                                  "a whole number, got 'many'"),
    "unknown choice": ("max_steps: 60", "optimizer: newton", WITH + "optimizer: 'newton' is not "
                       "accepted; write 'fire' or 'bfgs'"),
    "file that is not there": ("feedback: off", "references: {files: [no.cif]}", "17: references."
                               "files[0]: there is no file or folder '{folder}/no.cif'"),
    "file without a name": ("feedback: off", "references: {files: ['']}", "17: references.files"
                            "[0]: is empty; name a file or folder"),
    "field given twice": ("seed: 3", "seed: 3\nseed: 4", "3: seed: given twice (first in line 2); "
                          "keep one"),
    "tab": ("  minimize", "\tminimize", "5: a tab stands here; YAML is indented with spaces"),
    "colon without space": ("seed: 3", "seed:3", "2: this is no YAML: a field name without a colon"
                            " and a space after it"),
    "bracket left open": ("candidates: 6}", "candidates: 6", "18: this is no YAML: what begins "
                          "here never ends: ' or \" or ] or }"),
    "quote left open": ("name: copper-gold", "name: 'copper-gold", "1: this is no YAML: what "
                        "begins here never ends: ' or \" or ] or }"),
    "two documents": ("seed: 3", "---\nseed: 3", "2: this is no YAML: a second document begins "
                      "here; the file may hold one"),
    "program": ("seed: 3", "seed: !!python/object/apply:os.system [true]", "2: seed: the tag "
                "!!python/object/apply:os.system is not understood; leave it out"),
}  # fmt: skip


@pytest.mark.parametrize("case", MISTAKES)
def test_a_mistake_is_one_line_and_nothing_is_begun(
    matloop: Matloop, tmp_path: Path, case: str
) -> None:
    """What is wrong, in which line and field, and what would be right; no folder is made."""
    old, new, expected = MISTAKES[case]
    assert SOUND.count(old) == 1
    file = tmp_path / "campaign.yaml"
    file.write_text(SOUND.replace(old, new), encoding="utf-8")
    with untouched(tmp_path):
        said = matloop("run", file, "--dir", "run")
    if expected is None:  # more than one line, or a long one: still none of them a traceback
        assert said.code == 2
        assert all(line.startswith(f"{file}:") for line in said.err.splitlines()[:1])
    else:
        said.refuses(f"{file}:{expected.replace('{folder}', str(tmp_path))}")


def test_all_mistakes_are_told_at_once(matloop: Matloop, tmp_path: Path) -> None:
    """Ten mistakes in one file are ten lines, in the order of the file."""
    file = tmp_path / "campaign.yaml"
    text = SOUND
    for old, new in (
        ("name: copper-gold", "name: Copper Gold"), ("seed: 3", "seed: -1"),
        ("Cu-Au", "Cu-Qq"), ("minimize: e_above_hull", "minimize: e_abov_hull"),
        ("random_symmetric", "random_symetric"), ("[minimum_distance", "[minimum_distanc"),
        ("max_steps: 60", "max_steps: many"), ("name: stability", "nam: stability"),
        ("iterations: 1", "iterations: 0"),
    ):  # fmt: skip
        text = text.replace(old, new)
    file.write_text(text)
    with untouched(tmp_path):
        matloop("run", file, "--dir", "run").refuses(
            *(
                f"{file}:{line}"
                for line in (
                    "1: name: 'Copper Gold' must start with a letter or digit and hold only a-z, "
                    "0-9, - and _",
                    "2: seed: must be at least 0, got -1",
                    "3: space.system: 'Qq' is no chemical element; write symbols such as Ti",
                    "5: objective.minimize: no stage finds 'e_abov_hull'; did you mean "
                    "'e_above_hull'?",
                    "7: generators[0]: 'random_symetric' is not a generator; did you mean "
                    "'random_symmetric'?",
                    "10: stages[0].evaluate[0]: 'minimum_distanc' is not an evaluator; did you "
                    "mean 'minimum_distance'?",
                    "14: stages[1].evaluate[0].with.max_steps: must be a whole number, got 'many'",
                    "15: stages[2].name: missing; it says: name in reports",
                    "15: stages[2].nam: there is no such field here; did you mean 'name'?",
                    "18: budget.iterations: must be at least 1, got 0",
                )
            ),
            "10 mistakes",
        )


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", ":1: the file is empty"),
        (b"\n# nothing but this\n", ":1: the file is empty"),
        (b"dear computer, find me a crystal", ":1: a campaign file holds fields, such as "
         "`name: my-search`"),
        (b"- 1\n- 2\n", ":1: a campaign file holds fields, such as `name: my-search`"),
        (b"\x89PNG\r\n\x1a\n\x00", ": this is no UTF-8 text: byte 0; save it as plain text in "
         "UTF-8"),
        (SOUND.encode("utf-16"), ": this is no UTF-8 text: byte 0; save it as plain text in "
         "UTF-8"),
        (b"name: a\nseed: \x00", ":2: this is no text file: it holds the character U+0000"),
        (b"[" * 5000, ":1: the file nests too deeply"),
        (b"x" * 1_000_001, ": this is too large for a campaign file"),
    ],
)  # fmt: skip
def test_what_is_no_campaign_file_is_named(
    matloop: Matloop, tmp_path: Path, content: bytes, expected: str
) -> None:
    """An empty, foreign, binary, wrongly encoded or endless file is refused in one line."""
    file = tmp_path / "campaign.yaml"
    file.write_bytes(content)
    with untouched(tmp_path):
        matloop("run", file, "--dir", "run").refuses(f"{file}{expected}")


def test_a_file_that_is_none(matloop: Matloop, tmp_path: Path) -> None:
    """A missing file and a folder are refused in one line."""
    with untouched(tmp_path):
        matloop("run", "no.yaml").refuses("no.yaml: cannot be read: no such file or directory")
        matloop("run", tmp_path).refuses(f"{tmp_path}: cannot be read: is a directory")


@pytest.mark.parametrize(
    "content",
    [
        SOUND.replace("\n", "\r\n").encode(),
        SOUND.encode("utf-8-sig"),
        SOUND.replace("max_atoms: 4", 'max_atoms: "4"').encode(),
        SOUND.replace("iterations: 1,", "iterations: 1e0,").encode(),
        SOUND.replace(FIRST, "").encode(),
    ],
    ids=["Windows line ends", "byte order mark", "number in quotes", "exponent", "few stages"],
)
def test_what_is_only_unusual_is_accepted(matloop: Matloop, tmp_path: Path, content: bytes) -> None:
    """What has one meaning only is taken with it."""
    file = tmp_path / "campaign.yaml"
    file.write_bytes(content)
    said = matloop("validate", file)
    assert (said.code, said.err) == (0, "")


def test_the_command_itself_ends_with_2(tmp_path: Path) -> None:
    """A process of its own leaves with exit code 2 and the line, and writes nothing else."""
    file = tmp_path / "campaign.yaml"
    file.write_text(SOUND.replace("seed: 3", "seed: three"))
    command = [sys.executable, "-m", "matloop", "run", str(file)]
    with untouched(tmp_path):
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr == f"{file}:2: seed: must be a whole number, got 'three'\n"
