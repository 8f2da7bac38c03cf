"""MatterGen's contract, kept by a stand-in that writes what MatterGen 1.0.3 documents.

Its weights are not to be had here: that real samples come through is not tested, only that the
command is the documented one and that the documented files are read.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from matloop.campaign_file import load, template
from matloop.documents.space import ChemicalSpace
from matloop.errors import ConfigurationError, ProgramError
from matloop.generators.mattergen import PROPERTIES, PUBLISHED, MatterGen
from matloop.protocols import ProposalRequest
from matloop.registry import build
from matloop.settings import settings
from matloop.testing.conformance import check_generator

from .outside import write_stand_in

Made = Callable[..., MatterGen]


@pytest.fixture(autouse=True)
def _fresh_settings() -> Iterator[None]:
    settings.cache_clear()
    yield
    settings.cache_clear()


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Made:
    """Return what makes a generator whose MatterGen behaves as told; its folders are kept."""
    monkeypatch.setenv("MATLOOP_PROGRAM_FOLDER", str(tmp_path / "kept"))

    def make(how: str = "well", **fields: object) -> MatterGen:
        monkeypatch.setenv("MATLOOP_PROGRAMS__MATTERGEN", write_stand_in(tmp_path, how))
        settings.cache_clear()
        return build("generators", "mattergen", fields)

    return make


@pytest.fixture
def wanted(oxide_request: ProposalRequest) -> ProposalRequest:
    """Six strontium titanates."""
    return replace(oxide_request, count=6)


def commands(tmp_path: Path) -> list[list[str]]:
    """Return the arguments of each run, in the order of the runs."""
    files = sorted((tmp_path / "kept").glob("*/stdout.txt"), key=lambda f: f.stat().st_mtime_ns)
    lines = [file.read_text().splitlines()[0] for file in files]
    return [json.loads(line.removeprefix("WORDS ")) for line in lines]


def options(words: list[str]) -> dict[str, str]:
    """Return the options of a command."""
    return dict(word[2:].split("=", 1) for word in words if word.startswith("--"))


def test_the_command_is_the_documented_one(
    made: Made, wanted: ProposalRequest, tmp_path: Path
) -> None:
    """The folder first, the checkpoint, whole batches, and the campaign's system as condition."""
    generator = made(
        checkpoint="chemical_system_energy_above_hull",
        conditions={"energy_above_hull": 0.05},
        batch_size=4,
        guidance=2.0,
    )
    assert len(generator.propose(wanted)) == 6
    (words,) = commands(tmp_path)
    assert Path(words[0]).name == "results"
    told = options(words)
    condition = ast.literal_eval(told.pop("properties_to_condition_on"))
    assert condition == {"energy_above_hull": 0.05, "chemical_system": "O-Sr-Ti"}
    assert told == {
        "pretrained_name": "chemical_system_energy_above_hull",
        "batch_size": "3",
        "num_batches": "2",
        "record_trajectories": "False",
        "diffusion_guidance_factor": "2.0",
    }
    assert not any(" " in word for word in words)


def test_a_version_with_seeds_conforms(made: Made, wanted: ProposalRequest) -> None:
    """With `seeded` the same request gives the same crystals, in the space, with their origin."""
    generator = made(seeded=True, oversample=2.0)
    check_generator(generator, wanted)
    first = generator.propose(wanted)[0].parameters
    assert first["checkpoint"] == "chemical_system"
    assert first["seeded"] is True
    assert str(first["record"]).startswith("generated_crystals-")


def test_without_a_seed_it_says_so(made: Made, wanted: ProposalRequest, tmp_path: Path) -> None:
    """MatterGen 1.0.3 is given no seed, gives other crystals each time, and the origin tells it."""
    generator = made()
    first, second = generator.propose(wanted), generator.propose(wanted)
    assert [p.structure for p in first] != [p.structure for p in second]
    assert all("seed" not in options(words) for words in commands(tmp_path))
    assert first[0].parameters["seeded"] is False


def test_lists_of_elements_are_sampled_by_system(
    made: Made, wanted: ProposalRequest, tmp_path: Path
) -> None:
    """From a list of elements systems are drawn, each once, and the crystals shared by them."""
    space = ChemicalSpace(elements=("Sr", "Ba", "Ti", "Zr", "O"), max_elements=3)
    generator = made(systems=3, seeded=True)
    generator.propose(replace(wanted, space=space, count=7))
    told = [options(words) for words in commands(tmp_path)]
    assert [int(item["batch_size"]) * int(item["num_batches"]) for item in told] == [3, 2, 2]
    systems = [
        ast.literal_eval(item["properties_to_condition_on"])["chemical_system"] for item in told
    ]
    assert len(set(systems)) == 3
    assert all(len(system.split("-")) == 3 for system in systems)
    assert len({item["seed"] for item in told}) == 3


def test_a_checkpoint_of_ones_own(
    made: Made, wanted: ProposalRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fine-tuned model is named by the environment, and conditioned on what it was tuned on."""
    generator = made(checkpoint="mine", properties=["dft_band_gap"], conditions={"dft_band_gap": 3})
    with pytest.raises(ConfigurationError, match="set MATLOOP_CHECKPOINTS__MINE to its folder"):
        generator.propose(wanted)
    monkeypatch.setenv("MATLOOP_CHECKPOINTS__MINE", str(tmp_path))
    settings.cache_clear()
    generator.propose(wanted)
    told = options(commands(tmp_path)[0])
    assert told["model_path"] == str(tmp_path)
    assert "pretrained_name" not in told
    assert ast.literal_eval(told["properties_to_condition_on"]) == {"dft_band_gap": 3}


def test_mistakes_name_what_would_be_right() -> None:
    """Conditions a checkpoint was not trained on, or lacks, are refused with those it has."""
    for wrong, match in (
        ({"conditions": {"dft_band_gap": 1.0}}, "not conditioned on 'dft_band_gap'"),
        ({"conditions": {"chemical_system": 1.0}}, "filled in from the space"),
        ({"checkpoint": "dft_band_gap"}, "needs a value of dft_band_gap"),
        ({"checkpoint": "/tmp/model"}, "must be a name"),
        ({"checkpoint": "mine", "properties": ["colour"]}, "'colour' is not one of"),
        ({"checkpoint": "mattergen_base", "properties": ["dft_band_gap"]}, "leave them out"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"guidance": -1.0}, "guidance must be"),
    ):
        with pytest.raises(ConfigurationError, match=match):
            build("generators", "mattergen", wrong)
    assert {name for takes in PUBLISHED.values() for name in takes} <= set(PROPERTIES)


def test_unconditional_checkpoints_stray(
    made: Made, wanted: ProposalRequest, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The base model gets no condition; what it makes outside of the space is counted."""
    assert len(made("strays", checkpoint="mattergen_base").propose(wanted)) == 3
    assert "3 inside the space, 3 outside" in caplog.text
    assert "properties_to_condition_on" not in options(commands(tmp_path)[0])


@pytest.mark.parametrize(("how", "left"), [("zip only", 6), ("cut", 5)])
def test_damaged_outputs_give_what_is_whole(
    made: Made, wanted: ProposalRequest, how: str, left: int
) -> None:
    """Whole frames of a cut file count, and the archive serves where there is no other file."""
    assert len(made(how).propose(wanted)) == left


@pytest.mark.parametrize(
    ("how", "match"),
    [
        ("garbage", "outputs unreadable"),
        ("nothing", "it wrote no crystal"),
        ("fail", "exit status 1: RuntimeError: CUDA out of memory"),
    ],
)
def test_failures_say_why(made: Made, wanted: ProposalRequest, how: str, match: str) -> None:
    """Garbage, silence and an exit status are errors with the reason."""
    with pytest.raises(ProgramError, match=f"mattergen: .*{match}"):
        made(how).propose(wanted)


def test_a_campaign_file_may_use_it(tmp_path: Path) -> None:
    """A file with it is valid on a machine that has no MatterGen."""
    text = template("Sr-Ti-O").splitlines()
    start = next(index for index, line in enumerate(text) if line.startswith("generators:"))
    text[start + 1 : start + 1] = ["  - {use: mattergen, with: {checkpoint: chemical_system}}"]
    file = tmp_path / "campaign.yaml"
    file.write_text("\n".join(text))
    assert load(file).generators[0].use == "mattergen"
