from __future__ import annotations

import pytest

from tuner.domain.names import check_names, suggest

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
