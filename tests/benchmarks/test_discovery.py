"""The discovery benchmark, through its command line, on a small table with known truth."""

import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from pymatgen.core import Lattice, Structure

ROOT = Path(__file__).resolve().parents[2]
CATIONS = ("Li", "Na", "K", "Rb", "Cs", "Mg", "Ca", "Sr", "Ba", "Ag", "Cu", "Zn")
ANIONS = ("F", "Cl", "Br", "I", "O", "S", "Se", "Te")
RESULTS = ("enhancement_at_20pct", "acceleration", "audc", "coverage_90")


@pytest.fixture
def cli(monkeypatch, capsys):
    """Return the command: arguments in, exit code and both streams out."""
    monkeypatch.syspath_prepend(str(ROOT))
    from benchmarks.discovery.__main__ import main

    def run(*arguments: str) -> tuple[int, str, str]:
        code = main(arguments)
        said = capsys.readouterr()
        return code, said.out, said.err

    yield run
    for name in [name for name in sys.modules if name.split(".")[0] == "benchmarks"]:
        del sys.modules[name]


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    """96 rock salts; one cheap method knows their distances well, the other hardly."""
    rng = np.random.default_rng(5)
    rows = []
    for cation in CATIONS:
        for anion in ANIONS:
            edge = 4.0 + 2.0 * rng.random()
            cell = Structure(Lattice.cubic(edge), [cation, anion], [[0, 0, 0], [0.5, 0.5, 0.5]])
            distance = 0.3 * rng.random() ** 2 - 0.02
            formation = -2.0 * rng.random()
            rows.append(
                {
                    "material_id": f"{cation}{anion}",
                    "formula": f"{cation}{anion}",
                    "e_form_dft": formation,
                    "e_above_hull_dft": distance,
                    "e_form_good": formation - 0.05 + 0.01 * rng.normal(),
                    "e_form_poor": formation + 0.2 * rng.normal(),
                    "cif": str(cell.to(fmt="cif")),
                }
            )
    return pd.DataFrame(rows)


@pytest.fixture
def data(table, tmp_path) -> Path:
    path = tmp_path / "crystals.csv.gz"
    table.to_csv(path, index=False)
    return path


def test_the_default_policy_finds_more_than_chance_and_says_how_much(cli, data):
    """One policy: every promised number with mean, spread and seeds, and a clear gain."""
    code, out, _ = cli("wbm", "--data", str(data), "--seeds", "2", "--batches", "4", "--json")
    report = json.loads(out)
    assert code == 0
    assert report["policy"] == "multi_fidelity"
    assert report["pool"] == [96, 96]
    assert report["purchases"] == [19, 19]
    for name in (*RESULTS, "discoveries", "simple_regret", "chemical_systems", "prototypes"):
        assert report[name]["n"] == 2, name
        assert report[name]["mean"] is not None, name
        assert report[name]["spread"] is not None, name
    assert report["enhancement_at_20pct"]["mean"] > 1.5
    assert report["enhancement_over_greedy:poor"]["mean"] > 1.0
    again = json.loads(
        cli("wbm", "--data", str(data), "--seeds", "2", "--batches", "4", "--json")[1]
    )
    assert again["curves"] == report["curves"]


def test_labels_are_not_seen_before_they_are_bought(cli, data, table, tmp_path):
    """Other labels of crystals that are not bought change nothing of the first batch."""
    from benchmarks.discovery import wbm
    from benchmarks.discovery.policies import DEFAULT, policies
    from benchmarks.discovery.replay import replay

    first = wbm.load(data, None, 0.0)
    bought = replay(first, policies(first)[DEFAULT], 0, 20, 2)[0].bought
    other = table.copy()
    rest = [row for row in range(len(table)) if row not in bought]
    shift = np.random.default_rng(1).normal(size=len(rest))
    for column in ("e_above_hull_dft", "e_form_dft"):  # the hull between them stays
        other.loc[rest, column] += shift
    path = tmp_path / "other.csv"
    other.to_csv(path, index=False)
    second = wbm.load(path, None, 0.0)
    assert replay(second, policies(second)[DEFAULT], 0, 20, 2)[0].bought == bought


def test_without_fidelities_and_structures_it_still_runs(cli, table, tmp_path):
    """Formulas and labels are enough; policies that need more are refused by name."""
    path = tmp_path / "bare.csv"
    table[["formula", "e_above_hull_dft"]].to_csv(path, index=False)
    code, out, _ = cli("wbm", "--data", str(path), "--seeds", "1", "--policy", "random", "--json")
    assert code == 0
    assert json.loads(out)["enhancement_at_20pct"]["mean"] == 1.0
    code, out, err = cli("wbm", "--data", str(path), "--policy", "greedy")
    assert (code, out) == (2, "")
    assert "--policy greedy: unknown with these data" in err


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.drop(columns="e_above_hull_dft"), "has no column e_above_hull_dft"),
        (lambda t: t.assign(e_above_hull_dft="high"), "column e_above_hull_dft holds no numbers"),
        (lambda t: t.assign(e_above_hull_dft=np.inf), "line 2: e_above_hull_dft is no finite"),
        (lambda t: t.assign(cif="nonsense"), "row 1: the cif cannot be read"),
        (lambda t: t.head(0), "has no rows"),
        (
            lambda t: t.assign(e_above_hull_dft=t.e_above_hull_dft.abs()),
            "e_above_hull_dft is nowhere negative",
        ),
        (lambda t: t.drop(columns="e_form_dft"), "has no column e_form_dft, and no table of known"),
    ],
)
def test_wrong_data_are_one_line_and_code_two(cli, table, tmp_path, change, message):
    """A table of another kind is refused with what is wrong with it."""
    path = tmp_path / "wrong.csv"
    change(table).to_csv(path, index=False)
    code, out, err = cli("wbm", "--data", str(path), "--policy", "random")
    assert (code, out) == (2, "")
    assert len(err.splitlines()) == 1
    assert message in err


def test_a_missing_file_is_one_line(cli, tmp_path):
    """So is a file that is not there."""
    code, _, err = cli("wbm", "--data", str(tmp_path / "none.csv"))
    assert code == 2
    assert err.strip().endswith("none.csv: no such file")


def test_measures_by_hand(cli):
    """Area and acceleration of curves that can be worked out on paper."""
    from benchmarks.discovery.measures import Campaign, acceleration, area

    bought = np.array([0.0, 10.0, 20.0])
    perfect = Campaign(bought, np.array([0.0, 10.0, 20.0]), {}, [])
    chance = Campaign(bought, np.array([0.0, 2.0, 4.0]), {}, [])
    poor = Campaign(bought, np.array([0.0, 1.0, 3.0]), {}, [])
    assert area(perfect.bought, perfect.found) == pytest.approx(1.0)
    assert area(chance.bought, chance.found) == pytest.approx(0.2)
    assert acceleration(perfect, chance) == pytest.approx(5.0)
    assert acceleration(chance, chance) == pytest.approx(1.0)
    assert acceleration(poor, chance) == 0.0


def test_withheld_systems_are_unknown_until_they_are_bought(cli, tmp_path):
    """Known is all but the withheld; what is bought joins the hull; truth is the hull of all."""
    from benchmarks.discovery import composition
    from benchmarks.discovery.policies import policies
    from benchmarks.discovery.replay import replay

    known = {"Na1Cl1": -2.0, "Li1Cl1": -1.5}
    hidden = {"Na1Li1Cl2": -1.9, "Na1Li2Cl3": -1.6, "Na2Li1Cl3": -1.7}
    table = pd.DataFrame({"formula": [*known, *hidden], "Ef": [*known.values(), *hidden.values()]})
    table.to_csv(tmp_path / composition.FORMATION, index=False)
    table.assign(Ef_pred_model=table["Ef"] + 0.01).drop(columns="Ef").to_csv(
        tmp_path / composition.PREDICTIONS, index=False
    )
    problem = composition.load(tmp_path, None, [0], 3, 3, 0.0)[0]
    names = [formula.reduced_formula for formula in problem.compositions]
    truth = dict(zip(names, problem.truth, strict=True))
    stable = dict(zip(names, problem.stable.tolist(), strict=True))
    assert truth == pytest.approx(
        {"NaLiCl2": -0.15, "NaLi2Cl3": 0.0667, "Na2LiCl3": 0.1333}, abs=1e-3
    )
    assert stable == {"NaLiCl2": True, "NaLi2Cl3": False, "Na2LiCl3": False}
    rounds = replay(problem, policies(problem)["greedy:model"], 0, 3, 3)
    assert [names[turn.bought[0]] for turn in rounds] == ["NaLiCl2", "NaLi2Cl3", "Na2LiCl3"]
    code, out, _ = cli(
        "composition", "--data", str(tmp_path), "--policy", "random", "--seeds", "1", "--json"
    )
    assert code == 0
    assert json.loads(out)["notes"] == {"fidelities": ["model"], "systems_withheld": 1}
    code, _, err = cli("composition", "--data", str(tmp_path), "--elements", "5")
    assert code == 2
    assert "holds 0 compounds of 5 elements" in err


def test_features_of_a_table_are_inputs(cli, tmp_path):
    """CAMD's columns: features teach the surrogate, the label does not; gaps are left out."""
    rng = np.random.default_rng(2)
    formulas = [f"{cation}{anion}" for cation in CATIONS[:8] for anion in ANIONS]
    cation, anion = (np.repeat(rng.normal(size=8), 8), np.tile(rng.normal(size=8), 8))
    hidden = cation + anion
    table = pd.DataFrame(
        {
            "Composition": formulas,
            "delta_e": hidden,
            "mean_X": hidden + 0.05 * rng.normal(size=len(formulas)),
            "holes": np.where(rng.random(len(formulas)) < 0.1, np.nan, 1.0),
        }
    )
    path = tmp_path / "oqmd.csv"
    table.to_csv(path, index=False)
    code, out, _ = cli(
        "oqmd", "--data", str(path), "--seeds", "1", "--batches", "3", "--budget", "0.5", "--json"
    )
    report = json.loads(out)
    assert code == 0
    assert report["notes"] == {"features": 1}
    assert report["discoverable"] == [int((hidden <= 0).sum())]
    assert report["enhancement"]["mean"] > 1.2
    code, _, err = cli("oqmd", "--data", str(path), "--pool", "1")
    assert (code, "--pool 1: must be at least 2" in err) == (2, True)


def test_live_reads_the_result_of_the_feedback_benchmark(cli, tmp_path):
    """Curves of both arms become gains; another file is refused."""
    runs = [
        {"system": "A-B", "seed": 0, "arm": arm, "relaxations": 20, "found_at_relaxation": found}
        for arm, found in (("feedback", [2, 4, 6, 8]), ("no feedback", [5, 20]))
    ]
    path = tmp_path / "feedback.json"
    path.write_text(json.dumps({"runs": runs}))
    code, out, _ = cli("live", "--data", str(path), "--json")
    numbers = json.loads(out)["policies"]["A-B"]
    assert code == 0
    assert numbers["enhancement"]["mean"] == 2.0
    assert numbers["acceleration"]["mean"] == 5.0
    path.write_text("{}")
    code, _, err = cli("live", "--data", str(path))
    assert (code, "is no result of benchmarks.feedback" in err) == (2, True)


def test_agents_after_camd_buy_what_they_predict_stable(cli, tmp_path):
    """On a linear energy they find more than chance, and more without exploring."""
    rng = np.random.default_rng(4)
    formulas = [f"{cation}{anion}" for cation in CATIONS for anion in ANIONS]
    features = rng.normal(size=(len(formulas), 4))
    table = pd.DataFrame(features, columns=list("abcd")).assign(
        Composition=formulas, delta_e=features @ [0.5, 0.2, 0.0, 0.0] + 0.3
    )
    path = tmp_path / "oqmd.csv"
    table.to_csv(path, index=False)
    code, out, _ = cli(
        *("oqmd", "--data", str(path), "--policy", "camd", "--seeds", "2", "--batches", "4"),
        *("--json", "--budget", "0.4", "--pool", "90"),
    )
    found = json.loads(out)["policies"]
    assert code == 0
    assert len(found) == 6
    greedy = found["camd:committee_greedy"]["enhancement"]["mean"]
    assert greedy > found["camd:committee"]["enhancement"]["mean"] > 1.0
    assert found["camd:gaussian_process_greedy"]["enhancement"]["mean"] > 1.3


def test_halves_are_apart_and_whole(cli, data):
    """The two halves of a pool share no crystal and together are all of it, run after run."""
    from benchmarks.discovery import wbm
    from benchmarks.discovery.problem import halved

    whole = wbm.load(data, None, 0.0)
    first, second, again = (
        {candidate.candidate_id for candidate in halved(whole, half).candidates}
        for half in ("first", "second", "first")
    )
    assert first == again
    assert not first & second
    assert first | second == {candidate.candidate_id for candidate in whole.candidates}
