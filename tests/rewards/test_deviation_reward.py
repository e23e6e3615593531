"""A reward function in which deviation counts: what it computes of a batch, and that TRL's trainers take it."""

import numpy as np
import pytest
from accelerate.data_loader import BatchSamplerShard
from conftest import share_made_once
from datasets import Dataset
from tiny import WORDS, tiny_model, tiny_tokenizer
from torch.utils.data import BatchSampler
from trl import GRPOConfig, GRPOTrainer, RLOOConfig, RLOOTrainer
from trl.trainer.utils import RepeatSampler

from ddpo_lib import DeviationReward
from ddpo_lib.base.errors import InputError
from ddpo_lib.deviation import mean_distance
from ddpo_lib.rewards.rules import RULES, cosine_distances, shape
from ddpo_lib.spaces.counted import lexical_vectors, stylometric_vectors

SIZE = 4
CHAT = "{% for m in messages %}{{ m['content'] }} {% endfor %}"


def words(prompts: list[str], texts: list[str]) -> list[float]:
    return [float(len(text.split())) for text in texts]


def letters(texts: list[str]) -> np.ndarray:
    """Vectors that count vowels, plus one that all texts have."""
    return np.array([[1.0, *(text.count(letter) for letter in "aeiou")] for text in texts])


def batch(prompts: int = 3, size: int = SIZE) -> tuple[list[str], list[str]]:
    rng = np.random.default_rng(0)
    asked = [f"the {word} and" for word in WORDS[3 : 3 + prompts] for _ in range(size)]
    return asked, [" ".join(rng.choice(WORDS, rng.integers(2, 7))) for _ in asked]


@pytest.mark.parametrize("rule", RULES)
def test_each_prompt_is_a_group_whatever_the_order_of_the_batch(rule):
    prompts, texts = batch()
    found = np.array(DeviationReward(words, letters, rule)(prompts=prompts, completions=texts))
    for start in range(0, len(texts), SIZE):
        part = texts[start : start + SIZE]
        expected = shape(rule, np.array(words([], part)), cosine_distances(letters(part)))
        assert found[start : start + SIZE] == pytest.approx(expected)
    order = np.random.default_rng(1).permutation(len(texts))
    shuffled = DeviationReward(words, letters, rule)([prompts[i] for i in order], [texts[i] for i in order])
    assert shuffled == pytest.approx(found[order])


def test_the_product_is_with_the_deviation_of_the_paper_averaged_over_spaces():
    prompts, texts = batch()
    groups = np.repeat(np.arange(3), SIZE)
    apart = [mean_distance(vectors(texts), groups) for vectors in (lexical_vectors, stylometric_vectors)]
    quality = np.array(words(prompts, texts)).reshape(3, SIZE)
    expected = (quality - quality.min(axis=1, keepdims=True)).ravel() * np.mean(apart, axis=0)
    found = DeviationReward(words, ["lexical", "stylometric"])(prompts, texts)
    assert found == pytest.approx(expected, abs=1e-6)


def test_a_space_that_a_model_embeds_is_the_one_of_embed(tmp_path, monkeypatch):
    from ddpo_lib.spaces.embed import Space, embed

    share_made_once(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    prompts, texts = batch(1)
    expected = shape("product", words([], texts), cosine_distances(embed(texts, "minilm")))
    for space in ("minilm", Space("minilm")):
        assert DeviationReward(words, space)(prompts, texts) == pytest.approx(expected, abs=1e-6)


def test_messages_are_read_as_their_texts():
    prompts, texts = batch()
    asked = [[{"role": "system", "content": "Write."}, {"role": "user", "content": prompt}] for prompt in prompts]
    parts = [[{"role": "assistant", "content": [{"type": "text", "text": text}]}] for text in texts]
    seen = []

    def quality(prompts, texts):
        seen.extend(prompts)
        return words(prompts, texts)

    plain = DeviationReward(words, letters)(prompts, texts)
    assert DeviationReward(quality, letters)(asked, parts) == plain
    assert seen[0] == f"Write.\n\n{prompts[0]}"
    assert DeviationReward(words, letters)(asked, [[{"role": "assistant", "content": t}] for t in texts]) == plain
    called = [[{"role": "assistant", "content": None, "tool_calls": []}, *part] for part in parts]
    assert DeviationReward(words, letters)(asked, called) == plain


def test_what_failed_half_way_is_not_asked_for_again():
    prompts, texts = batch()
    texts[1] = texts[0]  # one sample of the first prompt twice
    asked, broken = [], [texts[6]]

    def quality(prompts, texts):
        if set(broken) & set(texts):
            raise ConnectionError("the server is gone")
        asked.extend(zip(prompts, texts, strict=True))
        return words(prompts, texts)

    reward = DeviationReward(quality, letters, at_once=2)
    with pytest.raises(ConnectionError, match="gone"):
        reward(prompts, texts)
    before = list(asked)
    assert before == [(prompts[i], texts[i]) for i in (0, 2, 3, 4)]  # calls of two texts
    broken.clear()
    assert reward(prompts, texts) == DeviationReward(words, letters)(prompts, texts)
    assert asked == [(prompts[i], texts[i]) for i in range(len(texts)) if i != 1]
    reward(prompts, texts)  # a call that succeeded keeps nothing: a reward may change
    assert len(asked) == 2 * (len(texts) - 1)


def test_a_reward_of_the_library_scores_by_its_method():
    class Counts:
        def score(self, prompts, texts):
            return np.array(words(prompts, texts))

    prompts, texts = batch()
    assert DeviationReward(Counts(), letters)(prompts, texts) == DeviationReward(words, letters)(prompts, texts)


def test_a_sample_without_a_quality_has_no_reward_and_is_nobody_s_sibling():
    prompts, texts = batch(1)
    silent = texts[2]
    found = DeviationReward(lambda _, of: [None if t == silent else len(t) for t in of], letters)(prompts, texts)
    rest = [text for text in texts if text != silent]
    assert np.isnan(found[2])
    others = DeviationReward(lambda _, of: [len(t) for t in of], letters)(prompts[:3], rest)
    assert [found[i] for i in (0, 1, 3)] == pytest.approx(others)


def test_blank_samples_are_alike():
    found = DeviationReward(lambda _, texts: [float(bool(t.strip())) for t in texts], "lexical", "logdet")
    rewards = found(["p"] * 4, ["", "  ", "a king slept", "the ship burned"])
    assert rewards[0] == pytest.approx(rewards[1]) and rewards[2] > rewards[0]


def test_the_means_of_quality_and_deviation_are_logged():
    logged = {}
    prompts, texts = batch()
    DeviationReward(words, letters)(prompts, texts, log_metric=logged.__setitem__, completion_ids=None)
    apart = mean_distance(letters(texts), np.repeat(np.arange(3), SIZE)).mean()
    assert logged == {"quality": pytest.approx(np.mean(words([], texts))), "deviation": pytest.approx(apart)}


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"rule": "products"}, "rule: expected one of plain, product"),
        ({"rule": "plain", "gate": 1.0}, "gate: no option of the rule plain"),
        ({"spaces": []}, "spaces: there are none"),
        ({"at_once": 0}, "at_once: expected 1 or more"),
        ({"num_generations": 0}, "num_generations: expected 1 or more"),
    ],
)
def test_settings_that_do_not_fit_are_named(options, named):
    with pytest.raises(InputError, match=named):
        DeviationReward(**{"quality": words, "spaces": letters} | options)


@pytest.mark.parametrize(
    ("options", "prompts", "texts", "named"),
    [
        ({}, ["p"], ["a", "b"], "1 prompts and 2 completions"),
        ({"quality": lambda *_: [1.0]}, ["p", "p"], ["a", "b"], "2 texts were given and 1 scores came"),
        ({"quality": lambda *_: [np.inf]}, ["p"], ["a"], "infinite for 'a'"),
        ({"spaces": lambda t: letters(t)[1:]}, ["p", "p"], ["a", "b"], r"space 0: .*\(2, d\), got \(1, 6\)"),
        ({"num_generations": 4}, ["p"] * 6, list("abcdef"), "6 samples of the prompt 'p' are here, not 4; the others"),
    ],
)
def test_a_batch_that_does_not_fit_is_named(options, prompts, texts, named):
    with pytest.raises(InputError, match=named):
        DeviationReward(**{"quality": words, "spaces": letters} | options)(prompts, texts)


@pytest.mark.parametrize(("processes", "of_process"), [(1, 8), (2, 8), (3, 8), (2, 4), (2, 12)])
def test_groups_are_whole_on_a_process_and_rewards_do_not_depend_on_their_number(processes, of_process):
    """The parts are those of TRL's sampler and of accelerate's division among processes."""
    prompts, texts = batch(12)
    sampler = RepeatSampler(list(range(12)), SIZE, batch_size=processes * of_process // SIZE, shuffle=True, seed=3)
    batches = BatchSampler(sampler, of_process, drop_last=True)
    kwargs = {"num_processes": processes, "split_batches": False, "even_batches": True}
    parts = [list(BatchSamplerShard(batches, process_index=k, **kwargs)) for k in range(processes)]
    alone = dict(zip(texts, DeviationReward(words, letters, num_generations=SIZE)(prompts, texts), strict=True))
    seen = 0
    for rows in [rows for of in parts for rows in of]:
        taken = dict.fromkeys(rows, 0)
        samples = []
        for row in rows:  # the k-th time that a prompt comes is its k-th sample
            samples.append(texts[row * SIZE + taken[row]])
            taken[row] += 1
        asked = [prompts[row * SIZE] for row in rows]
        found = DeviationReward(words, letters, num_generations=SIZE)(asked, samples)
        assert found == pytest.approx([alone[text] for text in samples])
        seen += len(rows)
    assert seen >= len(texts) - processes * of_process


def test_a_group_that_trl_divides_among_processes_is_an_error():
    sampler = RepeatSampler(list(range(12)), SIZE, batch_size=3, seed=3)
    batches = BatchSampler(sampler, 6, drop_last=True)
    rows = next(iter(BatchSamplerShard(batches, num_processes=2, process_index=0)))
    with pytest.raises(InputError, match="per_device_train_batch_size"):
        DeviationReward(words, letters, num_generations=SIZE)([f"p{row}" for row in rows], ["a"] * 6)


@pytest.mark.parametrize(("trainer", "config"), [(GRPOTrainer, GRPOConfig), (RLOOTrainer, RLOOConfig)])
@pytest.mark.parametrize("chat", [False, True])
def test_trl_trains_with_it(trainer, config, chat, tmp_path):
    reward = DeviationReward(words, letters, num_generations=SIZE)
    prompts = [f"the {word} and" for word in WORDS[3:9]]
    columns = [[{"role": "user", "content": prompt}] for prompt in prompts] if chat else prompts
    args = config(
        str(tmp_path), num_generations=SIZE, per_device_train_batch_size=4, gradient_accumulation_steps=2,
        max_completion_length=6, max_steps=2, report_to="none", bf16=False, use_cpu=True, logging_steps=1,
        save_strategy="no", learning_rate=1e-2, beta=0.0,  # no reference
    )  # fmt: skip
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = CHAT
    data = Dataset.from_dict({"prompt": columns, "source": ["people"] * len(prompts)})
    made = trainer(tiny_model(), reward, args, train_dataset=data, processing_class=tokenizer)
    before = {name: tensor.clone() for name, tensor in made.model.state_dict().items()}
    made.train()
    assert any(not tensor.equal(before[name]) for name, tensor in made.model.state_dict().items())
    logged = made.state.log_history[0]
    assert {"quality", "deviation", "rewards/deviation_product/mean"} <= logged.keys()
    assert logged["deviation"] > 0 and logged["quality"] > 0
