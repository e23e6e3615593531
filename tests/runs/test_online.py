"""Learning from one's own samples: which prompts a round asks, what its pool is, and two rounds from end to end."""

import shutil
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from tiny import save_model_and_adapter, tiny_model, tiny_tokenizer

from ddpo_lib.base.errors import InputError
from ddpo_lib.base.run_folder import Run, Step
from ddpo_lib.measures.quality import Reward
from ddpo_lib.measures.surprisal import mean_surprisal, sum_logps
from ddpo_lib.pairs.rounds import draw_prompts, whole
from ddpo_lib.profiles.profile import load_profile
from ddpo_lib.profiles.settings import Arm, Model, Online
from ddpo_lib.runs.online import halve, make_pool, make_round, score_pool
from ddpo_lib.runs.pipeline import open_run
from ddpo_lib.training.train import train_preferences, train_sft

ARM = {"loss": "dpo", "start": "sft"}


def corpus(train: int, test: int = 3) -> pd.DataFrame:
    rows = [
        (f"p{i:02d}", f"the cat {i}", f"p{i:02d}-{j}", "train" if i < train else "test")
        for i in range(train + test)
        for j in range(2)
    ]
    return pd.DataFrame(rows, columns=["prompt_id", "prompt", "response_id", "split"])


def test_no_training_prompt_comes_again_before_all_have_come_and_none_is_held_out():
    table = corpus(7)
    asked = [draw_prompts(table, 3, number, seed=0)["prompt_id"].tolist() for number in (1, 2, 3, 4, 5, 6, 7)]
    assert all(len(set(names)) == 3 for names in asked)
    counts = pd.Series([name for names in asked for name in names]).value_counts()
    assert counts.to_dict() == dict.fromkeys([f"p{i:02d}" for i in range(7)], 3)
    assert len(set(asked[0]) & set(asked[1])) == 0
    assert asked[0] == draw_prompts(table.sample(frac=1, random_state=1), 3, 1, seed=0)["prompt_id"].tolist()
    assert asked[0] != draw_prompts(table, 3, 1, seed=1)["prompt_id"].tolist()
    assert sorted(draw_prompts(table, 99, 2, seed=0)["prompt_id"]) == sorted(counts.index)


def test_teacher_and_grader_learn_from_prompts_that_they_do_not_share():
    table = corpus(7)
    teacher, grader = ({*part[part["split"] == "train"]["prompt_id"]} for part in halve(table, seed=0))
    assert not teacher & grader
    assert len(teacher) == 3 and len(grader) == 4
    assert teacher | grader == {*table[table["split"] == "train"]["prompt_id"]}
    for part in halve(table, seed=0):
        assert part[part["split"] == "test"].equals(table[table["split"] == "test"])
    with pytest.raises(InputError, match="a teacher and a grader need a training prompt each"):
        halve(corpus(1), seed=0)


class Longer(Reward):
    """More words are better."""

    name, facts = "length", {}

    def predict(self, prompts, texts):
        return np.array([len(text.split()) for text in texts], dtype=float)

    def save(self, folder):
        raise NotImplementedError

    @classmethod
    def load(cls, folder):
        return cls()


def test_a_pool_is_a_corpus_of_scored_samples_and_what_is_cut_or_blank_is_left_out():
    samples = pd.DataFrame(
        {
            "prompt_id": ["a", "a", "a", "b"],
            "prompt": ["the"] * 4,
            "sample": [0, 1, 2, 0],
            "text": ["one cat", " ", "the old cat", "sat"],
        }
    ).assign(tokens=[2, 0, 3, 1], finished=[True, True, False, True])
    pool = score_pool(samples, Longer())
    assert pool["response_id"].tolist() == ["a-0000", "a-0001", "a-0002", "b-0000"]
    assert pool["score"].tolist() == [2, -1, 3, 1]
    assert whole(pool)["response_id"].tolist() == ["a-0000", "b-0000"]


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> tuple[Model, object]:
    """The tiny model and an adapter on its last layers, as SFT leaves one."""
    place = tmp_path_factory.mktemp("model")
    base, adapter = save_model_and_adapter(place, last_layers=2)
    tiny_tokenizer().save_pretrained(base)
    knobs = {"lora_r": 4, "lora_alpha": 8, "lora_targets": ["q_proj", "v_proj", "down_proj"], "last_layers": 2}
    return Model(name=str(base), dtype="float32", template="{prompt} and ", **knobs), adapter


@pytest.mark.parametrize("fused", [False, True])
def test_surprisal_is_minus_the_mean_log_probability_of_the_response_and_its_end(model, monkeypatch, fused):
    """Against the full padded logits, response by response, with and without the adapter; by the fused head that a GPU
    takes too."""
    from ddpo_lib.models import models

    monkeypatch.setattr("ddpo_lib.training.logps._use_triton", lambda device: fused)
    settings, adapter = model
    table = pd.DataFrame(
        {
            "prompt": ["the cat", "a king", "the cat", "the old dog"],
            "text": ["sat near a door", "ran", "slept", "sang past the ship"],
        }
    )
    tokenizer = tiny_tokenizer()
    for trained in (None, adapter):
        policy = models.load_model(settings.name, trained).eval()
        expected = []
        for prompt, text in zip(table["prompt"], table["text"], strict=True):
            start = tokenizer(f"{prompt} and ").input_ids
            ids = torch.tensor([[*start, *tokenizer(text).input_ids, tokenizer.eos_token_id]])
            with torch.no_grad():
                logps = policy(ids).logits[0, :-1].double().log_softmax(-1)
            expected.append(-logps.gather(1, ids[0, 1:, None])[len(start) - 1 :].mean().item())
        found = mean_surprisal(table, settings, trained)
        np.testing.assert_allclose(found, expected, atol=1e-5)
        np.testing.assert_allclose(mean_surprisal(table[::-1], settings, trained), found[::-1], atol=1e-5)


def test_many_responses_to_a_prompt_are_read_in_parts():
    prompts, texts = ["the cat "] * 70, [" ".join(["sat"] * (1 + i % 9)) for i in range(70)]
    logps, tokens = sum_logps(tiny_model(), tiny_tokenizer(), prompts, texts)
    assert tokens.tolist() == [2 + i % 9 for i in range(70)]
    np.testing.assert_allclose(logps, np.tile(logps[:9], 8)[:70], atol=1e-4)


def online_profile(folder, model: Model, **online):
    """The smoke profile with the tiny model and one arm that learns online."""
    arm = {"loss": "dpo", "start": "sft", "divpo": {"criterion": "probability", "threshold": "range", "max_pairs": 1}}
    settings = {"arm": arm, "rounds": 2, "prompts": 3, "samples": 6, "max_new_tokens": 30} | online
    file = folder / "online.yaml"
    content = {"extends": "smoke", "name": "online", "model": model.model_dump(), "online": {"again": settings}}
    content["preference"] = {"dpo": {"warmup_steps": 0}}  # a round has one step
    file.write_text(yaml.safe_dump(content))
    return load_profile(file)


@pytest.fixture
def started(tmp_path, model, monkeypatch):
    """A run that has the tiny model's SFT, and the steps of two rounds; its reward counts words."""
    settings, adapter = model
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("ddpo_lib.runs.online.load_reward", lambda profile, folder: Longer())

    def make_corpus(folder, run):
        corpus(5).to_parquet(folder / "corpus.parquet")

    def make_sft(folder, run):
        shutil.copytree(adapter, folder / "trained")

    def build(**online):
        profile = online_profile(tmp_path, settings, **online)
        (again,) = profile.online.values()
        steps = [Step("corpus", make_corpus), Step("sft", make_sft), Step("graders", lambda folder, run: None)]
        start = "sft"
        for number in (1, 2):
            pool, trained = f"pool-again-{number}", f"round-again-{number}"
            steps.append(Step(pool, partial(make_pool, profile, again, number, start), ("corpus", "graders", start)))
            steps.append(Step(trained, partial(make_round, profile, again, number, start, pool), (pool, start)))
            start = trained
        return Run(tmp_path / "runs" / "online", {step.name: step for step in steps})

    return build


@pytest.mark.parametrize(
    "arm",
    [
        {"loss": "dpo", "start": "sft", "divpo": {"criterion": "probability", "threshold": "range", "max_pairs": 1}},
        {"loss": "dpo", "start": "sft", "weights": ["semantic"]},
    ],
    ids=["divpo", "ddpo"],
)
def test_two_rounds_each_from_the_model_before(started, model, arm):
    run = started(arm=arm)
    run.path("round-again-2")
    pools = [run.table(f"pool-again-{number}", "pool.parquet") for number in (1, 2)]
    assert not set(pools[0]["prompt_id"]) & set(pools[1]["prompt_id"]) - set(
        draw_prompts(corpus(5), 3, 2, 0)["prompt_id"]
    )
    weights = [
        run.path(name) / "trained" / "adapter_model.safetensors" for name in ("sft", "round-again-1", "round-again-2")
    ]
    assert len({file.read_bytes() for file in weights}) == 3
    for number, start in ((1, "sft"), (2, "round-again-1")):
        assert len(pools[number - 1]) == 18
        picked = run.table(f"round-again-{number}", "picked.parquet")
        pairs = run.table(f"round-again-{number}", "pairs.parquet")
        assert picked["finished"].all() and (pairs["chosen_score"] > pairs["rejected_score"]).all()
        if "divpo" in arm:
            surprisal = picked.set_index("response_id")["surprisal"]
            expected = mean_surprisal(picked, model[0], run.path(start) / "trained")
            np.testing.assert_allclose(picked["surprisal"], expected, atol=1e-5)
            for _, pair in pairs.iterrows():
                mine = picked[picked["prompt_id"] == pair["prompt_id"]]
                low, high = mine["score"].min(), mine["score"].max()
                best = mine.loc[mine["score"] >= high - 0.25 * (high - low), "response_id"]
                worst = mine.loc[mine["score"] <= low + 0.25 * (high - low), "response_id"]
                assert surprisal[pair["chosen_id"]] == surprisal[best].max()
                assert surprisal[pair["rejected_id"]] == surprisal[worst].min()
        else:
            assert "surprisal" not in picked and pairs["weight"].std() > 0


@pytest.mark.parametrize("loss", ["dpo", "orpo"])
def test_one_step_that_is_the_first_of_a_warm_up_is_refused(tmp_path, model, loss):
    """Its learning rate would be 0, and the model would come out as it went in."""
    settings, adapter = model
    preference = online_profile(tmp_path, settings).preference
    warm = {"warmup_steps": 3, "epochs": 1.0, "batch_size": 4}
    preference = preference.model_copy(update={loss: preference.dpo.model_copy(update=warm)})
    rows = pd.DataFrame({"prompt": ["the cat"] * 3, "chosen": ["sat", "ran", "slept"], "rejected": ["a king"] * 3})
    arm = Arm(loss=loss, start="sft")
    with pytest.raises(InputError, match=r"^3 pairs make one step .* set its warmup_steps to 0"):
        train_preferences(rows, arm, adapter, settings, preference, 64, 0, tmp_path / "arm")
    assert not (tmp_path / "arm" / "trained").exists()
    with pytest.raises(InputError, match=r"^3 responses make one step .* set its warmup_steps to 0"):
        texts = rows.rename(columns={"chosen": "text"})
        train_sft(texts, settings, preference.dpo.model_copy(update=warm), 64, 0, tmp_path / "sft")


@pytest.mark.parametrize("reference", ["refreshed", "fixed"])
def test_the_reference_is_the_sampled_model_or_sft_in_every_round(started, reference):
    """Before its first step, a model is its own reference: the reward of every response is 0."""
    run = started(arm={"loss": "dpo", "start": "sft"}, reference=reference)
    first, second = (abs(run.json(f"round-again-{n}", "log.json")[0]["rewards/chosen"]) for n in (1, 2))
    assert first < 1e-5
    assert second < 1e-5 if reference == "refreshed" else second > 1e-5


def test_a_fixed_reference_is_an_input_of_every_round(tmp_path):
    rows = {"arm": {"loss": "dpo", "start": "sft"}, "prompts": 1, "samples": 2, "max_new_tokens": 9}
    file = tmp_path / "two.yaml"
    both = {"one": rows, "two": rows | {"reference": "fixed"}}
    file.write_text(yaml.safe_dump({"extends": "smoke", "name": "two", "online": both}))
    steps = open_run(file, folder=tmp_path / "two").steps
    assert steps["round-one-2"].inputs == ("pool-one-2", "round-one-1")
    assert steps["round-two-1"].inputs == ("pool-two-1", "sft")
    assert steps["round-two-2"].inputs == ("pool-two-2", "round-two-1", "sft")


def test_a_killed_round_samples_nothing_again(started, monkeypatch):
    """Killed in training: the pool is kept, and the round comes out as it does in one go."""
    run = started()
    once = run.table("round-again-1", "pairs.parquet")
    shutil.rmtree(run.folder / "round-again-1")
    made = (run.folder / "pool-again-1" / "manifest.json").stat().st_mtime_ns

    def kill(*args, **kwargs):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("ddpo_lib.training.train.train_preferences", kill)
        with pytest.raises(KeyboardInterrupt):
            run.path("round-again-1")
    assert not (run.folder / "round-again-1").exists()
    pd.testing.assert_frame_equal(run.table("round-again-1", "pairs.parquet"), once)
    assert (run.folder / "pool-again-1" / "manifest.json").stat().st_mtime_ns == made


@pytest.mark.parametrize(("limit", "sentence"), [(1, "of 18 samples are finished"), (30, "no pair|no prompt has two")])
def test_where_no_pair_can_be_made_the_error_names_the_pool_and_the_knob(started, monkeypatch, limit, sentence):
    if limit == 30:
        monkeypatch.setattr(Longer, "predict", lambda self, prompts, texts: np.ones(len(texts)))
    run = started(max_new_tokens=limit)
    with pytest.raises(InputError, match=sentence) as error:
        run.path("round-again-1")
    assert "pool-again-1" in str(error.value) and "max_new_tokens" in str(error.value)


def test_an_online_arm_that_cannot_be_is_named():
    for fields, named in (
        ({"start": "base"}, "starts from sft"),
        ({"start": "sft", "equal_steps": True}, "leave out equal_steps"),
    ):
        with pytest.raises(ValueError, match=named):
            Online(arm={"loss": "dpo", **fields}, prompts=2, samples=4, max_new_tokens=9)


def test_rounds_of_a_profile_follow_each_other_and_its_chapter_reads_them():
    steps = open_run("embedded").steps
    assert (
        "sft" in steps["pool-divpo-online-1"].inputs and "round-divpo-online-1" in steps["pool-divpo-online-2"].inputs
    )
    assert set(steps["round-divpo-online-2"].inputs) == {"pool-divpo-online-2", "round-divpo-online-1"}
    assert "round-divpo-online-2" in steps["samples-divpo-online"].inputs
    assert "online" in steps["chapter-04-divpo"].inputs


def test_a_profile_without_online_arms_has_no_such_step(tmp_path):
    file = tmp_path / "offline.yaml"
    file.write_text("{extends: smoke, name: offline, online: {}}")
    steps = open_run(str(file), folder=tmp_path).steps
    made = [name for name in steps if not name.startswith("chapter-")]
    assert not [name for name in made if "online" in name] and "online" not in steps["chapter-04-divpo"].inputs


def test_an_arm_that_is_not_swept_has_no_sweep_and_is_trained_as_it_was(tmp_path):
    runs = []
    for name, swept in (("with", True), ("without", False)):
        arms = {"dpo": {"loss": "dpo", "start": "sft"}, "other": {"loss": "dpo", "start": "sft", "swept": swept}}
        file = tmp_path / f"{name}.yaml"
        file.write_text(yaml.safe_dump({"extends": "smoke", "name": name, "arms": arms, "online": {}}))
        runs.append(open_run(str(file), folder=tmp_path))
    assert [[name for name in run.steps if name.startswith("sweep-")] for run in runs] == [
        ["sweep-sft", "sweep-dpo", "sweep-other"],
        ["sweep-sft", "sweep-dpo"],
    ]
    assert "sweep-other" not in runs[1].steps["fronts"].inputs
    assert runs[0].key("arm-other") == runs[1].key("arm-other")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"arms": {"dpo": {"loss": "dpo", "start": "sft", "swept": False}}}, "arms.dpo.swept"),
        (
            {"online": {"dpo": {"arm": ARM, "prompts": 1, "samples": 2, "max_new_tokens": 9}}},
            "online: dpo is the name of an arm",
        ),
        (
            {"online": {"new": {"arm": {**ARM, "weights": ["far"]}, "prompts": 1, "samples": 2, "max_new_tokens": 9}}},
            "online.new: far is none of the spaces",
        ),
    ],
)
def test_profiles_that_cannot_be_are_named(tmp_path, change, sentence):
    file = tmp_path / "bad.yaml"
    file.write_text(yaml.safe_dump({"extends": "smoke", "name": "bad", **change}))
    with pytest.raises(InputError, match=sentence):
        load_profile(file)
