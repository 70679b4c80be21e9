"""What people write in a study's note is never lost, whatever tuner puts above it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tuner.service.dashboard.notes import compose, strip, with_answer

TEXT = st.text(st.characters(exclude_categories=["Cs", "Cc"], include_characters="\n"), max_size=80)
PART = "dashboard:note_str:"


@given(TEXT, TEXT)
def test_what_people_write_is_read_back_as_it_was(answer: str, own: str) -> None:
    assert strip(compose(answer, own)) == own


@given(TEXT, TEXT, TEXT)
def test_another_answer_takes_the_place_of_the_former_one(old: str, new: str, own: str) -> None:
    saved = compose(old, own)
    assert compose(new, strip(saved)) == compose(new, own)


@given(TEXT.filter(str.strip), st.integers(0, 80), TEXT)
def test_letters_put_anywhere_into_a_note_are_kept(typed: str, at: int, own: str) -> None:
    note = compose("Use adam: 0.25.", own)
    at = min(at, len(note))
    edited = note[:at] + typed + note[at:]
    kept = strip(edited)
    assert typed.strip() in kept or (typed.strip() in edited.replace("\n\n", "\n") and own in kept)


def test_an_answer_whose_mark_was_deleted_is_somebody_s_text() -> None:
    note = compose("Use adam.", "Mine.")
    without = "\n".join(line for line in note.split("\n") if not line.startswith("[//]"))
    assert strip(without) == without


def test_line_ends_of_other_systems_do_not_make_an_answer_somebody_s() -> None:
    assert strip(compose("Use adam.\n\nIt is best.", "Mine.").replace("\n", "\r\n")) == "Mine."


def test_note_in_parts_gets_one_answer_and_keeps_its_version() -> None:
    own = "x" * 3000
    stored = compose("An old answer.", own)
    parts = {f"{PART}{at}": stored[2045 * at : 2045 * (at + 1)] for at in range(2)}
    attributes = {"dashboard:note_ver": 7, f"{PART}2": "", "other": 1, **parts}
    shown = with_answer(attributes, "A new answer.")
    assert shown == {
        "dashboard:note_ver": 7,
        "other": 1,
        f"{PART}0": compose("A new answer.", own),
    }


def test_study_without_a_note_has_the_answer_in_its_version_0() -> None:
    shown = with_answer({}, "Use adam.")
    assert shown["dashboard:note_ver"] == 0
    assert strip(shown[f"{PART}0"]) == ""
