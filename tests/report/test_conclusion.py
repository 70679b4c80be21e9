from __future__ import annotations

from dataclasses import replace

import pytest

from tests.report.summaries import (
    averaging_summary,
    make_spec,
    make_timed_spec,
    mixed_summary,
    summary_of,
    trial,
)
from tuner.analysis.gain import ExpectedGain
from tuner.analysis.summary import StudySummary
from tuner.domain.objective import UNREACHED
from tuner.domain.trials import Outcome, TrialRecord
from tuner.report.conclusion import conclude


def said(summary: StudySummary) -> str:
    return "\n".join(conclude(summary))


def settled(*records: TrialRecord) -> list[TrialRecord]:
    """Returns trials, and as many pruned ones of the last one's optimizer as settle it."""
    return [
        *records,
        *(trial(n, records[-1].optimizer, outcome=Outcome.PRUNED) for n in range(90, 94)),
    ]


def test_the_first_sentence_names_the_winner_and_its_settings() -> None:
    verdict = conclude(mixed_summary())[0]
    assert verdict.startswith("Use adam with the cosine schedule (lr=0.1, beta1=0.9,")
    assert verdict.endswith("val_loss 0.25, trial 2.")


def test_in_a_tie_the_sentence_is_about_one_trial() -> None:
    # sgd comes first in the space, but adam reached the value first.
    verdict = conclude(summary_of(trial(0, "adam", 0.5), trial(1, "sgd", 0.5)))[0]
    assert verdict.startswith("Use adam with the constant schedule (lr=0.001, beta1=0.9")
    assert verdict.endswith("trial 0.")


def test_an_optimizer_in_a_tie_is_not_called_below() -> None:
    sentences = said(summary_of(trial(0, "sgd", 0.5), trial(1, "adam", 0.5)))
    assert "0% below" not in sentences
    assert "0% above" not in sentences


def test_the_winner_is_compared_to_its_own_defaults() -> None:
    assert "adam's defaults reach 0.5, 2 times the value." in conclude(mixed_summary())


def test_optimizers_that_no_trial_has_tried_are_named() -> None:
    names = ["adam", "sgd", "muon"]
    summary = summary_of(trial(0, "sgd", 0.5), spec=make_spec(space={"optimizers": names}))
    assert "No trial has tried adam, muon." in conclude(summary)
    tried = summary_of(
        *(trial(n, name, 0.5) for n, name in enumerate(names)),
        spec=make_spec(space={"optimizers": names}),
    )
    assert "No trial has tried" not in " ".join(conclude(tried))
    assert "No trial has tried sgd, " in " ".join(conclude(summary_of(trial(0, "adam", 0.5))))


@pytest.mark.parametrize(
    ("preset", "came"),
    [("warm_start", "came"), ("portfolio", "did not come"), (None, "did not come")],
)
def test_a_study_that_started_from_another_says_what_that_gave(
    preset: str | None, came: str
) -> None:
    spec = make_spec(warm_start={"study": "quick", "trials": 9, "value": 12.0, "best": "12 steps"})
    sentence = (
        "It started from the best of the study quick (9 complete trials, best 12 steps); "
        f"the best of this study {came} from there."
    )
    others = trial(0, "sgd", 0.9, preset="warm_start")
    assert sentence in conclude(summary_of(others, trial(1, "adam", 0.5, preset=preset), spec=spec))
    assert "It started from" not in said(mixed_summary())


def test_a_runner_up_that_has_not_reached_the_target_is_said_not_to_have() -> None:
    trials = settled(trial(0, "adam", 12.0), trial(1, "sgd", UNREACHED))
    said = conclude(summary_of(*trials, spec=make_timed_spec()))
    assert "Next comes sgd, which has not reached it." in said


def test_a_target_that_is_reached_at_once_is_said_to_tell_nothing_apart() -> None:
    doubt = "set a harder study.target, or more budget.evaluations."
    for evaluations, doubts in (({10: 0.1}, True), ({10: 0.9, 20: 0.1}, False)):
        record = replace(trial(0, "adam", 10.0), evaluations=evaluations)
        told = " ".join(conclude(summary_of(record, spec=make_timed_spec())))
        assert (doubt in told) is doubts
    assert doubt not in said(mixed_summary())


def test_defaults_that_win_are_said_to_win() -> None:
    summary = summary_of(trial(0, "adam", 0.5, preset="default"), trial(1, "adam", 0.6))
    assert "Tuning has not beaten adam's own defaults." in conclude(summary)


def test_an_averaged_winner_is_said_to_be_one_and_compared_to_its_last_weights() -> None:
    verdict, second, *_ = conclude(averaging_summary())
    average = "and its weights averaged by ema (start=0, interval=1, decay=0.99): val_loss 0.4"
    assert average in verdict
    assert second == "Its last weights alone reach 0.6, 50% above."
    assert "averaged" not in said(mixed_summary())


@pytest.mark.parametrize(
    ("other", "compared"),
    [(0.6, ", 20% above"), (0.99, ", 98% above"), (1.5, ", 3 times the value")],
)
def test_the_runner_up_is_compared_to_the_winner(other: float, compared: str) -> None:
    sentences = conclude(summary_of(*settled(trial(0, "adam", 0.5), trial(1, "sgd", other))))
    assert f"Next comes sgd with {other:.4g}{compared}." in sentences


def test_where_more_is_better_the_runner_up_lies_below() -> None:
    spec = make_spec(direction="maximize")
    trials = settled(trial(0, "adam", 0.8), trial(1, "sgd", 0.6))
    sentences = conclude(summary_of(*trials, spec=spec))
    assert "Next comes sgd with 0.6, 25% below." in sentences


@pytest.mark.parametrize(("best", "other"), [(-0.5, 0.5), (0.0, 0.5), (-0.5, -0.1)])
def test_values_without_a_ratio_are_not_compared_by_one(best: float, other: float) -> None:
    sentences = conclude(summary_of(*settled(trial(0, "adam", best), trial(1, "sgd", other))))
    assert f"Next comes sgd with {other:.4g}." in sentences


def test_an_optimizer_that_too_few_trials_have_tried_does_not_come_next() -> None:
    best, few = trial(0, "adam", 0.5), trial(1, "muon", 0.6)
    assert "Next comes" not in said(summary_of(best, few))
    assert "Next comes sgd with 0.7" in said(summary_of(best, few, *settled(trial(2, "sgd", 0.7))))


def test_defaults_are_compared_with_the_value_that_is_stated() -> None:
    summary = summary_of(trial(0, "adam", 0.6, preset="default"), trial(1, "adam", 0.2))
    assert summary.best is not None
    # Fresh seeds give a higher mean than the lucky value of the search.
    best = replace(summary.best, record=replace(summary.best.record, value=0.5), seeds=10)
    told = said(replace(summary, best=best))
    assert "val_loss 0.5 in the mean over 10 fresh seeds" in told
    assert "adam's defaults reach 0.6 on one seed, 20% above." in told


def test_a_single_seed_is_always_doubted() -> None:
    assert conclude(mixed_summary())[-1].endswith("treat small differences as undecided.")


def test_that_every_configuration_ran_once_is_counted() -> None:
    once = (trial(0, "adam", 0.5), trial(1, "sgd", 0.4))
    doubts = "all others once, on one seed: treat small differences as undecided."
    assert conclude(summary_of(*once))[-1].startswith("Every configuration ran once, on one seed:")
    twice = conclude(summary_of(*once, trial(2, "adam", 0.53)))[-1]
    assert twice == (
        "One configuration ran more than once, with values up to 0.03 apart (trials 0, 2), "
        + doubts
    )
    more = conclude(summary_of(*once, trial(2, "adam", 0.53), trial(3, "sgd", 0.5)))[-1]
    assert more.startswith("2 configurations ran more than once, with values up to 0.1 apart")
    assert "(trials 1, 3)" in more
    same = conclude(summary_of(*once, trial(2, "adam", 0.5)))[-1]
    assert same.startswith("One configuration ran more than once, with the same values each time,")


@pytest.mark.parametrize(
    ("outcome", "said"),
    [
        (Outcome.PRUNED, "One configuration ran more than once, but to the end once at most,"),
        (Outcome.FAILED, "Every configuration ran once"),
        (Outcome.WAITING, "Every configuration ran once"),
    ],
)
def test_a_second_run_that_did_not_get_to_its_end_has_no_value_to_compare(
    outcome: Outcome, said: str
) -> None:
    sentence = conclude(summary_of(trial(0, "adam", 0.5), trial(1, "adam", 0.6, outcome)))[-1]
    assert sentence.startswith(said)


@pytest.mark.parametrize("records", [(), (trial(0, outcome=Outcome.RUNNING),)])
def test_a_study_in_which_nothing_finished_says_so(records: tuple[TrialRecord, ...]) -> None:
    assert conclude(summary_of(*records)) == ["No trial has finished yet."]


def failed(number: int, error: str, place: str = "/home/me/models/mine.py:7") -> TrialRecord:
    attributes = {"error": error, "error_at": place}
    return replace(trial(number, outcome=Outcome.FAILED), attributes=attributes)


def test_a_study_of_failures_says_with_what_and_how_to_see_it() -> None:
    first, second = conclude(summary_of(failed(0, "ValueError: the scale is off\nand more")))
    assert first == "No trial was trained to its end (1 failed)."
    assert second == (
        "One trial of 1 failed with ValueError: the scale is off (mine.py:7): "
        "see it with 'tuner trial show some_study 0'."
    )


@pytest.mark.parametrize("best", [[], [trial(9, "adam", 0.5)]])
def test_failures_are_counted_and_the_commonest_error_is_shown(best: list[TrialRecord]) -> None:
    errors = ["KeyError: 'x'", "OSError: no disk", "OSError: no disk"]
    records = [failed(number, error) for number, error in enumerate(errors)]
    told = said(summary_of(*records, *best))
    assert (
        f"3 trials of {3 + len(best)} failed, 2 of them with OSError: no disk (mine.py:7): "
        "see it with 'tuner trial show some_study 1'."
    ) in told
    assert "failed" not in said(summary_of(trial(0, "adam", 0.5)))


def test_failure_without_a_known_error_is_counted_all_the_same() -> None:
    told = said(summary_of(trial(0, outcome=Outcome.FAILED), trial(1, "adam", 0.5)))
    assert "One trial of 2 failed with an unknown error: see it with" in told


def test_a_study_of_diverged_trials_mentions_no_failure_to_look_at() -> None:
    (sentence,) = conclude(summary_of(trial(0, outcome=Outcome.DIVERGED)))
    assert sentence == "No trial was trained to its end (1 diverged)."


def test_gain_of_more_than_there_is_has_no_per_cent() -> None:
    summary = summary_of(trial(0, "adam", 1e-19))
    for share, told in ((0.25, "gain 25.0% (0.22 of val_loss)."), (1e18, "gain 0.22 of val_loss.")):
        gain = ExpectedGain(trials=10, value=0.22, share=share)
        assert told in said(replace(summary, gain=gain))
    gain = ExpectedGain(trials=10, value=0.02, share=0.5, to_one=True)
    told = "gain 0.02 of val_loss, 50.0% of what is left to 1."
    assert told in said(replace(summary, gain=gain))


def test_a_ranking_on_few_trials_is_doubted() -> None:
    spec = make_spec(space={"optimizers": ["adam", "sgd", "muon"]})
    adam, sgd = (
        [trial(10 * k + n, name, 0.5) for n in range(5)] for k, name in enumerate(("adam", "sgd"))
    )
    assert "No comparison yet: every trial was of adam." in conclude(
        summary_of(*adam[:1], spec=spec)
    )
    none = "No comparison of optimizers is settled: each has fewer than 5 finished trials."
    assert none in conclude(summary_of(adam[0], sgd[0], spec=spec))
    # A failed trial compares nothing.
    some = conclude(
        summary_of(*adam, *sgd[:4], trial(30, "sgd", outcome=Outcome.FAILED), spec=spec)
    )
    assert "ettled" not in " ".join(some)  # the table and the advice say so
    assert "ettled" not in " ".join(conclude(summary_of(*adam, *sgd, spec=spec)))
    only = make_spec(space={"optimizers": ["adam"]})
    assert "omparison" not in " ".join(conclude(summary_of(adam[0], spec=only)))
