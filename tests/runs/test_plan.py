"""What a run will need: the paper's settings in its profile, arithmetic on worked numbers, and no network."""

import json
import socket
from dataclasses import asdict

import pytest
from peft.utils.constants import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING
from typer.testing import CliRunner

import benchmarks.gpu
from benchmarks.gpu_shapes import SHAPES
from ddpo_lib.base.errors import InputError
from ddpo_lib.cli.main import app
from ddpo_lib.data.corpus import PACKAGE_CORPUS
from ddpo_lib.profiles.profile import load_profile, names
from ddpo_lib.profiles.settings import Arm, Optimiser
from ddpo_lib.runs import costs, estimates
from ddpo_lib.runs.costs import GPUS, Shape, Speed, optimiser_steps, read_speed
from ddpo_lib.runs.estimates import Counts, count, most_pairs
from ddpo_lib.runs.pipeline import open_run, source_of
from ddpo_lib.runs.plan import describe, make_plan
from ddpo_lib.spaces.embed import COUNTED, Space, _encoder

PAPERS_DATA = "euclaise/WritingPrompts_preferences"
LLAMA = Shape(32, 4096, 14336, 32, 8, 128, 128256, tied=False)


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    """No test of this file may reach for a network, and none may see a key."""

    def refuse(*args, **kwargs):
        raise AssertionError("a plan reached for the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    for name in ("HF_TOKEN", "OPENAI_API_KEY", "ANTHROPIC_API_KEY", "DEEPSEEK_API_KEY"):
        monkeypatch.delenv(name, raising=False)


SPEED = Speed("a GPU", "2026-11-29", flops=3e14, bandwidth=1e12)


def planned(name: str, corpus: str | None = None, gpu: str = "H100", speed: Speed | None = SPEED) -> dict:
    profile = load_profile(name)
    return make_plan(profile, open_run(name, corpus), source_of(profile, corpus), gpu, speed)


def hours(made: dict) -> dict[str, float]:
    return {cost.step: cost.hours for cost in made["costs"]}


# The profiles


def test_the_profile_paper_has_every_setting_of_the_paper():
    p = load_profile("paper")
    assert p.data.source == PAPERS_DATA
    assert (p.data.held_out, p.data.split_seed, p.data.gap, p.data.max_tokens) == (0.1, 42, 5.0, 2048)
    assert (p.data.max_prompts, p.data.max_responses, p.data.max_held_out) == (None, None, 1000)
    assert (p.spaces.semantic.model, p.spaces.style.model) == (
        "jinaai/jina-embeddings-v3",
        "AnnaWegmann/Style-Embedding",
    )
    assert (p.model.name, p.model.dtype) == ("meta-llama/Llama-3.1-8B", "bfloat16")
    assert (p.model.lora_r, p.model.lora_alpha, p.model.lora_targets, p.model.last_layers) == (128, 256, None, None)
    assert (p.sft.learning_rate, p.sft.epochs, p.sft.schedule, p.sft.warmup_steps) == (3e-5, 1.0, "cosine", 500)
    assert (p.preference.dpo.learning_rate, p.preference.dpo.epochs, p.preference.beta) == (5e-6, 3.0, 0.1)
    assert (p.preference.orpo.learning_rate, p.preference.orpo.epochs, p.preference.lam) == (5e-6, 4.0, 0.25)
    for optimiser in (p.sft, p.preference.dpo, p.preference.orpo):
        assert optimiser.batch_size * optimiser.accumulation == 2 * 6  # a device, on six of them


def test_the_profile_paper_has_the_papers_reward_model_sampling_and_evaluation():
    p = load_profile("paper")
    q, s = p.quality, p.sampling
    assert (q.kind, q.base, q.lora_r, q.lora_alpha) == ("reward-model", "google/gemma-2-2b", 16, 32)
    assert (q.learning_rate, q.epochs) == (3e-5, 3.0)
    assert q.batch_size == 2 * 6
    assert (s.samples, s.temperature, s.top_k, s.top_p) == (4, 1.0, 50, 0.95)
    assert (s.repetition_penalty, s.max_new_tokens) == (1.1, 2048)
    models = {baseline.model for baseline in p.baselines.values()}
    assert models == {"meta-llama/Llama-3.1-8B-Instruct", "mistralai/Mistral-7B-Instruct-v0.3"}


def test_the_profile_paper_has_every_arm_of_the_paper_and_its_ablations():
    arms = load_profile("paper").arms
    spaces = {"semantic": ["semantic"], "style": ["style"], "both": ["semantic", "style"]}
    for name, weights in spaces.items():
        assert (arms[f"ddpo-{name}"].loss, arms[f"ddpo-{name}"].start, arms[f"ddpo-{name}"].weights) == (
            "dpo",
            "sft",
            weights,
        )
        assert (arms[f"dorpo-{name}"].loss, arms[f"dorpo-{name}"].start) == ("orpo", "base")
        assert arms[f"dorpo-{name}"].weights == weights
    assert (arms["dpo"].start, arms["dpo"].weights, arms["orpo"].start, arms["orpo"].weights) == ("sft", [], "base", [])
    rule = arms["divpo"].divpo
    assert (rule.criterion, rule.rho, rule.threshold, rule.max_pairs) == ("distance", 0.25, "count", 2)
    for most in (4, 8, 16):
        for name in ("dpo", "divpo", "ddpo-both"):
            assert arms[f"{name}-{most}"] == arms[name].model_copy(update={"responses": most, "swept": False})
    assert (arms["ddpo-both-4-floor"].floor, arms["ddpo-both-4-floor"].responses) == (0.1, 4)
    assert (arms["ddpo-both-4-best"].best_first, arms["ddpo-both-4-best"].responses) == (True, 4)


def test_the_other_base_model_changes_the_model_alone():
    paper, mistral = load_profile("paper").model_dump(), load_profile("paper-mistral").model_dump()
    assert mistral["model"].pop("name") == "mistralai/Mistral-7B-v0.3"
    assert mistral["model"].pop("revision") != paper["model"].pop("revision")
    paper["model"].pop("name")
    assert {k: v for k, v in paper.items() if k not in ("name", "what")} == {
        k: v for k, v in mistral.items() if k not in ("name", "what")
    }


def test_a_baseline_behind_a_key_names_its_variable_and_stands_in_a_profile_of_its_own():
    added = load_profile("paper-keys").baselines
    for name in load_profile("paper").baselines:
        assert added.pop(name).engine != "server"
    assert set(added) == {"gpt-4o", "gpt-4o-iter", "o1", "claude-3-5-sonnet", "deepseek-r1"}
    assert all(baseline.engine == "server" and baseline.key for baseline in added.values())
    assert added["gpt-4o-iter"].how == "iter"


def test_models_that_reason_unseen_have_room_for_it_and_for_a_story_as_long_as_the_others(tmp_path):
    steps = open_run("paper-keys", folder=tmp_path).steps
    limits = {
        name: steps[f"samples-{name}"].params["sampling"]["max_new_tokens"]
        for name in load_profile("paper-keys").baselines
    }
    reasoning = {"o1", "deepseek-r1"}
    assert all(limits.pop(name) >= 10 * 2048 for name in reasoning)
    assert set(limits.values()) == {2048}


@pytest.mark.parametrize("name", ["small", "paper", "paper-mistral"])
def test_a_profile_of_the_hub_reads_the_papers_data_in_one_folder_whether_it_is_named_or_not(name, tmp_path):
    run = open_run(name, folder=tmp_path)
    assert run.steps["corpus"].params["source"] == PAPERS_DATA
    assert run.folder == tmp_path / name
    named = open_run(name, PAPERS_DATA, tmp_path)
    assert named.folder == run.folder
    assert named.key("book") == run.key("book")
    assert open_run(name, str(PACKAGE_CORPUS), tmp_path).folder.name.startswith(f"{name}-corpus-")
    made = {f"arm-{arm}" for arm in load_profile(name).arms} | {"sft", "evaluation", "fronts", "worlds", "book"}
    assert made <= run.steps.keys()
    assert run.steps["quality"].job


# Arithmetic


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("smollm2-135m-instruct", 134_515_008),
        ("HuggingFaceTB/SmolLM2-360M", 361_821_120),
        ("Qwen/Qwen2.5-0.5B", 494_032_768),
        ("Qwen/Qwen2.5-1.5B", 1_543_714_304),
        ("meta-llama/Llama-3.1-8B", 8_030_261_248),
        ("mistralai/Mistral-7B-v0.3", 7_248_023_552),
        ("google/gemma-2-2b", 2_614_341_888),
    ],
)
def test_sizes_add_up_to_the_models_parameters(name, parameters):
    assert estimates.shape_of(name).parameters() == parameters


def test_sizes_are_those_of_the_embedded_model_and_of_the_spaces_that_are_counted():
    from transformers import AutoModelForCausalLM

    from ddpo_lib.models.models import model_place

    model = AutoModelForCausalLM.from_pretrained(model_place("smollm2-135m-instruct"))
    assert model.num_parameters() == estimates.shape_of("smollm2-135m-instruct").parameters()
    for name, vectors in COUNTED.items():
        assert estimates.hub()["encoders"][name]["width"] == vectors(["It rained.", "Who goes there?"]).shape[1]


def test_an_adapter_on_q_and_v_is_pefts_default_and_its_size_that_of_its_matrices():
    for kind in ("llama", "mistral", "qwen2", "gemma2"):
        assert sorted(TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING[kind]) == ["q_proj", "v_proj"]
    a_layer = 128 * (4096 + 4096) + 128 * (4096 + 1024)
    assert LLAMA.lora_parameters(128, None, None) == 32 * a_layer
    assert LLAMA.lora_parameters(128, ["q_proj", "v_proj"], 8) == 8 * a_layer
    with pytest.raises(InputError, match="lora_targets: lm_head is none of"):
        LLAMA.lora_parameters(128, ["lm_head"], None)


def test_an_adapter_has_the_size_that_peft_makes_it():
    from peft import LoraConfig, get_peft_model
    from tiny import LAYERS, tiny_model

    model = tiny_model()
    targets = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    adapted = get_peft_model(model, LoraConfig(r=4, target_modules=targets, task_type="CAUSAL_LM"))
    made = sum(p.numel() for p in adapted.parameters() if p.requires_grad)
    assert Shape(LAYERS, 64, 96, 4, 2, 16, 23, tied=False).lora_parameters(4, targets, None) == made


def optimiser(**fields) -> Optimiser:
    knobs = {"learning_rate": 1.0, "epochs": 1.0, "batch_size": 2, "accumulation": 6, "warmup_steps": 0}
    return Optimiser(**{**knobs, "schedule": "linear", "max_grad_norm": 1.0, **fields})


@pytest.mark.parametrize(
    ("examples", "fields", "steps"),
    [
        (24, {}, 2),
        (25, {}, 3),  # 13 batches, and a third step of one
        (24, {"epochs": 3.0}, 6),
        (24, {"epochs": 1.5}, 3),
        (5, {"accumulation": 1}, 3),
        (421_330, {}, 35_111),
        (210_665, {"epochs": 3.0}, 52_668),
    ],
)
def test_optimiser_steps(examples, fields, steps):
    assert optimiser_steps(examples, optimiser(**fields)) == steps


def test_pairs_of_an_arm_are_at_most_what_each_of_its_caps_lets_through():
    counts = Counts(responses=100, pairs=50, held_out=10, prompts=10, asked=2, tokens=100)

    def most(**fields):
        return most_pairs(Arm(loss="dpo", start="sft", **fields), counts)

    assert most() == 50
    assert most(responses=5) == 20
    assert most(divpo={}) == 20
    assert most(divpo={}, responses=2) == 10
    assert most(pairs=7, divpo={}) == 7


def test_work_and_bytes_of_worked_numbers():
    shape = Shape(1, 2, 4, 1, 1, 2, 10, tied=True)
    assert shape.parameters() == 4 * 2 * 2 + 3 * 2 * 4 + 2 * 2 + 2 + 10 * 2  # attention, layer between, norms, table
    assert shape.forward_flops(100) == 2 * 66 + 2 * 1 * 2 * 100
    assert costs.training_flops(shape, 1000, 100, 3) == 1000 * 3 * 532
    # 6 sequences, 4 at once: two batches of 10 steps, each reading the weights, and 4 x (5 + 5) tokens of 8 bytes
    assert costs.sampling_bytes(shape, 6, 5, 10, 60) == 2 * 10 * (2 * 66 + 4 * 10 * 8)
    memory = costs.training_memory(shape, "bfloat16", 12, False, 2, 3)
    assert memory == 66 * 2 + 12 * 16 + 2 * 3 * (2 + 8 * 2 + 4 * 4) * 2 + costs.CONTEXT
    assert costs.training_memory(shape, "float32", 66, True, 2, 3) == 66 * 16 + 2 * 3 * 34 * 4 + costs.CONTEXT


def test_the_papers_data_is_counted_as_the_paper_does():
    counts = count(load_profile("paper"), PAPERS_DATA)
    assert (counts.responses, counts.pairs, counts.asked) == (421_330, 210_665, 1000)
    assert counts.prompts is None
    small = count(load_profile("small"), PAPERS_DATA)
    assert (small.prompts, small.responses, small.pairs, small.asked) == (2700, 2700 * 16, 1350 * 16, 200)
    assert count(load_profile("paper"), "someone/else").responses is None


def test_a_corpus_of_ones_own_is_read_and_counted(tmp_path):
    source = tmp_path / "mine.jsonl"
    stories = [{"text": f"one two three {i}", "score": float(i)} for i in range(4)]
    source.write_text("".join(json.dumps({"prompt": f"Prompt {i}", "responses": stories}) + "\n" for i in range(40)))
    counts = count(load_profile("paper"), str(source))
    held_out = 40 - counts.prompts  # which prompts are held out, their texts decide: a tenth of them, about
    assert 0 < held_out < 12
    assert (counts.responses, counts.held_out, counts.asked) == (4 * counts.prompts, 4 * held_out, held_out)
    assert counts.pairs == 2 * counts.prompts
    assert counts.tokens == pytest.approx(6 * estimates.TOKENS_A_WORD)


def test_prompts_that_the_package_adds_are_counted():
    assert count(load_profile("embedded"), str(PACKAGE_CORPUS)).asked > 150


# The plan


@pytest.mark.parametrize("name", names())
def test_every_profile_has_a_plan(name):
    said = describe(planned(name))
    assert "as measured on 2026-11-29" in said
    for choice in load_profile(name).spaces.choices().values():
        assert choice.model in said


def test_the_plan_of_the_paper_says_what_must_be_settled_first():
    said = "\n".join(planned("paper")["settle"])
    for name in ("meta-llama/Llama-3.1-8B", "google/gemma-2-2b"):
        assert f"https://huggingface.co/{name}" in said
    assert "HF_TOKEN" in said
    assert "spaces.semantic.trust_remote_code" in said
    assert "AnnaWegmann" not in said
    assert "OPENAI_API_KEY" not in said
    assert "OPENAI_API_KEY holds no key" in "\n".join(planned("paper-keys")["settle"])


def test_remote_code_that_is_pinned_is_settled(tmp_path):
    mine = tmp_path / "mine.yaml"
    pinned = f"{{trust_remote_code: true, revision: {'0123456789' * 4}}}"
    mine.write_text(f"extends: paper\nname: mine\nspaces: {{semantic: {pinned}}}\n")
    made = planned(str(mine))
    assert "trust_remote_code" not in "\n".join(made["settle"])
    assert f"revision {'0123456789' * 4}" in describe(made)


def test_a_space_with_code_of_its_own_that_nobody_trusts_says_what_to_do(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "mine", "auto_map": {"AutoConfig": "own.Mine"}}')
    (tmp_path / "own.py").write_text("raise SystemExit('this must not run')\n")
    with pytest.raises(InputError, match=r"brings code of its own.*trust_remote_code: true"):
        _encoder(Space(str(tmp_path)))


def test_a_plan_counts_steps_and_hours_arm_by_arm():
    made = planned("paper")
    steps = {cost.step: cost.steps for cost in made["costs"]}
    assert steps["sft"] == 35_111
    assert steps["arm-dpo"] == steps["arm-ddpo-both"] == 52_668
    assert steps["arm-dorpo-both"] == 70_224
    # DPO: 3 epochs of 3 passes and the reference's one; ORPO: 4 epochs of 3 passes
    assert hours(made)["arm-dpo"] / hours(made)["arm-orpo"] == pytest.approx(10 / 12)
    half = Speed("half", "2026-11-29", flops=SPEED.flops / 2, bandwidth=SPEED.bandwidth / 4)
    slower = hours(planned("paper", speed=half))
    assert slower["arm-dpo"] / hours(made)["arm-dpo"] == pytest.approx(2)
    assert slower["samples-dpo"] / hours(made)["samples-dpo"] == pytest.approx(4)


def test_without_a_measurement_there_are_no_hours():
    made = planned("paper", speed=None)
    assert set(hours(made).values()) == {None}
    said = describe(made)
    assert "hours" not in said.splitlines()[[line.startswith("step ") for line in said.splitlines()].index(True)]
    assert "`python -m benchmarks.gpu`" in said
    assert {cost.step: cost.memory for cost in made["costs"]} == {c.step: c.memory for c in planned("paper")["costs"]}


@pytest.fixture
def measured(tmp_path):
    """What `python -m benchmarks.gpu` writes, with speeds that are easy to follow."""
    content = {"shape": "llama-8b", **asdict(SHAPES["llama-8b"]), "made": "2026-11-29", "hardware": {"gpu": "a GPU"}}
    content["measured"] = {costs.TRAINED: {"tokens_per_second": 1e4}, costs.SAMPLED: {"tokens_per_second": 2e3}}
    file = tmp_path / "speed.json"

    def write(**changed):
        file.write_text(json.dumps(content | changed))
        return file

    return write


def test_the_work_that_was_measured_takes_the_time_that_was_measured(measured):
    speed, shape = read_speed(measured()), SHAPES["llama-8b"]
    context = shape.prompt + shape.story
    assert costs.training_flops(LLAMA, 1e4, context, 3) / speed.flops == pytest.approx(1)
    sequences = 4 * shape.asked
    read = costs.sampling_bytes(LLAMA, sequences, shape.prompt, shape.new_tokens, shape.batch_tokens)
    assert read / speed.bandwidth == pytest.approx(sequences * shape.new_tokens / 2e3)
    assert (speed.gpu, speed.made) == ("a GPU", "2026-11-29")


def test_measurements_that_tell_nothing_give_no_speed(measured, tmp_path):
    assert read_speed(tmp_path / "none.json") is None
    assert read_speed(measured(shape="tiny")) is None
    assert read_speed(measured(hardware={"gpu": None})) is None
    assert read_speed(measured(measured={costs.TRAINED: {"failed": "out of memory"}})) is None
    with pytest.raises(InputError, match=r"speed.json: not what `python -m benchmarks.gpu` writes"):
        read_speed(measured(layers="many"))


def test_the_names_of_the_measurements_are_those_of_the_benchmark():
    assert {costs.TRAINED, costs.SAMPLED} <= set(benchmarks.gpu.names())
    assert costs.MEASURED in SHAPES


def test_a_baseline_with_a_limit_of_its_own_is_sampled_as_long(tmp_path):
    mine = tmp_path / "mine.yaml"
    mine.write_text("extends: paper\nname: mine\nbaselines: {instruct: {max_new_tokens: 1024}}\n")
    paper, own = hours(planned("paper")), hours(planned(str(mine)))
    assert own.pop("samples-instruct") < paper.pop("samples-instruct")
    assert own == paper


def test_a_gpu_that_is_too_small_is_named_and_an_unknown_one_too():
    assert any("samples-dpo" in line and "24" in line for line in planned("paper", gpu="4090")["settle"])
    assert not any("GB expected" in line for line in planned("paper")["settle"])
    assert not any("GB expected" in line for line in planned("small", gpu="4090")["settle"])
    with pytest.raises(InputError, match="--gpu B3: unknown; choose one of A100"):
        planned("small", gpu="B3")
    assert set(GPUS) >= {"H100", "H200"}


def test_a_model_that_nothing_is_known_of_gets_no_number(tmp_path):
    mine = tmp_path / "mine.yaml"
    mine.write_text("extends: small\nname: mine\nmodel: {name: someone/unheard-of}\n")
    made = planned(str(mine))
    assert "arm-dpo" not in hours(made)
    assert any("someone/unheard-of: its size is not known" in line for line in made["settle"])


def test_an_encoder_that_is_nowhere_is_named(tmp_path):
    mine = tmp_path / "mine.yaml"
    mine.write_text("extends: embedded\nname: mine\nspaces: {semantic: {model: minilmm}}\n")
    assert "space semantic, minilmm: no wheel, no folder" in "\n".join(planned(str(mine))["settle"])


def test_the_command_prints_the_plan_and_leaves_nothing(tmp_path):
    done = CliRunner().invoke(app, ["plan", "--profile", "paper", "--runs", str(tmp_path / "runs")])
    assert done.exit_code == 0, done.output
    for word in ("meta-llama/Llama-3.1-8B", "arm-ddpo-both", "52,668", "downloads", "at most 421,330 responses"):
        assert word in done.output
    assert not list(tmp_path.iterdir())
