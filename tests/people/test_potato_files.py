"""Answers that were changed, stored twice or put together from several servers, in files as Potato writes them."""

import json
from pathlib import Path

import numpy as np
import pytest
from test_human_eval import ARMS, SIZES, write_run

from ddpo_lib.base.errors import InputError
from ddpo_lib.people.answers import read_answers
from ddpo_lib.people.human_eval import prepare

ITEM = "item-0001"


@pytest.fixture
def study(tmp_path) -> Path:
    prepare(write_run(tmp_path / "run", 4), ARMS, tmp_path / "out", **SIZES | {"checks": 0})
    return tmp_path / "out"


def change(at: float, question: str, option: str, **more) -> dict:
    made = {"timestamp": at, "schema_name": question, "label_name": option, "action": "select", "source": "user"}
    return made | {"old_value": None, "new_value": option} | more


def write(study: Path, stored: list, changes: list | None, place="ann", user="ann", end=9e8, name="user_state.json"):
    """One annotator's file: the options that are stored, and the trail of clicks; None: from before there was one."""
    labels = [
        [{"schema": question, "name": option}, value[0] if value else option] for question, option, *value in stored
    ]
    data = {} if changes is None else {"total_time_ms": 60000, "session_end": end, "annotation_changes": changes}
    state = {
        "user_id": user,
        "instance_id_to_label_to_value": {ITEM: labels},
        "instance_id_to_behavioral_data": {ITEM: data},
    }
    path = study / "study" / "annotation_output" / place / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(state), encoding="utf-8")
    return path


A = ("diversity", "Set A")
Q3, Q5 = ("quality", "3"), ("quality", "5")
BACK = [change(1, *Q3), change(2, *A), change(3, *Q5), change(4, *Q3)]


def result(study: Path) -> tuple:
    answers = read_answers(study)
    stories = answers.table["story"].tolist()
    return stories[0] if stories else None, answers.counts["duplicates"], answers.counts["uncertain"]


@pytest.mark.parametrize(
    ("stored", "changes", "expected"),
    [
        ([Q3, A], [change(1, *Q3), change(2, *A)], (3, 0, 0)),
        ([Q3, Q5, A], BACK, (3, 1, 0)),  # older Potato: each option once, in the order of its first click
        ([Q3, A], BACK, (3, 0, 0)),  # newer Potato keeps the last alone
        ([Q3, Q5, A], BACK[::-1], (3, 1, 0)),  # the times decide, not the order of the trail
        ([Q3, Q5, A], [change(1, *Q3), change(3, *Q5), change(2, *A)], (5, 1, 0)),
        ([Q3, Q5, A], [*BACK, change(5, *A), change(6, "other", "5")], (3, 1, 0)),
        ([Q3, Q5, A], [*BACK, change(5, *Q5, action="deselect")], (3, 1, 0)),
        ([Q3, Q5, A], [{**one, "timestamp": 1e9 + one["timestamp"]} for one in BACK], (3, 1, 0)),
        ([Q3, Q5, A], [{**one, "timestamp": 1.7e12 + one["timestamp"]} for one in BACK], (3, 1, 0)),
        ([Q3, Q5, A], [change(t, *Q5) if t == 3 else change(t, *Q3) for t in (1, 3, 4)], (3, 1, 0)),
        ([(*Q3, False), Q5, A], [], (5, 0, 0)),  # an option that is stored as not chosen
        ([Q3, Q5, A], [], (None, 1, 1)),  # nothing tells which click was the last
        ([Q3, Q5, A], None, (None, 1, 1)),
        ([Q3, Q5, A], [change(4, *Q3)], (None, 1, 1)),  # merged by hand: 5 is of a file whose trail is lost
        ([Q3, Q5, A], [{"schema_name": "quality", "action": "select"}, 7, None], (None, 1, 1)),
        ([Q3, Q5, A], [change("soon", *Q3), change(None, *Q5)], (None, 1, 1)),
        ([Q3], BACK, (None, 0, 0)),  # half answered
        ([], [], (None, 0, 0)),
    ],
)
def test_the_last_answer_by_time_or_uncertain(study, stored, changes, expected):
    write(study, stored, changes)
    assert result(study) == expected


def test_an_answer_to_the_second_question_that_was_taken_back(study):
    sides = [("diversity", "Set A"), ("diversity", "Set B")]
    clicks = [change(t, *of) for t, of in enumerate([Q3, sides[0], sides[1], sides[0]])]
    write(study, [Q3, *sides], clicks)
    assert read_answers(study).table["diversity_side"].tolist() == ["left"]


@pytest.mark.parametrize("place", ["ann-2", "server-2/ann", "server-2/annotation_output/ann"])
def test_folders_of_two_servers_put_together(study, place):
    """The same annotator at both: the later answer counts, whichever file is read first."""
    write(study, [Q5, A], [change(10, *Q5), change(11, *A)])
    write(study, [Q3, A], [change(20, *Q3), change(21, *A)], place)
    assert result(study) == (3, 1, 0)
    assert read_answers(study).counts["several_files"] == 1
    write(study, [Q3, A], [change(5, *Q3), change(6, *A)], place)
    assert result(study) == (5, 1, 0)
    write(study, [Q3], [change(20, *Q3)], place)  # half answered at the other: the last answer to each question
    assert result(study) == (3, 1, 0)
    write(study, [Q3, A], None, place)  # no times there
    assert result(study) == (None, 1, 1)
    write(study, [Q5, A], None, place)  # but the same answer
    assert result(study) == (5, 1, 0)


def test_copies_of_a_file_count_once_and_other_annotators_stay_apart(study):
    for name in ("user_state.json", "user_state (1).json", "user_state-server2.json"):
        write(study, [Q3, A], BACK, name=name)
    write(study, [Q5, A], [], place="bob", user="bob")
    answers = read_answers(study)
    assert answers.table["story"].tolist() == [3, 5]
    assert (answers.counts["annotators"], answers.counts["several_files"]) == (2, 1)


def test_a_file_without_behaviour_is_read(study):
    path = write(study, [Q3, A], [])
    state = json.loads(path.read_text())
    del state["instance_id_to_behavioral_data"]
    path.write_text(json.dumps(state))
    answers = read_answers(study)
    assert answers.table["story"].tolist() == [3]
    assert np.isnan(answers.table["seconds"].iloc[0])


NOT_A_LIST = {"user_id": "a", "instance_id_to_label_to_value": {}, "instance_id_to_behavioral_data": [1]}


@pytest.mark.parametrize("text", ["[" * 100_000, json.dumps(NOT_A_LIST)], ids=["deep", "no list"])
def test_what_is_no_file_of_potato_is_named(study, text):
    path = write(study, [], [])
    path.write_text(text)
    with pytest.raises(InputError, match="user_state") as error:
        read_answers(study)
    assert str(path) in str(error.value)
