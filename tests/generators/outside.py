"""A program that stands in for outside generators, and names under which it can be run."""

from __future__ import annotations

import sys
from pathlib import Path

STAND_IN = '''
"""Writes perovskites the way it is told to: {how}."""
import io, json, os, random, signal, subprocess, sys, time, zipfile

HOW, WORDS = sys.argv[1], sys.argv[2:]
options = dict(word[2:].split("=", 1) for word in WORDS if word.startswith("--"))
plain = [word for word in WORDS if not word.startswith("--")]
seed = int(options.get("seed", "0"))
random.seed(seed if "seed" in options else None)

CIF = """data_gen
_cell_length_a {a}
_cell_length_b {a}
_cell_length_c {a}
_cell_angle_alpha 90
_cell_angle_beta 90
_cell_angle_gamma 90
_symmetry_space_group_name_H-M 'P 1'
loop_
_atom_site_label
_atom_site_type_symbol
_atom_site_fract_x
_atom_site_fract_y
_atom_site_fract_z
A1 {A} 0 0 0
B1 Ti 0.5 0.5 0.5
O1 O 0.5 0.5 0
O2 O 0.5 0 0.5
O3 O 0 0.5 0.5
"""


def crystals(count, strays=False):
    for index in range(count):
        yield round(3.8 + 0.4 * random.random(), 6), "Pb" if strays and index % 2 else "Sr"


def cif(a, A):
    return CIF.format(a=a, A=A)


def frame(a, A):
    sites = [(A, 0, 0, 0), ("Ti", 1, 1, 1), ("O", 1, 1, 0), ("O", 1, 0, 1), ("O", 0, 1, 1)]
    head = f'5\\nLattice="{a} 0 0 0 {a} 0 0 0 {a}" Properties=species:S:1:pos:R:3 pbc="T T T"\\n'
    return head + "".join(f"{s} {x*a/2:.6f} {y*a/2:.6f} {z*a/2:.6f}\\n" for s, x, y, z in sites)


def zipped(made):
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for index, one in enumerate(made):
            archive.writestr(f"gen_{index}.cif", cif(*one))
    return content.getvalue()


print("WORDS", json.dumps(WORDS), flush=True)
print("SEES", json.dumps(dict(os.environ)), flush=True)
if plain:  # as mattergen-generate: the folder stands first
    folder = plain[0]
    count = int(options["batch_size"]) * int(options["num_batches"])
    os.makedirs(folder)
else:
    folder, count = options["output"], int(options["count"])
made = list(crystals(count, strays=HOW == "strays"))
if HOW == "nothing":
    sys.exit(0)
if HOW == "fail":
    sys.exit("RuntimeError: CUDA out of memory")
if HOW == "hang":
    child = subprocess.Popen(["sleep", "600"])
    with open(options["pids"], "w") as file:
        file.write(f"{os.getpid()} {child.pid}")
    time.sleep(600)
if HOW == "stubborn":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    time.sleep(600)
if HOW == "leave":
    child = subprocess.Popen(["sleep", "600"])
    with open(options["pids"], "w") as file:
        file.write(str(child.pid))
if plain:
    text = "".join(frame(*one) for one in made)
    archive = zipped(made)
    if HOW == "cut":  # killed while it wrote the last frame, before the archive was finished
        text, archive = text[:-40], archive[: len(archive) // 2]
    if HOW == "garbage":
        text, archive = "5\\nno crystal\\n", archive[:100]
    if HOW == "zip only":
        text = ""
    if text:
        open(os.path.join(folder, "generated_crystals.extxyz"), "w").write(text)
    open(os.path.join(folder, "generated_crystals_cif.zip"), "wb").write(archive)
    open(os.path.join(folder, "generated_trajectories.zip"), "wb").write(zipped([]))
elif os.path.isdir(folder):
    for index, one in enumerate(made):
        text = "no crystal" if HOW == "garbage" else cif(*one)
        open(os.path.join(folder, f"{index:03d}.cif"), "w").write(text)
elif folder.endswith(".zip"):
    open(folder, "wb").write(zipped(made))
else:
    open(folder, "w").write("".join(frame(*one) for one in made))
if HOW in ("crash", "cut"):
    os.kill(os.getpid(), signal.SIGSEGV)
'''


def write_stand_in(folder: Path, how: str = "well") -> str:
    """Write the program and return the command that runs it as it is told.

    Parameters
    ----------
    folder
        Where the script goes.
    how
        ``well``; ``strays`` every second crystal is outside of the space; ``nothing`` is written;
        ``fail``, ``crash`` after writing, ``hang``, ``stubborn``, ``leave`` a child behind,
        ``garbage``, ``cut`` in the middle of writing, ``zip only``.
    """
    script = folder / "stand_in.py"
    script.write_text(STAND_IN)
    return f"{sys.executable} -I -S {script} '{how}'"
