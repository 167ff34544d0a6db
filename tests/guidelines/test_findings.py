import msgspec
import pytest

from malpighi.errors import DataError
from malpighi.guidelines.findings import Finding, Observations, State


@pytest.mark.parametrize(
    ("state", "probability"),
    [(State.PRESENT, 0.3), (State.ABSENT, 0.7), (State.UNKNOWN, 1.2), (State.PRESENT, float("nan"))],
)
def test_a_probability_must_fit_the_state(state, probability):
    with pytest.raises(DataError, match=str(state)):
        Finding(state, probability)


def test_even_odds_fit_every_state():
    assert [Finding(state, 0.5).chance for state in State] == [0.5, 0.5, 0.5]


def test_chance_fills_in_the_default_of_the_state():
    assert [Finding(state).chance for state in State] == [1.0, 0.0, 0.5]
    assert Finding(State.PRESENT, 0.8).chance == 0.8


def test_unlisted_observations_are_unknown():
    cell = Observations.of(present=["NE"], absent=["KO"])
    assert [cell.state(code) for code in ("NE", "KO", "NM")] == [State.PRESENT, State.ABSENT, State.UNKNOWN]
    assert [cell.chance(code) for code in ("NE", "KO", "NM")] == [1.0, 0.0, 0.5]


def test_a_code_cannot_be_present_and_absent():
    with pytest.raises(DataError, match="NE is given both"):
        Observations.of(present=["NE"], absent=["NE"])


def test_json_round_trip():
    cell = Observations({"NE": Finding(State.PRESENT, 0.9)}, "glandular")
    assert msgspec.json.decode(msgspec.json.encode(cell), type=Observations) == cell


def test_replace_leaves_the_original_alone():
    cell = Observations.of(present=["NE"], cell_class="glandular")
    other = cell.replace({"NE": Finding(State.ABSENT)})
    assert (cell.state("NE"), other.state("NE")) == (State.PRESENT, State.ABSENT)
    assert other.cell_class == "glandular"
