from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuner.domain.catalog.optimizers import OPTIMIZERS
from tuner.domain.names import check_names, count_slips, find_nearest, suggest

KNOWN = {"sgd": 1, "momentum": 2, "adam": 3}


def test_known_names_are_returned_in_their_order() -> None:
    assert check_names(("adam", "sgd"), KNOWN, "optimizer") == ("adam", "sgd")


def test_an_unknown_name_is_refused_with_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"no optimizer 'adm': did you mean 'adam'\?"):
        check_names(("sgd", "adm"), KNOWN, "optimizer")


def test_a_name_given_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="names one optimizer twice: name each once"):
        check_names(("sgd", "adam", "sgd"), KNOWN, "optimizer")


def test_a_name_near_to_none_lists_them_all() -> None:
    assert suggest("lbfgs", KNOWN) == "choose from sgd, momentum, adam"


def test_a_name_that_is_far_from_all_is_not_taken_for_one_misspelt() -> None:
    assert suggest("nope", ["mine"]) == "choose from mine"
    assert suggest("mien", ["mine"]) == "did you mean 'mine'?"


@pytest.mark.parametrize("name", [name for name in OPTIMIZERS if len(name) > 2])
def test_two_letters_swapped_lead_back_to_every_optimizer(name: str) -> None:
    for at in range(len(name) - 1):
        typed = name[:at] + name[at + 1] + name[at] + name[at + 2 :]
        nearest = find_nearest(typed, OPTIMIZERS)
        assert nearest == name or (nearest and count_slips(typed, nearest) <= 1), (typed, nearest)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_capitals_lead_back_to_every_optimizer(name: str) -> None:
    assert find_nearest(name.upper(), OPTIMIZERS) == name


def test_fewest_slips_win_over_more_letters_in_common() -> None:
    assert find_nearest("adma", ["adamax", "nadam", "adam"]) == "adam"


@given(st.text("abc", max_size=5), st.text("abc", max_size=5))
def test_slips_are_a_distance(one: str, other: str) -> None:
    slips = count_slips(one, other)
    assert slips == count_slips(other, one)
    assert (slips == 0) is (one == other)
    assert abs(len(one) - len(other)) <= slips <= max(len(one), len(other))
