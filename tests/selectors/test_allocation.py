"""Shares of the generators."""

import numpy as np
import pytest

from matloop.protocols import Record
from matloop.selectors.allocation import Bandit, Fixed, Watchful

START = {"random": 1.0, "substitution": 1.0, "evolution": 2.0}


def record(discoveries: list[int], proposed: int = 20, work: float = 1000.0) -> Record:
    n = len(discoveries)
    return Record((proposed,) * n, tuple(discoveries), (work,) * n)


def test_fixed_keeps_the_start():
    """Whatever was found, shares stay as declared and add up to one."""
    shares = Fixed().allocate({"random": record([9])}, START)
    assert shares == {"random": 0.25, "substitution": 0.25, "evolution": 0.5}


@pytest.mark.parametrize(
    "records",
    [{}, {name: record([0, 0]) for name in START}, {"random": Record((), (), ())}],
)
def test_nothing_found_changes_nothing(records):
    """Without any discovery the start shares stay."""
    assert Bandit().allocate(records, START) == pytest.approx(Fixed().allocate({}, START))


def test_the_successful_gain():
    """More discoveries for the same work, or the same for less, give a larger share."""
    equal = dict.fromkeys(START, 1.0)
    shares = Bandit().allocate(
        {"random": record([1]), "substitution": record([4]), "evolution": record([4], work=400)},
        equal,
    )
    assert shares["random"] < shares["substitution"] < shares["evolution"]
    assert sum(shares.values()) == pytest.approx(1.0)


def test_the_floor_holds():
    """A generator that never finds anything keeps a tenth."""
    records = {"random": record([0] * 9), "substitution": record([9] * 9), "evolution": record([])}
    shares = Bandit(floor=0.1).allocate(records, dict.fromkeys(START, 1.0))
    assert shares["random"] == pytest.approx(0.1)
    assert sum(shares.values()) == pytest.approx(1.0)


def test_many_generators_do_not_break_the_floor():
    """Thirty generators cannot have a tenth each; each keeps half an equal share at least."""
    start = {f"g{i}": 1.0 for i in range(30)}
    records = {name: record([50 if name == "g3" else 0] * 5) for name in start}
    shares = Bandit().allocate(records, start)
    assert min(shares.values()) == pytest.approx(0.5 / 30)
    assert sum(shares.values()) == pytest.approx(1.0)


def test_one_that_could_not_propose_is_not_judged():
    """Evolution without parents proposes nothing at first and keeps its share of the start."""
    records = {
        "random": record([2]),
        "substitution": record([2]),
        "evolution": Record((0,), (0,), (0.0,)),
    }
    assert Bandit().allocate(records, START)["evolution"] == pytest.approx(0.5, abs=0.02)


def test_rubbish_that_cost_no_work_still_counts():
    """Proposals rejected at once earn nothing: their generator falls below its start."""
    records = {
        "random": record([0, 0], proposed=100, work=0.0),
        "substitution": record([3, 3]),
        "evolution": record([6, 6], proposed=40, work=2000.0),
    }
    assert Bandit().allocate(records, START)["random"] < 0.25


def test_yesterday_counts_less():
    """With a discount, a generator that has dried up loses to one that has come up."""
    records = {"random": record([6, 0, 0]), "substitution": record([0, 0, 6])}
    start = {"random": 1.0, "substitution": 1.0}
    discounted = Bandit(discount=0.5).allocate(records, start)
    patient = Bandit(discount=1.0).allocate(records, start)
    assert discounted["substitution"] > 0.6
    assert patient["substitution"] == pytest.approx(0.5)


def test_optimism_favours_the_little_tried():
    """With optimism the generator with less evidence at the same rate gets more."""
    records = {"random": record([1], work=1000), "substitution": record([4], 80, 4000)}
    start = {"random": 1.0, "substitution": 1.0}
    bold = Bandit(optimism=2.0).allocate(records, start)
    assert bold["random"] > Bandit().allocate(records, start)["random"]


def test_it_finds_the_best_of_three():
    """On simulated generators of yields 1, 2 and 6 %, it finds more than equal shares do."""
    yields = {"random": 0.01, "substitution": 0.02, "evolution": 0.06}
    start = dict.fromkeys(yields, 1.0)

    def campaign(allocator, seed: int) -> int:
        rng = np.random.default_rng(seed)
        history = {name: ([], [], []) for name in yields}
        total = 0
        for _ in range(8):
            records = {name: Record(*map(tuple, lists)) for name, lists in history.items()}
            shares = allocator.allocate(records, start)
            for name, share in shares.items():
                count = round(100 * share)
                found = int(rng.binomial(count, yields[name]))
                for values, new in zip(history[name], (count, found, 50.0 * count), strict=True):
                    values.append(new)
                total += found
        return total

    gains = [campaign(Bandit(), seed) / campaign(Fixed(), seed + 1000) for seed in range(30)]
    assert np.mean(gains) > 1.2


@pytest.mark.parametrize("bad", [{"floor": 2.0}, {"discount": -0.1}, {"prior": 0}, {"fee": -1}])
def test_senseless_parameters_are_refused(bad):
    """Parameters outside their range raise a ValueError."""
    with pytest.raises(ValueError, match=r"must"):
        Bandit(**bad)


def watched(alarms: list[int], discoveries: int = 5) -> Record:
    n = len(alarms)
    return Record((20,) * n, (discoveries,) * n, (1000.0,) * n, tuple(alarms))


def test_the_collapsed_lose_places_to_the_sound():
    """One alarm halves a share, a second in a row quarters it, and the floor holds."""
    equal = dict.fromkeys(START, 1.0)
    fixed = Watchful(allocator="fixed")
    once = fixed.allocate({**dict.fromkeys(START, watched([0])), "random": watched([2])}, equal)
    assert once["random"] == pytest.approx(1 / 6)
    assert once["substitution"] == once["evolution"] == pytest.approx(5 / 12)
    rows = {**dict.fromkeys(START, watched([0, 0])), "random": watched([1, 1])}
    assert fixed.allocate(rows, equal)["random"] == pytest.approx(1 / 12)
    long = {**dict.fromkeys(START, watched([0] * 9)), "random": watched([1] * 9)}
    assert fixed.allocate(long, equal)["random"] == pytest.approx(0.05)
    over = {**dict.fromkeys(START, watched([0, 0])), "random": watched([3, 0])}
    assert fixed.allocate(over, equal) == pytest.approx(Fixed().allocate({}, equal))


def test_where_all_have_collapsed_the_start_returns():
    """Nobody is left to give places to; without alarms the other allocator has the word."""
    rows = {name: watched([1], discoveries=i) for i, name in enumerate(START)}
    assert Watchful().allocate(rows, START) == pytest.approx(Fixed().allocate({}, START))
    quiet = {name: watched([0], discoveries=i) for i, name in enumerate(START)}
    assert Watchful().allocate(quiet, START) == Bandit().allocate(quiet, START)
    with pytest.raises(ValueError, match="bandit"):
        Watchful(allocator="watchful")
