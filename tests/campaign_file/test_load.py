"""Campaign files: every mistake at once, each with its line and what would be right."""

from __future__ import annotations

from pathlib import Path

import pytest

from matloop.campaign_file import dump, load, parse
from matloop.documents.campaign import Campaign
from matloop.errors import ConfigurationError

SOUND = """\
name: sound
space: {system: Sr-Ti-O, max_atoms: 10}
objective:
  minimize: e_above_hull
generators:
  - random_symmetric
  - use: substitution
    share: 2
stages:
  - name: validity
    evaluate: [minimum_distance]
  - name: relaxation
    evaluate:
      - use: relaxation
        with: {fmax: 0.2}
  - name: stability
    evaluate: [hull_distance]
budget: {iterations: 2, candidates: 10}
"""


def mistakes(text: str, path: Path = Path("file.yaml")) -> list[str]:
    with pytest.raises(ConfigurationError) as caught:
        parse(text, path)
    return [line.removeprefix("file.yaml") for line in caught.value.lines()]


def only(text: str) -> str:
    (line,) = mistakes(text)
    return line


def test_a_sound_file_is_read() -> None:
    """Bare names, parameters and defaults end up in the campaign."""
    campaign = parse(SOUND, Path("file.yaml"))
    assert [entry.label for entry in campaign.generators] == ["random_symmetric", "substitution"]
    assert campaign.generators[1].share == 2
    assert campaign.stages[1].evaluate[0].parameters == {"fmax": 0.2}
    assert campaign.stages[1].select.use == "gate"


def test_what_is_dumped_is_loaded_unchanged() -> None:
    """A campaign survives the way into a file and back."""
    campaign = parse(SOUND, Path("file.yaml"))
    assert parse(dump(campaign), Path("file.yaml")) == campaign
    off = Campaign.model_validate(campaign.model_dump() | {"feedback": "off"})
    assert parse(dump(off), Path("file.yaml")) == off
    none = Campaign.model_validate(campaign.model_dump() | {"feedback": {"learn": []}})
    assert parse(dump(none), Path("file.yaml")) == none


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("Sr-Ti-O", "Sr-Xx-O", ":2: space.system: 'Xx' is no chemical element"),
        ("Sr-Ti-O", "Sr-Titanium-O", "'Titanium' is no chemical element; write Ti"),
        ("Sr-Ti-O", "sr-Ti-O", "'sr' is no chemical element; write Sr"),
        ("max_atoms", "max_atom", ":2: space.max_atom: there is no such field here; did you mean"),
        ("max_atoms: 10", "max_atoms: ten", "space.max_atoms: must be a whole number, got 'ten'"),
        ("{system: Sr-Ti-O, max_atoms: 10}", "{}", "the chemical space is empty"),
        (
            "{system: Sr-Ti-O, max_atoms: 10}",
            "{system: Sr-O, deny: [Sr, O]}",
            "the chemical space is empty",
        ),
        ("iterations: 2", "iterations: -2", ":18: budget.iterations: must be at least 1, got -2"),
        ("candidates: 10", "candidates: 1", "1 per iteration cannot be shared by 2 generators"),
        ("candidates: 10", "seconds: -1", "budget.seconds: must be more than 0, got -1"),
        ("share: 2", "share: 0", ":8: generators[1].share: must be more than 0, got 0"),
        ("[minimum_distance]", "minimum_distance", "must be a list; write [minimum_distance]"),
        (
            "[minimum_distance]",
            "[minimum_distanc]",
            ":11: stages[0].evaluate[0]: 'minimum_distanc'",
        ),
        ("- random_symmetric", "- relaxation", "'relaxation' is not a generator but one of the ev"),
        ("fmax: 0.2", "fmx: 0.2", ":15: stages[1].evaluate[0].with.fmx: relaxation has no such"),
        ("fmax: 0.2", "fmax: small", ":15: stages[1].evaluate[0].with.fmax: "),
        ("fmax: 0.2", "fmax: -1", "fmax must be positive"),
        ("fmax: 0.2", "model: chgnt", "'chgnt' is not a model; did you mean 'chgnet'?"),
        (
            "minimize: e_above_hull",
            "minimize: e_abov_hull",
            ":4: objective.minimize: no stage finds",
        ),
        ("minimize: e_above_hull", "minimize: bulk_modulus", "add bulk_modulus to a stage"),
        ("minimize: e_above_hull", "minimize: e_above_hull + 3 GPa", "e_above_hull is in eV/atom"),
        ("minimize: e_above_hull", "minimize: e_above_hull <= 3", "is a comparison"),
        ("minimize: e_above_hull", "minimize: e_above_hull +", "cannot read the expression"),
        ("minimize: e_above_hull", "minimize: __import__('os')", "cannot use"),
        ("  minimize: e_above_hull", "  discovery: e_above_hull < 0 eV/atom", "say what to min"),
        ("name: sound", "name: Not Sound", ":1: name: 'Not Sound' must start with"),
        ("name: validity", "name: relaxation", "two stages are called 'relaxation'"),
        ("name: sound", "name: sound\nfeedback: no", "got 'no'; or write 'off'"),
        ("name: sound", "name: sound\nreferences: {files: [no.cif]}", "no file or folder 'no.cif'"),
        ("name: sound", "name: sound\nreferences: {withhold: [Foo]}", "'Foo' is no chemical form"),
        ("name: sound", "name: sound\nreferences: {withhold: [BaO]}", "holds Ba, outside the chem"),
        ("name: sound", "name: sound\nname: again", ":2: name: given twice (first in line 1)"),
    ],
)
def test_one_mistake_is_one_line(old: str, new: str, expected: str) -> None:
    """A single mistake gives a single message, precise and free of consequences."""
    assert old in SOUND
    assert expected in only(SOUND.replace(old, new, 1))


def test_all_mistakes_come_at_once_in_the_order_of_the_file() -> None:
    """Types, plugins, quantities and units are all judged even where other parts are wrong."""
    text = (
        SOUND.replace("max_atoms: 10", "max_atom: 10")
        .replace("minimize: e_above_hull", "minimize: e_above_hul")
        .replace("share: 2", "share: many")
        .replace("[minimum_distance]", "[minimum_distanc]")
        .replace("fmax: 0.2", "fmx: 0.2")
        .replace("iterations: 2", "iterations: 0")
    )
    lines = mistakes(text)
    numbers = [int(line.split(":")[1]) for line in lines]
    assert numbers == sorted(numbers)
    assert {2, 8, 11, 15, 18} <= set(numbers)


def test_an_evaluator_that_lacks_its_input_is_refused() -> None:
    """The distance to the hull needs an energy from a stage before it."""
    ladder = SOUND.split("stages:\n", maxsplit=1)[0] + (
        "stages:\n"
        "  - {name: stability, evaluate: [hull_distance]}\n"
        "  - {name: relaxation, evaluate: [relaxation]}\n"
    )
    line = mistakes(ladder)[-1]  # in the order of the file
    assert "stages[0].evaluate[0]: needs 'energy_per_atom'" in line
    assert "put relaxation before it" in line


def test_a_quantity_that_does_not_outlive_the_relaxation_is_refused() -> None:
    """A density found before the atoms move says nothing of the relaxed crystal."""
    early = SOUND.replace("[minimum_distance]", "[minimum_distance, cell]")
    line = only(early.replace("minimize: e_above_hull", "maximize: density"))
    assert "no stage finds 'density'; add cell after the relaxation" in line


def test_a_ladder_without_energies_is_refused_before_it_runs() -> None:
    """What the hull and the discovery criterion need must come from some stage."""
    ladder = (
        SOUND.split("stages:\n", maxsplit=1)[0]
        + "stages:\n  - {name: a, evaluate: [minimum_distance]}\n"
    )
    lines = mistakes(ladder)
    assert any("stages: no stage finds the energies of the convex hull" in x for x in lines)
    assert any("objective.discovery" in line and "hull_distance" in line for line in lines)


def test_paths_start_from_the_folder_of_the_file(tmp_path: Path) -> None:
    """A reference file beside the campaign file is found from anywhere."""
    (tmp_path / "mine.cif").write_text("data_x")
    file = tmp_path / "campaign.yaml"
    file.write_text(SOUND + "references: {files: [mine.cif]}\n")
    assert load(file).references.files == ("mine.cif",)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (None, "cannot be read: no such file"),
        (b"\xff\xfe\x00", "no UTF-8 text"),
        (b"- 1\n- 2\n", "a campaign file holds fields"),
        (b"x" * 2_000_000, "too large"),
    ],
)
def test_what_is_no_campaign_file_is_said_in_one_line(
    tmp_path: Path, content: bytes | None, expected: str
) -> None:
    """Missing, binary, huge and unrelated files are user's mistakes, not crashes."""
    file = tmp_path / "campaign.yaml"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ConfigurationError) as caught:
        load(file)
    (line,) = caught.value.lines()
    assert expected in line
    assert str(file) in line


@pytest.mark.parametrize("file", sorted(Path("workflows").glob("*.yaml")), ids=lambda p: p.stem)
def test_shipped_campaign_files_are_sound(file: Path) -> None:
    """Everything in workflows/ loads with the plugins that are installed."""
    assert load(file).name == file.stem


@pytest.mark.parametrize("where", ["stage", "budget"])
def test_one_limit_is_said_once(where: str) -> None:
    """Seconds and core-hours of one thing are two ways of saying one limit; it is refused."""
    text = SOUND.replace("candidates: 10", "candidates: 10, seconds: 60, gpu_hours: 3")
    if where == "stage":
        text = SOUND.replace(
            "    evaluate: [hull_distance]",
            "    evaluate: [hull_distance]\n    seconds: 60\n    core_hours: 2",
        )
    assert "say one limit in two ways; give one of them" in only(text)
    both = SOUND.replace("candidates: 10", "candidates: 10, core_hours: 9, gpu_hours: 3")
    assert parse(both, Path("file.yaml")).budget.gpu_hours == 3


def test_an_engine_is_checked_like_any_plugin() -> None:
    """An unknown engine is named with its line, and what it forgets must be found again."""
    rung = "  - name: dft\n    calculate: {}\n    evaluate: [hull_distance]\nbudget"
    text = SOUND.replace("budget", rung)
    assert "'gpwa' is not an engine; did you mean 'gpaw'?" in only(text.replace("{}", "gpwa"))
    assert parse(text.replace("{}", "gpaw"), Path("file.yaml")).stages[-1].calculate is not None
    lost = text.replace("{}", "gpaw").replace("    evaluate: [hull_distance]\nbudget", "budget")
    assert all("no stage finds 'e_above_hull'" in line for line in mistakes(lost))
