from __future__ import annotations

from tuner.domain.fuse_plan import FusePlan
from tuner.service.study_progress import StudyProgress
from tuner.store import Database, StudyHandle
from tuner.store.plans import keep_plan


def test_how_trials_train_is_told_once_it_is_known(database: Database, study: StudyHandle) -> None:
    progress = StudyProgress(database, study, "auto")
    assert list(progress.announcements()) == []
    plan = FusePlan(8, trials=study.spec.budget.trials, reason="quicker")
    keep_plan(database, study, "auto on cpu", plan)
    assert list(progress.announcements()) == ["Up to 8 trials as one: quicker."]
    assert list(progress.announcements()) == []
    assert list(StudyProgress(database, study, "off").announcements()) == []
