"""Each answer of the table `recorded`, sent to the real client: what becomes of its prompt and of the others."""

import json
import logging
import re
import time

import pandas as pd
import pytest
from recorded import TABLE, google, message, openai
from scripted import Scripted, Sent, chat

from ddpo_lib.base.errors import InputError
from ddpo_lib.profiles.settings import Sampling
from ddpo_lib.protocol.faults import read_fault
from ddpo_lib.sampling.generate import generate
from ddpo_lib.sampling.server import Server

ALL = ["temperature", "top_p", "top_k", "repetition_penalty"]
ONE = Sampling(samples=2, max_new_tokens=64, temperature=1.5).model_copy(update={"samples": 1})
SEVERAL = ONE.model_copy(update={"samples": 4})


@pytest.fixture(scope="module")
def running():
    server = Scripted()
    yield server
    server.close()


@pytest.fixture
def server(running):
    running.answers, running.seen, running.rule, running.software = [], [], None, "scripted"
    return running


@pytest.fixture
def ask(server):
    """Sample from a client that is opened anew, as a command does."""

    def ask(prompts, sampling=ONE, journal=None, how="plain", **options):
        options = {"sends": ALL, "pause": 0.0, "timeout": 0.3} | options
        return generate(Server(server.url, "m", **options), prompts, sampling, 0, how=how, journal=journal)

    return ask


def prompts(number: int) -> pd.DataFrame:
    return pd.DataFrame(
        {"prompt_id": [f"p{i}" for i in range(number)], "prompt": [f"Prompt {i}" for i in range(number)]}
    )


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.name)
def test_what_follows_from_an_answer(server, ask, row, tmp_path, caplog):
    server.answers, journal = [row.sent], tmp_path / "journal"
    if row.then in ("ends", "fails"):
        with pytest.raises(InputError, match=row.says) as error:
            ask(prompts(2), journal=journal)
        kept = len(journal.read_text(encoding="utf-8").splitlines()) - 1
        assert kept == (row.then == "fails")
        assert f"{kept} of 2 prompts are kept" in str(error.value)
        assert len(server.seen) == 1 + kept
        assert len(ask(prompts(2), journal=journal)) == 2  # the same command goes on
        return
    made = ask(prompts(2), journal=journal)
    first = made.iloc[0]
    assert made["text"].tolist()[1].startswith("Story")
    assert (first["refused"], first["only_thoughts"]) == (row.then == "refused", row.then == "thoughts")
    counts, requests = made.attrs["answers"], len(server.seen)
    if row.then in ("refused", "thoughts"):
        assert first["text"] == ""
        assert "no measure counts them" in caplog.text
        assert requests == 2
    elif row.then == "text":
        assert first["text"] == row.says
        assert requests == 2
        assert counts["halves"] == ("\ufffd" in row.says)
    else:
        assert first["text"].startswith("Story")
        assert requests == 3
    if row.then == "again":
        assert server.seen[0] == server.seen[1]
    if row.then == "left out":
        for body in server.seen[1:]:
            assert {name for name in ALL if name not in body} == set(row.says)
            assert all(body[name] == getattr(ONE, name) for name in ALL if name in body)
        assert counts["left_out"] == dict.fromkeys(row.says, 2)
        assert "is left out from now on" in caplog.text
    if row.then == "fits":
        assert server.seen[1].items() >= row.says.items()
        assert "max_completion_tokens" not in row.says or "max_tokens" not in server.seen[1]
    again = ask(prompts(2), journal=journal)
    pd.testing.assert_frame_equal(made, again)  # what is in the journal is the whole answer
    assert len(server.seen) == requests


WORDS = {
    "429": r"too many requests \(429\), after 1 retries",
    "500": r"fails \(500\), after 1 retries",
    "503": r"is overloaded \(503\), after 1 retries",
    "no answer in time": "no answer within 0.3 s, after 1 retries; a profile's `timeout`",
    "a reset connection": "cannot be reached, or cut the connection, after 1 retries",
    "200 with nothing": "an answer that cannot be read, and no chat completion, after 1 retries",
    "200 without choices": "JSON without choices",
}


@pytest.mark.parametrize("row", [row for row in TABLE if row.then == "again"], ids=lambda row: row.name)
def test_repetitions_are_bounded_and_others_go_on(server, ask, row, tmp_path):
    def rule(body):
        return row.sent if body["messages"][0]["content"] == "Prompt 1" else None

    server.rule = rule
    with pytest.raises(InputError, match="2 of 3 prompts are kept") as error:
        ask(prompts(3), retries=1, journal=tmp_path / "journal")
    assert len(server.seen) == 4
    assert re.search(WORDS.get(row.name, WORDS.get(row.name.split(",")[0], "after 1 retries|JSON")), str(error.value))


def test_what_stays_empty_is_kept_as_refused_where_others_are_answered(server, ask):
    server.rule = lambda body: Sent(body=chat()) if body["messages"][0]["content"] == "Prompt 1" else None
    made = ask(prompts(3))
    assert made["refused"].tolist() == [False, True, False]


def test_a_refusal_that_no_change_can_mend_ends(server, ask):
    refusal = Sent(400, openai("Unsupported parameter: 'temperature'", "unsupported_parameter", "temperature"))
    server.answers = [refusal] * 50
    with pytest.raises(InputError, match=r"refuses the request \(400\).*--sends"):
        ask(prompts(1), SEVERAL)
    assert len(server.seen) == 3  # once without the setting, then without `n`


def test_a_server_that_takes_almost_nothing(server, ask, caplog):
    def rule(body):
        if "max_tokens" in body:
            return Sent(400, openai("Unsupported parameter. Use 'max_completion_tokens' instead.", None, "max_tokens"))
        for name in ALL:
            if name in body:
                return Sent(400, openai(f"Unsupported parameter: '{name}' is not supported.", None, name))
        if body.get("n"):
            return Sent(400, openai("'n' : number must be at most 1"))
        return None

    server.rule = rule
    with caplog.at_level(logging.INFO):
        made = ask(prompts(2), SEVERAL)
    assert made["text"].str.startswith("Story").all()
    assert set(server.seen[-1]) == {"model", "messages", "max_completion_tokens"}
    assert len(server.seen) == 6 + 8
    assert made.attrs["answers"]["left_out"] == dict.fromkeys(ALL, 8)
    assert caplog.text.count("is left out from now on") == 4


def test_a_resumed_run_begins_with_what_it_had_learned_and_says_if_samples_differ(server, ask, tmp_path, caplog):
    first = {"prompt": "Prompt 0"}
    refusal = Sent(400, openai("Unsupported parameter: 'top_p'", "unsupported_parameter", "top_p"))
    server.rule = lambda body: (
        refusal if "top_p" in body and body["messages"][0]["content"] != first["prompt"] else None
    )
    made = ask(prompts(3), journal=tmp_path / "journal")
    assert made.attrs["answers"]["left_out"] == {"top_p": 2}  # the first prompt was drawn with it
    assert "2 of 3 answers were drawn without top_p; the others were drawn with it" in caplog.text
    lines = (tmp_path / "journal").read_text().splitlines(keepends=True)
    (tmp_path / "journal").write_text("".join(lines[:3]))
    server.seen.clear()
    server.rule = None  # now it would take it
    ask(prompts(3), journal=tmp_path / "journal")
    assert len(server.seen) == 1
    assert "top_p" not in server.seen[0]


def test_all_samples_of_a_refused_prompt_are_kept_as_refused(server, ask, caplog):
    refusal = Sent(400, openai("The prompt was filtered.", "content_filter"))
    server.rule = lambda body: refusal if "1" in body["messages"][0]["content"] else None
    made = ask(prompts(3), SEVERAL)
    assert made.groupby("prompt_id")["refused"].sum().tolist() == [0, 4, 0]
    assert made.attrs["answers"]["refused"] == 4
    assert len(server.seen) == 3
    assert "4 of 12 answers are refused" in caplog.text
    assert "it says: The prompt was filtered." in caplog.text


@pytest.mark.parametrize("how", ["plain", "iter", "verbalized"])
def test_if_nothing_is_answered_the_command_says_what_to_do(server, ask, how, tmp_path, caplog):
    server.rule = lambda body: Sent(
        body=chat(*[None] * (body.get("n") or 1)) | {"choices": message(None, "length")["choices"]}
    )
    for _ in range(2):
        with pytest.raises(InputError, match=r"no answer is left to measure: .* only thoughts.*--tokens"):
            ask(prompts(2), SEVERAL, journal=tmp_path / "journal", how=how)
    assert caplog.text.count("the first prompt has no answer") == 1  # said before the others are asked
    server.rule = None
    longer = SEVERAL.model_copy(update={"max_new_tokens": 640})
    made = ask(prompts(2), longer, journal=tmp_path / "journal", how=how)
    assert len(made) == (0 if how == "verbalized" else 8)  # the stories of this server are in no form
    assert (tmp_path / "journal.other").exists()


def test_the_repetition_penalty_has_both_its_names_and_a_refused_one_alone_is_left_out(server, ask):
    sampling = ONE.model_copy(update={"repetition_penalty": 1.2})
    ask(prompts(1), sampling)
    assert (server.seen[0]["repetition_penalty"], server.seen[0]["repeat_penalty"]) == (1.2, 1.2)
    server.answers = [Sent(422, {"detail": [{"loc": ["body", "repeat_penalty"], "msg": "Extra inputs not permitted"}]})]
    made = ask(prompts(2), sampling)
    assert made["text"].str.startswith("Story").all()
    for body in server.seen[2:]:
        assert body["repetition_penalty"] == 1.2 and "repeat_penalty" not in body
    assert made.attrs["answers"]["left_out"] == {}


@pytest.mark.parametrize(
    ("software", "sends", "said"),
    [
        ("llama.cpp", ["temperature", "top_p"], "top_k, min_p"),
        ("llama.cpp", ["temperature", "top_k"], "min_p"),
        ("llama.cpp", ["min_p", "top_k"], None),
        ("uvicorn", ["temperature", "top_p"], None),
    ],
)
def test_a_server_that_truncates_by_itself_is_named_once(server, ask, caplog, software, sends, said):
    server.software = software
    ask(prompts(3), sends=sends)
    lines = [line for line in caplog.messages if "unless it gets these settings" in line]
    assert len(lines) == (said is not None)
    assert not said or f"not sent: {said}. " in lines[0]
    assert all(body.get("min_p", 0.0) == 0.0 and ("min_p" in body) == ("min_p" in sends) for body in server.seen)


def test_fewer_choices_than_asked_for_are_made_up(server, ask):
    server.answers = [Sent(body=chat("One.", "Two."))]
    made = ask(prompts(2), SEVERAL)
    assert len(made) == 8
    assert [body.get("n") for body in server.seen] == [4, None, None, None, None, None, None]


def test_three_prompts_that_fail_in_a_row_end_the_run(server, ask, tmp_path):
    server.rule = lambda body: Sent(500, "broken") if body["messages"][0]["content"] != "Prompt 0" else None
    with pytest.raises(InputError, match=r"fails \(500\).* prompts fail; this is the first"):
        ask(prompts(40), retries=0, journal=tmp_path / "journal")
    assert len(server.seen) < 25


def test_the_pause_doubles_and_has_an_end(server, ask):
    server.answers = [Sent(500, "broken")] * 3
    begun = time.monotonic()
    assert len(ask(prompts(1), pause=0.05)) == 1
    assert time.monotonic() - begun >= 0.05 + 0.1 + 0.2


@pytest.mark.parametrize(
    ("headers", "body", "seconds"),
    [
        ({"retry-after": "20"}, "", 20),
        ({"retry-after": "1.5"}, "", 1.5),
        ({"retry-after": "-3"}, "", 0),
        ({"retry-after": "Thu, 01 Jan 1970 00:02:00 GMT"}, "", 20),  # it is 100 s after the epoch
        ({"retry-after": "Thu, 01 Jan 1970 00:00:00 GMT"}, "", 0),
        ({"retry-after": "nan"}, "", None),
        ({"retry-after-ms": "1500", "retry-after": "9"}, "", 1.5),
        ({}, json.dumps(google("x", 429, "RESOURCE_EXHAUSTED", details=[{"retryDelay": "34.07s"}])), 34.07),
        ({}, json.dumps({"error": {"message": "x", "retry_after": 7}}), 7),
        ({}, json.dumps(openai("Please try again in 6m0s.")), 360),
        ({}, json.dumps(openai("Please try again in 1h2m3.5s.")), 3723.5),
        ({}, json.dumps(openai("Please retry after 5 seconds.")), 5),
        ({}, json.dumps(openai("Retry in 250ms")), 0.25),
        ({}, json.dumps(openai("Limit 3 requests per min, 200 per day")), None),
        ({}, "slow down", None),
    ],
)
def test_the_pause_that_a_server_asks_for(headers, body, seconds):
    assert read_fault(429, body, headers, now=100.0).pause == (seconds if seconds is None else pytest.approx(seconds))


def test_no_recorded_answer_shows_the_key(server, ask, monkeypatch, caplog):
    monkeypatch.setenv("TEST_KEY", "sk-not-a-real-key-7f3a")
    for status in (400, 401, 403, 404, 429):
        server.answers = [Sent(status, openai("Incorrect: Bearer sk-not-a-real-key-7f3a, 'temperature'"))]
        try:
            ask(prompts(1), key="TEST_KEY")
        except InputError as error:
            assert "sk-not" not in str(error)
    assert "sk-not" not in caplog.text
