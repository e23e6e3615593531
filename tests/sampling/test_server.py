"""Sampling from a server: the real `transformers serve` with the embedded model, behind a proxy that makes faults."""

import json
import logging
import os
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path

import pandas as pd
import pytest
from faulty import FaultyProxy

from ddpo_lib.base.errors import InputError
from ddpo_lib.base.run_folder import Run, Step
from ddpo_lib.models import models
from ddpo_lib.profiles.evaluation_settings import Baseline
from ddpo_lib.profiles.profile import load_profile
from ddpo_lib.profiles.settings import Sampling
from ddpo_lib.runs import artifacts
from ddpo_lib.sampling.engines import open_engine
from ddpo_lib.sampling.generate import generate
from ddpo_lib.sampling.server import Server

for needed in ("fastapi", "uvicorn"):
    pytest.importorskip(needed, reason="`transformers serve` needs fastapi and uvicorn")

KEY = "sk-not-a-real-key-7f3a"
SHORT = Sampling(samples=2, max_new_tokens=4, temperature=1.5, top_p=1.0)


class Served:
    """`transformers serve` on a port that stays the same when it is killed and started again."""

    def __init__(self, folder: Path):
        self.model = str(folder / "model")
        self.log = folder / "log"
        (folder / "model").mkdir()
        for file in models.model_place("smollm2-135m-instruct").iterdir():
            if file.name != "generation_config.json":
                (folder / "model" / file.name).symlink_to(file)
        ends = {"do_sample": True, "eos_token_id": 2, "pad_token_id": 2}  # without do_sample this server is greedy
        (folder / "model" / "generation_config.json").write_text(json.dumps(ends))
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.start()

    def start(self) -> None:
        command = [Path(sys.executable).with_name("transformers"), "serve", self.model, "--port", str(self.port)]
        environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
        with self.log.open("a") as log:
            self.process = subprocess.Popen(
                [*command, "--host", "127.0.0.1"], stdout=log, stderr=log, env=environment, cwd=self.log.parent
            )
        for _ in range(240):
            assert self.process.poll() is None, self.log.read_text()[-3000:]
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{self.port}/health", timeout=5).read()
                return
            except OSError:
                time.sleep(0.5)
        raise AssertionError(self.log.read_text()[-3000:])

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    server = Served(tmp_path_factory.mktemp("served"))
    yield server
    server.kill()


@pytest.fixture
def proxy(served, monkeypatch):
    monkeypatch.setenv("TEST_KEY", KEY)
    proxy = FaultyProxy(f"http://127.0.0.1:{served.port}")
    yield proxy
    proxy.close()


@pytest.fixture
def open_server(served, proxy):
    return lambda **options: Server(proxy.url, served.model, "TEST_KEY", **{"pause": 0.0, **options})


def stories(number: int) -> pd.DataFrame:
    prompts = ["A lighthouse.", "The last train.", "A letter.", "Two dogs.", "The moon.", "A key."][:number]
    return pd.DataFrame({"prompt_id": [f"p{i}" for i in range(number)], "prompt": prompts})


ONE = SHORT.model_copy(update={"samples": 1})


def test_samples_of_a_real_server(served, proxy, tmp_path):
    baseline = Baseline(engine="server", model=served.model, url=proxy.url, key="TEST_KEY", instruction="Say: {prompt}")
    engine = open_engine(baseline, load_profile("embedded").model)
    journal = tmp_path / "journal"
    made = generate(engine, stories(3), SHORT, 0, instruction=baseline.instruction, journal=journal)
    assert made[["prompt_id", "sample"]].to_numpy().tolist() == [[f"p{i}", s] for i in range(3) for s in range(2)]
    assert made["text"].str.len().gt(0).any()
    assert made["text"].nunique() > 3
    assert made["tokens"].between(0, 4).all()
    assert (made["finished"] | (made["tokens"] == 4)).all()
    # this server takes no `n`: it is asked for two once, and for one at a time from then on
    assert [body.get("n") for body in proxy.seen] == [2, None, None, None, None, None]
    for body in proxy.seen:
        assert (body["temperature"], body["top_p"], body["max_tokens"]) == (1.5, 1.0, 4)
        assert not {"top_k", "repetition_penalty", "seed"} & set(body)
        assert body["authorization"] == f"Bearer {KEY}"
    assert {body["messages"][0]["content"] for body in proxy.seen} == {f"Say: {p}" for p in stories(3)["prompt"]}
    assert engine.facts()["sent"] == ["temperature", "top_p"]
    assert engine.facts()["not_sent"] == ["top_k", "min_p", "repetition_penalty", "seed"]
    assert engine.facts()["penalty_counts"] == "what the server's own penalty counts"
    assert KEY not in journal.read_text() + str(engine.facts()) + repr(vars(engine))
    before = len(proxy.seen)
    again = generate(engine, stories(3), SHORT, 0, instruction=baseline.instruction, journal=journal)
    pd.testing.assert_frame_equal(made, again)
    assert len(proxy.seen) == before


def test_each_sample_of_iter_sees_those_before(open_server, proxy):
    made = generate(open_server(), stories(2), SHORT, 0, how="iter")
    talks = [[m["content"] for m in body["messages"]] for body in proxy.seen]
    assert [len(talk) for talk in talks] == [1, 1, 3, 3]  # a round for all prompts, then the next
    for prompt, first in made.query("sample == 0")[["prompt", "text"]].to_numpy():
        (second,) = (talk for talk in talks if len(talk) == 3 and talk[0] == prompt)
        assert second[1] == (first or "(no answer)")


def test_settings_that_a_real_server_does_not_take_are_left_out_and_named(open_server, proxy, caplog):
    made = generate(open_server(sends=["top_k", "temperature"]), stories(2), ONE, 0)
    assert ["top_k" in body for body in proxy.seen] == [True, False, False]
    assert made.attrs["answers"]["left_out"] == {"top_k": 2}
    assert "does not take top_k" in caplog.text


def test_the_key_is_in_no_error_and_no_log(open_server, proxy, caplog, tmp_path):
    proxy.faults = ["echo"]
    with caplog.at_level(logging.DEBUG), pytest.raises(InputError, match=r"refuses access \(401\)") as caught:
        generate(open_server(), stories(2), SHORT, 0, journal=tmp_path / "journal")
    said = str(caught.value)
    assert "wrong key: Bearer ***" in said
    assert "$TEST_KEY" in said
    error = caught.value
    while error is not None:
        assert KEY not in repr(error)
        assert not hasattr(error, "request")
        error = error.__cause__ or error.__context__
    assert KEY not in caplog.text
    assert KEY not in (tmp_path / "journal").read_text()


def test_a_key_that_is_not_there_is_asked_for_by_name(monkeypatch):
    engine = Server("http://user:secret@127.0.0.1:1/v1", "some-model", "TEST_KEY")
    monkeypatch.delenv("TEST_KEY", raising=False)
    with pytest.raises(InputError, match="TEST_KEY is not set") as caught:
        generate(engine, stories(1), SHORT, 0)
    assert "secret" not in str(caught.value) + str(engine.facts())
    monkeypatch.setenv("TEST_KEY", "schlüssel")
    with pytest.raises(InputError, match="holds no key") as caught:
        generate(engine, stories(1), SHORT, 0)
    assert "schl" not in str(caught.value)


def test_no_server():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(InputError, match=r"cannot be reached.*refused"):
        generate(Server(f"http://127.0.0.1:{port}/v1", "m", retries=0), stories(1), SHORT, 0)


@pytest.mark.parametrize(("own", "asked"), [(77, 77), (None, 320)])
def test_a_baseline_is_asked_for_as_many_tokens_as_its_own_limit_has(own, asked, tmp_path):
    profile = load_profile("embedded")
    assert profile.sampling.max_new_tokens == 320
    proxy = FaultyProxy("http://127.0.0.1:1/v1")
    proxy.faults = ["filter"] * profile.sampling.samples  # it answers each request itself
    corpus = stories(2)
    step = Step("corpus", lambda folder, run: corpus.tail(1).to_parquet(folder / "prompts.parquet"))
    baseline = Baseline(engine="server", model="m", url=proxy.url, max_new_tokens=own)
    artifacts.make_baseline(profile, "instruct", baseline, tmp_path, Run(tmp_path / "run", {"corpus": step}))
    proxy.close()
    assert [body["max_tokens"] for body in proxy.seen] == [asked] * profile.sampling.samples


def test_a_server_that_is_killed_half_way_and_started_again(served, open_server, proxy, tmp_path):
    journal = tmp_path / "journal"
    engine = open_server(retries=0)
    long = ONE.model_copy(update={"max_new_tokens": 12})

    def kill_after_two_answers():
        while not journal.exists() or len(journal.read_text().splitlines()) < 3:
            time.sleep(0.01)
        served.kill()

    killer = threading.Thread(target=kill_after_two_answers)
    killer.start()
    with pytest.raises(
        InputError, match=r"(\d) of 6 prompts are kept in .*journal: the same command goes on"
    ) as caught:
        generate(engine, stories(6), long, 0, journal=journal)
    killer.join()
    kept = [json.loads(line) for line in journal.read_text().splitlines()[1:]]
    assert 2 <= len(kept) < 6
    assert f"{len(kept)} of 6" in str(caught.value)
    served.start()
    proxy.seen.clear()
    made = generate(engine, stories(6), long, 0, journal=journal)
    assert len(made) == 6
    assert len(proxy.seen) == 6 - len(kept)
    for line in kept:
        assert made["text"][line["prompt"]] == line["completions"][0]["text"]
