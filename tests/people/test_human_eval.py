"""A study with people: what is drawn, what annotators see of it in the real Potato, and what is read back."""

import json
import re
import signal
import socket
import urllib.error
import urllib.request
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from annotator import CONSENT, INSTRUCTIONS, ITEM, WIDTH, Annotator, Served
from PIL import Image
from test_main import ddpo, error_line, refused, said
from tiny import tiny_model, tiny_tokenizer

from ddpo_lib.base.errors import InputError
from ddpo_lib.people import potato
from ddpo_lib.people.answers import COLUMNS, read_answers, read_items
from ddpo_lib.people.human_eval import opening, prepare, read_stories
from ddpo_lib.sampling.engines import Local

ARMS = ("dpo", "ddpo-both")  # the first is not the first of the alphabet
NASTY = [  # each shows as it stands, and nothing of it runs
    "</script><script>window.pwned = 1</script> <img src=x onerror='window.pwned = 1'>",
    "The data: javascript:alert(1) and expression(1), {condition.a} {{ 7 * 7 }} {% raw %}",
    "Tom & Jerry &amp; &lt;b&gt; \"quotes\" 'n' <b>bold</b> a<b>c <!-- no comment -->",
    "Ü 🥔 ‮\ttab\nsecond line: 1 < 2 > 0 \\ `tick` ${x}",
]
SIZES = {"prompts": 3, "items": 3, "labels": 2, "checks": 1, "show": "whole", "words": 100, "seed": 3}

# a page that is left while it saves aborts the request; that the answers arrived is tested by reading them
EXPECTED_ERRORS = ("Failed to load resource", "Error saving annotations: TypeError: Failed to fetch")


def write_run(folder: Path, prompts: int = 3, samples: int = 4, story=None) -> Path:
    """A run folder with the samples of both arms and of a third."""
    story = story or (lambda p, arm, s: f"{arm[:2]}{s} of prompt {p}. " + NASTY[(p + s) % 4])
    for arm in (*ARMS, "sft"):
        rows = [
            (f"p{p:03d}", f"Prompt {p} <i>&amp;", s, story(p, arm, s)) for p in range(prompts) for s in range(samples)
        ]
        table = pd.DataFrame(rows, columns=["prompt_id", "prompt", "sample", "text"])
        (folder / f"samples-{arm}").mkdir(parents=True)
        table.to_parquet(folder / f"samples-{arm}" / "samples.parquet")
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    return write_run(tmp_path_factory.mktemp("run") / "mine")


def tasks(study: Path) -> dict[str, str]:
    lines = (study / "study" / "tasks.jsonl").read_text().splitlines()
    return {task["id"]: task["page"] for task in map(json.loads, lines)}


# What is drawn


def test_a_study_is_the_same_for_the_same_seed_and_another_for_another(run, tmp_path):
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        prepare(run, ARMS, tmp_path / name, **SIZES | {"seed": seed})
    read = {name: [(tmp_path / name / f).read_bytes() for f in ("key.json", "study/tasks.jsonl")] for name in "abc"}
    assert read["a"] == read["b"]
    assert read["a"][1] != read["c"][1]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b", "c"]


def test_every_prompt_is_an_item_with_all_its_stories_and_sides_are_balanced(tmp_path):
    key = prepare(write_run(tmp_path / "run", 10), ARMS, tmp_path / "out", **SIZES | {"prompts": 10, "items": 5})
    assert key["arms"] == list(ARMS)
    assert key["prompts"] == 10
    real = [item for item in key["items"].values() if not item["attention"]]
    assert sorted(item["prompt_id"] for item in real) == [f"p{p:03d}" for p in range(10)]
    for item in real:
        arms = [story["arm"] for story in item["stories"]]
        first, second = ARMS if item["first_side"] == "left" else ARMS[::-1]
        assert arms == [first] * 4 + [second] * 4
        assert sorted(story["sample"] for story in item["stories"][:4]) == [0, 1, 2, 3]
    for block in (real[:5], real[5:]):
        assert sum(item["first_side"] == "left" for item in block) in (2, 3)
    assert len({tuple(story["sample"] for story in item["stories"]) for item in real}) > 5


def test_a_block_holds_its_checks_one_story_four_times_against_four(tmp_path):
    sizes = SIZES | {"prompts": 8, "items": 4, "checks": 2}
    key = prepare(write_run(tmp_path / "run", 10), ARMS, tmp_path / "out", **sizes)
    items = list(key["items"].values())
    used = {item["prompt_id"] for item in items if not item["attention"]}
    assert [sum(item["attention"] for item in block) for block in (items[:6], items[6:])] == [2, 2]
    assert not items[0]["attention"]
    for check in (item for item in items if item["attention"]):
        sets = [{(s["arm"], s["sample"]) for s in check["stories"][4 * side : 4 * side + 4]} for side in (0, 1)]
        varied, same = sets if check["first_side"] == "left" else sets[::-1]
        assert (len(varied), len(same)) == (4, 1)
        assert not varied & same
        assert check["prompt_id"] not in used  # two prompts are left over


def test_what_annotators_reach_says_nothing_of_the_arms(run, tmp_path):
    key = prepare(run, ARMS, tmp_path / "out", **SIZES)
    served = {path.name: path.read_text() for path in (tmp_path / "out" / "study").iterdir()}
    assert set(served) == {"config.yaml", "consent.json", "instructions.html", "study.css", "tasks.jsonl"}
    for name, text in served.items():
        for told in (*ARMS, "first_side", "attention", "p000", "sha256"):
            assert told not in text, name
    assert list(tasks(tmp_path / "out")) == list(key["items"]) == [f"item-{i:04d}" for i in range(1, 5)]
    digest = key["generations"]["dpo"]
    assert digest["file"] == "samples-dpo/samples.parquet"
    assert len(digest["sha256"]) == 64
    assert json.loads((tmp_path / "out" / "key.json").read_text()) == key


def test_nothing_of_a_story_reaches_the_page_as_markup(run, tmp_path):
    prepare(run, ARMS, tmp_path / "out", **SIZES)
    for page in tasks(tmp_path / "out").values():
        for markup in ("<script", "</script", "<img", "<i>", "<b>", "<!--", "data:", "javascript:", "expression("):
            assert markup not in page


@pytest.mark.parametrize(
    ("text", "words", "shown"),
    [
        ("one two three", 3, "one two three"),
        ("one two three", 2, "one two …"),
        ("  one\n\ntwo  three ", 2, "  one\n\ntwo …"),
        ("", 2, ""),
    ],
)
def test_an_opening_is_the_first_words_with_their_lines(text, words, shown):
    assert opening(text, words) == shown


def test_openings_are_cut_and_checks_are_made_of_what_is_shown(tmp_path):
    run = write_run(tmp_path / "run", story=lambda p, arm, s: f"Once upon a time {arm} {s}")
    with pytest.raises(InputError, match="no prompt has 5 different stories"):
        prepare(run, ARMS, tmp_path / "out", **SIZES | {"show": "opening", "words": 4})
    assert not (tmp_path / "out").exists()
    prepare(run, ARMS, tmp_path / "out", **SIZES | {"show": "opening", "words": 4, "checks": 0})
    assert all(page.count("<p>Once upon a time …</p>") == 8 for page in tasks(tmp_path / "out").values())


def test_blank_stories_say_so_and_samples_beyond_four_are_left_out(tmp_path):
    run = write_run(tmp_path / "run", samples=6, story=lambda p, arm, s: " " if s == 2 else f"text {s}")
    stories = read_stories(run, ARMS)
    assert sorted(set(stories["text"])) == ["(empty)", "text 0", "text 1", "text 3"]
    assert stories.groupby(["prompt_id", "arm"]).size().eq(4).all()


def test_prompts_that_one_arm_lacks_are_no_items(tmp_path):
    run = write_run(tmp_path / "run", 6)
    path = run / "samples-dpo" / "samples.parquet"
    table = pd.read_parquet(path)
    table.drop(index=[0, 23]).to_parquet(path)  # the first and the last prompt are left with three
    assert sorted(set(read_stories(run, ARMS)["prompt_id"])) == ["p001", "p002", "p003", "p004"]


@pytest.mark.parametrize(
    ("arms", "said"),
    [
        (("dpo", "dpo"), "two different arms"),
        (("dpo", "orpo"), "no samples of `orpo` .*it has samples of ddpo-both, dpo, sft"),
    ],
)
def test_arms_that_cannot_be_compared(run, tmp_path, arms, said):
    with pytest.raises(InputError, match=said):
        prepare(run, arms, tmp_path / "out", **SIZES)
    assert not list(tmp_path.iterdir())


def test_too_few_stories_a_prompt(tmp_path):
    run = write_run(tmp_path / "run", samples=3)
    with pytest.raises(InputError, match="no prompt has 4 stories of dpo and 4 of ddpo-both"):
        prepare(run, ARMS, tmp_path / "out", **SIZES)


def test_a_study_that_exists_is_never_written_over(run, tmp_path):
    (tmp_path / "out").mkdir()
    with pytest.raises(InputError, match="exists already"):
        prepare(run, ARMS, tmp_path / "out", **SIZES)


def test_the_command_prepares_and_says_when_there_are_fewer_prompts(run, tmp_path):
    words = ("annotate", "prepare", run, "--arms", *ARMS, "--out")
    told = said(*words, tmp_path / "new" / "study")
    assert "3 items (100 were asked for; the arms share no more), 3 labels each, for 3 annotators" in told
    assert (tmp_path / "new" / "study" / "key.json").exists()
    assert "exists already" in refused(*words, tmp_path / "new" / "study")
    assert "leave out model" in refused(*words, tmp_path / "odd", "--model", "x")


# Summaries


def test_the_instruction_of_a_summary_is_really_sent_and_kept_with_story_and_answer(tmp_path):
    run = write_run(tmp_path / "run", 1, story=lambda p, arm, s: f"{arm} the old dog number {s} sat near {{prompt}}")
    told = []

    def render(messages):
        told.append(messages)
        return messages[-1]["content"]

    sizes = SIZES | {"prompts": 1, "checks": 0, "show": "summary", "words": 5}
    prepare(run, ARMS, tmp_path / "out", **sizes, engine=Local(tiny_model(), tiny_tokenizer(), render))
    rows = [json.loads(line) for line in (tmp_path / "out" / "stories.jsonl").read_text().splitlines()]
    assert [[{"role": "user", "content": row["sent"]}] for row in rows] == told[-8:]  # before, for the journal
    for row in rows:
        assert row["sent"].startswith("Summarise the plot of the story below in about 5 words.")
        assert row["sent"].endswith(f"\n\n{row['text']}")  # a {prompt} of the story's own stays
        assert row["shown"].strip()
    (page,) = tasks(tmp_path / "out").values()
    assert sorted(re.findall(r"<p>([^<]*)</p>", page)[1:]) == sorted(potato.escape(row["shown"]) for row in rows)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "run"]
    (item,) = read_items(tmp_path / "out").itertuples()
    assert sorted(item.first + item.second) == sorted(row["shown"] for row in rows)


# The same items for another reader


@pytest.mark.parametrize("show", ["whole", "opening"])
def test_items_are_what_annotators_see_with_each_set_under_its_arm(run, tmp_path, show):
    prepare(run, ARMS, tmp_path / "out", **SIZES | {"show": show, "words": 7})
    items, pages = read_items(tmp_path / "out"), tasks(tmp_path / "out")
    key = read_answers(tmp_path / "out").key
    assert items["item"].tolist() == [name for name, item in key["items"].items() if not item["attention"]]
    for row in items.itertuples():
        sets = [row.first, row.second]
        assert [{story[:2] for story in one} for one in sets] == [{"dp"}, {"dd"}]
        left, right = sets if key["items"][row.item]["first_side"] == "left" else sets[::-1]
        assert pages[row.item] == potato.render(row.prompt, left, right)
        assert row.prompt == f"Prompt {int(row.prompt_id[1:])} <i>&amp;"


def test_stories_that_are_not_those_of_the_key_are_named(prepared):
    path = prepared / "stories.jsonl"
    lines = path.read_text(encoding="utf-8").split("\n")
    for text in (lines[0] + "\n", "[]\n", "{"):
        path.write_text(text, encoding="utf-8")
        with pytest.raises(InputError, match=r"stories\.jsonl: not the stories of this key"):
            read_items(prepared)
    path.unlink()
    with pytest.raises(InputError, match=r"stories\.jsonl: no such file"):
        read_items(prepared)


# What annotators see and do: the real Potato in a real browser


@pytest.fixture(scope="module")
def study(run, tmp_path_factory, browser):
    """The folder of a study, two annotators who did it at once with all that can come between, what they saw."""
    folder = tmp_path_factory.mktemp("served") / "out"
    prepare(run, ARMS, folder, **SIZES)
    served = Served(folder)
    found = {}
    try:
        ann, bob = (Annotator(browser, served, name) for name in ("ann", "bob"))
        ann.begin()
        found["text"] = {ann.wait(): ann.page.inner_text(".sets")}
        found["source"] = ann.page.content()
        found["pwned"] = ann.page.evaluate("window.pwned")
        found["columns"] = ann.page.eval_on_selector_all(
            ".set", "all => all.map(one => one.getBoundingClientRect()).map(box => [box.left, box.right, box.top])"
        )
        ann.answer("3", "Set A")
        ann.next()
        bob.begin()
        ann.wait()
        ann.click("quality", "8")
        ann.page.click("#next-btn")  # refused, with one question open
        found["stays"] = ann.wait()
        ann.page.reload()
        found["after reload"] = ann.chosen()
        bob.answer("Hard to decide", "Set B")
        ann.click("diversity", "Set B")
        ann.clicked[ann.wait()] = "8", "Set B"
        served.stop(signal.SIGKILL)
        served.start()
        bob.page.reload()
        ann.page.reload()
        found["after kill"] = ann.chosen(), bob.chosen()
        for person, answers in (
            (ann, [("1", "Hard to decide"), ("5", "Set A")]),
            (bob, [("4", "Set A"), ("6", "Set B")]),
        ):
            for best, diverse in answers:
                person.next()
                person.answer(best, diverse)
        ann.click("quality", "7")  # changes their mind
        ann.clicked[ann.wait()] = "7", "Set A"
        ann.next()
        bob.next()
        bob.wait()
        bob.click("quality", "5")  # and leaves with one question open
        ann.page.wait_for_load_state()
        found["end"] = ann.page.inner_text("body")
        cid = Annotator(browser, served, "cid")
        cid.page.get_by_label("No, I do not take part").check()
        cid.next()
        found["refused"] = cid.page.inner_text("body")
        found["files"] = reach(served, "/key.json", "/media/key.json", "/media/../key.json", "/static/../../key.json")
        found["admin"] = reach(served, "/admin/api/annotators", "/admin/user_state/ann", "/admin/all_instances")
    except BaseException:
        served.stop(signal.SIGKILL)
        raise
    found["status"] = served.stop(signal.SIGTERM)
    return folder, ann, bob, found


def reach(served: Served, *places: str) -> list[int]:
    statuses = []
    for place in places:
        try:
            statuses.append(urllib.request.urlopen(served.address + place, timeout=10).status)
        except urllib.error.HTTPError as error:
            statuses.append(error.code)
    return statuses


def test_every_story_shows_as_it_was_written(study):
    folder, *_, found = study
    key = read_answers(folder).key
    ((name, text),) = found["text"].items()
    assert found["pwned"] is None
    places = key["items"][name]["stories"]
    words = " ".join(text.split())
    for place, story in enumerate(places, 1):
        p, s = int(key["items"][name]["prompt_id"][1:]), story["sample"]
        written = f"{story['arm'][:2]}{s} of prompt {p}. " + NASTY[(p + s) % 4]
        assert f"{place} {' '.join(written.split())}" in words


def test_two_columns_stand_side_by_side(study):
    *_, found = study
    (_, right, top), (left, _, other_top) = found["columns"]
    assert right <= left
    assert top == other_top


def test_the_page_tells_nothing_of_the_arms_and_asks_nothing_of_other_machines(study):
    _, ann, bob, found = study
    for told in (*ARMS, "first_side", "prompt_id", "attention"):
        assert not re.search(rf"\b{told}\b", found["source"]), told
    assert set(found["files"]) <= {403, 404}
    assert found["admin"] == [403] * 3
    for person in (ann, bob):
        assert [error for error in person.watched.errors if not error.startswith(EXPECTED_ERRORS)] == []
        assert {url.split("/")[2] for url in person.watched.requests if url.startswith("http")} == {
            person.page.url.split("/")[2]
        }


def test_nothing_is_lost_by_a_reload_a_question_left_open_or_a_kill(study):
    _, ann, _, found = study
    assert found["stays"] == list(ann.clicked)[1]
    assert found["after reload"] == ["8"]
    assert found["after kill"] == (["8", "Set B"], ["Hard to decide", "Set B"])
    assert "Next" not in found["end"]
    assert "You do not take part" in found["refused"]
    assert found["status"] == 0


def test_the_answers_are_those_that_were_clicked(study):
    folder, ann, bob, _ = study
    answers = read_answers(folder)
    table, key = answers.table, answers.key
    assert list(table.columns) == list(COLUMNS)
    assert len(ann.clicked) == 4
    assert len(bob.clicked) == 3
    sides = {"Set A": "left", "Set B": "right", "Hard to decide": "tie"}
    for person in (ann, bob):
        rows = table[table["annotator"] == person.name].set_index("item")
        assert sorted(rows.index) == sorted(person.clicked)
        for item, (best, diverse) in person.clicked.items():
            row, known = rows.loc[item], key["items"][item]
            assert row["prompt_id"] == known["prompt_id"]
            assert row["diversity_side"] == sides[diverse]
            if best == "Hard to decide":
                assert (row["quality_side"], row["story"] is pd.NA) == ("tie", True)
            else:
                assert (row["quality_side"], row["story"]) == ("right" if int(best) > 4 else "left", int(best))
            if known["attention"]:
                assert (row["quality"], row["diversity"]) == ("tie", "tie")
                assert row["passed"] == (sides[diverse] == known["first_side"])
                continue
            assert row["passed"] is pd.NA
            if best != "Hard to decide":
                arm = known["stories"][int(best) - 1]["arm"]
                assert row["quality"] == ("first" if arm == ARMS[0] else "second")
            expected = "tie" if diverse == "Hard to decide" else None
            expected = expected or ("first" if sides[diverse] == known["first_side"] else "second")
            assert row["diversity"] == expected
            assert 0 < row["seconds"] < 60
    failed = int((table["passed"] == False).sum())  # noqa: E712, missing is neither
    real = int((~table["attention"]).sum())
    assert answers.counts == {
        "annotators": 2,
        "items": 3,
        "answers": real,
        "unfinished": 1,
        "duplicates": 0,
        "uncertain": 0,
        "attention_failed": failed,
        "several_files": 0,
    }


def test_the_analysis_gives_the_win_rates_that_were_clicked(study, tmp_path):
    folder, ann, bob, _ = study
    told = said("annotate", "analyse", folder, "--out", tmp_path / "found.json")
    found = json.loads((tmp_path / "found.json").read_text())
    items = json.loads((folder / "key.json").read_text())["items"]
    expected = {"quality": Counter(), "diversity": Counter()}
    for person in (ann, bob):
        for name, (best, diverse) in person.clicked.items():
            if items[name]["attention"]:
                continue
            chosen = best.isdigit() and items[name]["stories"][int(best) - 1]["arm"]  # as the key numbers them
            expected["quality"][chosen or "tie"] += 1
            first_of_set = {"Set A": 0, "Set B": 4}.get(diverse)
            expected["diversity"]["tie" if first_of_set is None else items[name]["stories"][first_of_set]["arm"]] += 1
    assert found["arms"] == list(ARMS)
    assert found["answers"] == sum(expected["quality"].values()) == 5  # and one that bob left half done
    for question, clicked in expected.items():
        counted = [found[question]["labels"][kind] for kind in ("first", "second", "ties")]
        assert counted == [clicked[ARMS[0]], clicked[ARMS[1]], clicked["tie"]]
        shares = [found[question][kind]["mean"] for kind in ("first", "second", "tie")]
        assert shares == pytest.approx([count / 5 for count in counted])
    assert "first is dpo, second is ddpo-both" in told
    assert len(found["annotators"]) == found["counts"]["annotators"] == 2


def test_items_that_someone_left_go_to_others_with_the_checks_among_them(tmp_path, browser):
    """By the requests that a page makes, which is faster than clicking."""
    key = prepare(write_run(tmp_path / "run", 6), ARMS, tmp_path / "out", **SIZES | {"prompts": 6, "labels": 1})
    served = Served(tmp_path / "out")
    try:
        done = [work(browser, served, name, most) for name, most in (("ann", 1), ("bob", 9), ("cid", 9), ("dora", 9))]
    finally:
        served.stop(signal.SIGTERM)
    assert [len(items) for items in done] == [1, 4, 3, 0]
    assert sorted(item for items in done for item in items) == list(key["items"])
    assert all(any(key["items"][item]["attention"] for item in items) for items in done[1:3])
    assert len(read_answers(tmp_path / "out").table) == 8


def work(browser, served: Served, name: str, most: int) -> list[str]:
    """Sign in, agree, and answer items until there are no more, or that many."""
    with browser.new_context() as context:
        request, did = context.request, []

        def post(place: str, **data):
            return request.post(served.address + place, data=data)

        request.post(f"{served.address}/auth", form={"email": name, "action": "login"})
        post("/updateinstance", instance_id="__phase_page__", annotations={"consent:Yes, I take part": "1"})
        post("/annotate", action="next_instance")
        post("/annotate", action="next_instance")
        while len(did) < most:
            page = request.get(f"{served.address}/annotate").text()
            shown = re.search(r'<input[^>]*id="instance_id"[^>]*value="(item-\d+)"', page)
            if not shown:
                break
            did.append(shown[1])
            post("/updateinstance", instance_id=shown[1], annotations={"quality:1": "1", "diversity:Set A": "Set A"})
            post("/annotate", action="next_instance")
    return did


# What is read back


def write_answers(folder: Path, annotator: str, answers: dict, place: str | None = None, seconds: float = 5.0) -> Path:
    """A file as Potato writes it: by item, the labels of the two questions."""
    state = {
        "user_id": annotator,
        "instance_id_to_label_to_value": {
            item: [[{"schema": schema, "name": name}, name] for schema, name in labels]
            for item, labels in answers.items()
        },
        "instance_id_to_behavioral_data": {
            item: {"total_time_ms": 1000 * seconds, "session_end": 1e9 + seconds} for item in answers
        },
    }
    path = folder / "study" / "annotation_output" / (place or annotator) / "user_state.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(state))
    return path


@pytest.fixture
def prepared(run, tmp_path) -> Path:
    prepare(run, ARMS, tmp_path / "out", **SIZES)
    return tmp_path / "out"


def both(best: str, diverse: str) -> list[tuple[str, str]]:
    return [("quality", best), ("diversity", diverse)]


def test_a_study_without_answers_has_an_empty_table_of_the_right_types(prepared):
    answers = read_answers(prepared)
    assert answers.table.dtypes.astype(str).to_dict() == COLUMNS
    assert set(answers.counts.values()) == {0}
    assert answers.key["arms"] == list(ARMS)


def test_second_answers_and_second_files_are_counted_and_the_last_is_kept(prepared):
    items = [name for name, item in read_answers(prepared).key["items"].items() if not item["attention"]]
    write_answers(prepared, "ann", {items[0]: both("1", "Set A"), items[1]: both("2", "Set A")}, seconds=5)
    write_answers(prepared, "ann", {items[0]: both("7", "Set B")}, place="copy", seconds=3)
    write_answers(prepared, "bob", {items[0]: [("quality", "1"), ("quality", "6"), ("diversity", "Set A")]})
    answers = read_answers(prepared)
    assert answers.table["story"].tolist() == [1, 2]
    assert (answers.counts["duplicates"], answers.counts["answers"], answers.counts["annotators"]) == (2, 2, 1)
    assert (answers.counts["uncertain"], answers.counts["several_files"]) == (1, 1)  # nothing tells bob's last click


def test_who_answered_a_check_alone_is_no_annotator_of_the_study(prepared):
    items = read_answers(prepared).key["items"]
    (check,) = (name for name, item in items.items() if item["attention"])
    right = {"left": "Set A", "right": "Set B"}[items[check]["first_side"]]
    wrong = {"Set A": "Set B", "Set B": "Set A"}[right]
    write_answers(prepared, "ann", {check: both("1", right)})
    write_answers(prepared, "bob", {check: both("1", wrong), next(iter(items)): both("1", "Set A")})
    answers = read_answers(prepared)
    checks = answers.table[answers.table["attention"]].set_index("annotator")
    assert checks["passed"].to_dict() == {"ann": True, "bob": False}
    assert set(checks["quality"]) == set(checks["diversity"]) == {"tie"}
    counted = {name: answers.counts[name] for name in ("annotators", "items", "answers", "attention_failed")}
    assert counted == {"annotators": 1, "items": 1, "answers": 1, "attention_failed": 1}


def test_half_answered_items_and_unknown_times(prepared):
    names = list(read_answers(prepared).key["items"])
    path = write_answers(prepared, "ann", {names[0]: [("quality", "1")], names[1]: both("1", "Set A"), names[2]: []})
    state = json.loads(path.read_text()) | {"instance_id_to_behavioral_data": {}}
    path.write_text(json.dumps(state))
    answers = read_answers(prepared)
    assert answers.table["item"].tolist() == [names[1]]
    assert np.isnan(answers.table["seconds"].iloc[0])
    assert answers.counts["unfinished"] == 1


@pytest.mark.parametrize(
    ("answers", "said"),
    [
        ({"item-9999": [("quality", "1")]}, "item item-9999: the key has no such item"),
        ({"item-0001": [("quality", "9")]}, "item item-0001, field `quality`: unknown answer '9'"),
        ({"item-0001": [("diversity", "3")]}, "item item-0001, field `diversity`: unknown answer '3'"),
    ],
)
def test_answers_that_cannot_be_are_errors_that_name_file_item_and_field(prepared, answers, said):
    path = write_answers(prepared, "ann", answers)
    with pytest.raises(InputError, match=said) as error:
        read_answers(prepared)
    assert str(path) in str(error.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"user_id": "ann", ', "cannot be read as JSON"),
        ('{"user_id": "ann"}', "field `instance_id_to_label_to_value`"),
        ("[]", "field `user_id`"),
        (
            '{"user_id": "a", "instance_id_to_label_to_value": {"item-0001": [1]}, '
            '"instance_id_to_behavioral_data": {}}',
            "item item-0001, field `instance_id_to_label_to_value`",
        ),
        *(
            (
                '{"user_id": "a", "instance_id_to_label_to_value": {"item-0001": []}, '
                f'"instance_id_to_behavioral_data": {{"item-0001": {timing}}}}}',
                "item item-0001, field `instance_id_to_behavioral_data`",
            )
            for timing in ("[1]", '{"total_time_ms": "soon"}', '{"session_end": [1]}')
        ),
    ],
)
def test_files_that_cannot_be_read_are_named(prepared, text, said):
    path = write_answers(prepared, "ann", {})
    path.write_text(text)
    with pytest.raises(InputError, match=said) as error:
        read_answers(prepared)
    assert str(path) in str(error.value)


def test_a_missing_folder_and_a_broken_key_are_named(prepared, tmp_path):
    with pytest.raises(InputError, match=r"none/key\.json: no such file"):
        read_answers(tmp_path / "none")
    for broken in (
        "{",
        "[]",
        '{"arms": ["a", "b"], "items": {"item-0001": {"first_side": "left"}}}',
        '{"arms": ["a", "b"], "items": {"item-0001": {}}}',
        '{"arms": ["a"], "items": {}}',
    ):
        (prepared / "key.json").write_text(broken)
        with pytest.raises(InputError, match=r"key\.json"):
            read_answers(prepared)


# The server


def test_a_folder_without_a_study_is_not_served(tmp_path):
    assert "contains no study" in refused("annotate", "serve", tmp_path)


def test_a_port_that_is_taken_is_named(prepared):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        told = refused("annotate", "serve", prepared, "--port", port)
        assert f"port {port}: another program already listens there" in told


def test_a_server_that_does_not_start_says_why(prepared):
    (prepared / "study" / "tasks.jsonl").unlink()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    line = error_line(ddpo("annotate", "serve", prepared, "--port", port))
    assert re.search(r"Potato stopped with status 1 \(.*tasks\.jsonl.*\); its log is .*potato\.log", line)


def test_without_potato_the_error_says_what_to_install(prepared, monkeypatch):
    def missing(name):
        raise potato.importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(potato.importlib.metadata, "version", missing)
    with pytest.raises(InputError, match=r"pip install 'ddpo-lib\[annotate\]'"):
        potato.start(prepared, 8000)


@pytest.mark.parametrize("place", [CONSENT, INSTRUCTIONS, ITEM], ids=lambda place: place.stem)
def test_the_pictures_in_the_book_fit_a_page(place):
    with Image.open(place) as picture:
        assert picture.width == WIDTH
    assert place.stat().st_size < 200_000
