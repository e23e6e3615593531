import json
from pathlib import Path

import pytest
from pydantic import ValidationError

from ddpo_lib.base.errors import InputError
from ddpo_lib.profiles.profile import load_profile, names, twins


def written(folder: Path, content: str | bytes, name: str = "mine.yaml") -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize("name", names())
def test_every_packaged_profile_loads_under_its_own_name(name):
    profile = load_profile(name)
    assert profile.name == name
    assert profile.what
    assert "{prompt}" in profile.model.template


def test_the_packaged_profiles_are_there():
    assert {"embedded", "smoke"} <= set(names())


def test_a_profile_that_extends_changes_what_it_names_and_nothing_else(tmp_path):
    path = written(tmp_path, "extends: embedded\nname: mine\nsampling: {samples: 9}\npreference: {dpo: {epochs: 5}}\n")
    base, mine = load_profile("embedded").model_dump(), load_profile(path).model_dump()
    base["name"], base["sampling"]["samples"], base["preference"]["dpo"]["epochs"] = "mine", 9, 5.0
    assert mine == base


def test_arms_are_replaced_whole(tmp_path):
    path = written(tmp_path, "extends: smoke\narms: {orpo: {loss: orpo, start: base}}\nevaluation: {against: orpo}\n")
    profile = load_profile(path)
    assert set(profile.arms) == {"orpo"}
    assert profile.arms["orpo"].weights == []
    assert profile.data == load_profile("smoke").data


def test_a_profile_may_extend_a_file_that_extends(tmp_path):
    middle = written(tmp_path, "extends: smoke\ndata: {max_prompts: 3, gap: 2}\n", "middle.yaml")
    profile = load_profile(written(tmp_path, f"extends: {middle}\ndata: {{max_prompts: 4}}\n"))
    assert (profile.data.max_prompts, profile.data.gap) == (4, 2.0)
    assert profile.data.max_responses == load_profile("smoke").data.max_responses


def test_the_reward_models_knobs_are_the_papers_unless_named(tmp_path):
    path = written(tmp_path, "extends: embedded\nquality: {kind: reward-model, epochs: 1}\n")
    chosen = load_profile(path).quality
    assert (chosen.base, chosen.lora_r, chosen.lora_alpha) == ("google/gemma-2-2b", 16, 32)
    assert (chosen.learning_rate, chosen.epochs) == (3e-5, 1.0)
    assert load_profile("embedded").quality.kind == "stand-in"


BAD_KNOBS = {
    "unknown knob": ("sampling: {sample: 4}", "sampling.sample"),
    "unknown section": ("smapling: {samples: 4}", "smapling"),
    "unknown knob of an arm": ("arms: {x: {loss: dpo, start: sft, weight: [style]}}", "arms.x.weight"),
    "text for a number": ("data: {gap: five}", "data.gap"),
    "number as text": ("sft: {learning_rate: '0.1'}", "sft.learning_rate"),
    "fraction for a whole number": ("data: {max_prompts: 2.5}", "data.max_prompts"),
    "truth value for a number": ("sampling: {samples: true}", "sampling.samples"),
    "number for a text": ("what: 3", "what"),
    "number for a section": ("model: 3", "model"),
    "nothing for a number": ("seed:", "seed"),
    "out of range": ("data: {held_out: 1.5}", "data.held_out"),
    "below the least": ("sampling: {samples: 1}", "sampling.samples"),
    "not a number": ("preference: {beta: .nan}", "preference.beta"),
    "unknown loss": ("arms: {x: {loss: ppo, start: sft}}", "arms.x.loss"),
    "unknown reward": ("quality: {kind: judge}", "quality.kind"),
    "no prompts to stop by": ("quality: {kind: reward-model, dev: 0.0}", "quality.dev"),
    "reward steps as text": ("quality: {kind: reward-model, learning_rate: fast}", "quality.learning_rate"),
    "unknown knob of the reward": ("quality: {lora_alfa: 8}", "quality.lora_alfa"),
    "remote code at a branch": (
        "spaces: {style: {model: a/b, revision: main, trust_remote_code: true}}",
        "spaces.style",
    ),
    "remote code unpinned": ("spaces: {style: {model: a/b, trust_remote_code: true}}", "spaces.style"),
}


@pytest.mark.parametrize(("change", "field"), BAD_KNOBS.values(), ids=BAD_KNOBS)
def test_a_bad_knob_is_named_with_its_file(tmp_path, change, field):
    path = written(tmp_path, f"extends: embedded\n{change}\n")
    with pytest.raises(InputError) as error:
        load_profile(path)
    assert str(error.value).startswith(f"{path}, field `{field}`: ")


def test_a_knob_left_out_of_a_profile_that_extends_nothing_is_named(tmp_path):
    path = written(tmp_path, "name: mine\nwhat: too little\nseed: 0\n")
    with pytest.raises(InputError, match=r"mine\.yaml, field `data`"):
        load_profile(path)


@pytest.mark.parametrize(
    "content",
    ["data: [1", "- embedded\n- smoke\n", "embedded", "", b"what: caf\xe9\n", b"what: \x00\n"],
    ids=["open bracket", "list", "word", "empty", "latin-1", "control character"],
)
def test_what_is_no_mapping_in_yaml_is_named(tmp_path, content):
    path = written(tmp_path, content)
    with pytest.raises(InputError) as error:
        load_profile(path)
    assert str(error.value).startswith(str(path))
    assert "\n" not in str(error.value)


def test_an_arm_that_weighs_by_an_unknown_space_is_named_with_the_spaces_there_are(tmp_path):
    path = written(tmp_path, "extends: smoke\narms: {dpo: {loss: dpo, start: sft, weights: [colour]}}\n")
    with pytest.raises(InputError, match=r"arms\.dpo: colour is none of the spaces semantic, style, lexical, delta"):
        load_profile(path)


def test_an_unknown_profile_is_named_with_those_there_are(tmp_path):
    for name in ("embeded", str(tmp_path / "missing.yaml")):
        with pytest.raises(InputError) as error:
            load_profile(name)
        assert name in str(error.value)
        assert "embedded, full" in str(error.value)


def test_an_unknown_profile_in_extends_is_named_with_the_file_that_asks_for_it(tmp_path):
    path = written(tmp_path, "extends: embeded\n")
    with pytest.raises(InputError) as error:
        load_profile(path)
    assert str(path) in str(error.value)
    assert "`extends`" in str(error.value)
    assert "embeded" in str(error.value)


def test_a_profile_that_extends_itself_is_named(tmp_path):
    itself = tmp_path / "itself.yaml"
    written(tmp_path, f"extends: {itself}\n", itself.name)
    there, back = tmp_path / "there.yaml", tmp_path / "back.yaml"
    written(tmp_path, f"extends: {back}\n", there.name)
    written(tmp_path, f"extends: {there}\n", back.name)
    for path in (itself, there):
        with pytest.raises(InputError) as error:
            load_profile(path)
        assert "field `extends`" in str(error.value)
        assert str(tmp_path) in str(error.value)


UNSAFE = [
    "../up",
    "/top",
    "..",
    "",
    ".hidden",
    "-rf",
    "a/b",
    "a; touch ran",
    "$(touch ran)",
    "a\\nb",
    "it's",
    "x" * 101,
]


@pytest.mark.parametrize("name", UNSAFE)
@pytest.mark.parametrize(
    ("field", "change"),
    {
        "name": "name: NAME",
        "arms": "arms: {dpo: {loss: dpo, start: sft}, NAME: {loss: dpo, start: sft}}",
        "online": "online: {NAME: {arm: {loss: dpo, start: sft}, prompts: 2, samples: 2, max_new_tokens: 8}}",
        "baselines": "baselines: {NAME: {}}",
        "spaces.others": "spaces: {others: {NAME: {model: lexical}}}",
        "worlds.rows": "worlds: {rows: {NAME: {arm: {loss: dpo, start: sft}}}}",
        "domains.rows": "domains: {rows: {NAME: {arm: {loss: dpo, start: sft}}}}",
        "programs.rows": "programs: {rows: {NAME: {arm: {loss: dpo, start: sft}}}}",
        "worlds.kinds": "worlds: {kinds: {NAME: {prompts: 16, held_out: 4}}}",
    }.items(),
)
def test_a_name_that_would_leave_the_run_or_reach_a_shell_is_refused(tmp_path, field, change, name):
    path = written(tmp_path, f"extends: smoke\n{change.replace('NAME', json.dumps(name))}\n".encode())
    with pytest.raises(InputError) as error:
        load_profile(path)
    assert str(error.value).startswith(f"{path}, field `{field}`: {name!r} cannot name a folder")


@pytest.mark.parametrize("name", ["gpt-4.1", "my run", "手本", "a_b+c", "7"])
def test_names_that_people_give_are_names(tmp_path, name):
    path = written(tmp_path, f"extends: smoke\nname: '{name}'\nbaselines: {{'{name}': {{}}}}\n".encode())
    assert load_profile(path).name == name


def test_a_relative_path_begins_at_the_folder_of_the_file_that_contains_it(tmp_path, monkeypatch):
    folder = tmp_path / "my settings"
    (folder / "models" / "a").mkdir(parents=True)
    (folder / "stories.jsonl").write_text("")
    monkeypatch.chdir(tmp_path)
    written(folder, "extends: smoke\nmodel: {name: models/a}\nbaselines: {b: {model: models/a}, c: {model: Qwen/Q}}\n")
    (folder / "more").mkdir()
    written(folder / "more", "extends: ../mine.yaml\ndata: {source: ../stories.jsonl, prompts: package}\n")
    for path in ("my settings/more/mine.yaml", folder / "more" / "mine.yaml"):
        profile = load_profile(path)
        assert profile.model.name == profile.baselines["b"].model == str(folder / "models" / "a")
        assert (profile.baselines["c"].model, profile.data.prompts) == ("Qwen/Q", "package")
        assert Path(profile.data.source).samefile(folder / "stories.jsonl")
        assert Path(profile.data.source).is_absolute()


@pytest.mark.parametrize("change", ["data: {source: x.jsonl}", "data: {prompts: x.jsonl}", "model: {name: models/a}"])
def test_a_path_that_begins_at_the_current_folder_is_named_with_the_one_to_write(tmp_path, change, monkeypatch):
    (tmp_path / "models" / "a").mkdir(parents=True)
    (tmp_path / "x.jsonl").write_text("")
    (tmp_path / "deep").mkdir()
    path = written(tmp_path / "deep", f"extends: smoke\n{change}\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"write \.\./(x\.jsonl|models/a) or an absolute path"):
        load_profile(path)


def test_a_profile_is_frozen():
    profile = load_profile("smoke")
    for section, knob in ((profile, "seed"), (profile.data, "gap"), (profile.arms["dpo"], "loss")):
        with pytest.raises(ValidationError, match="frozen"):
            setattr(section, knob, getattr(section, knob))


def test_each_arm_is_compared_with_the_one_that_lacks_what_it_tries():
    paper = twins(load_profile("paper"))
    assert paper["sft"] is None
    assert {paper[arm] for arm in ("dpo", "orpo", "dpo-4")} == {"sft"}
    assert {paper[arm] for arm in ("ddpo-semantic", "ddpo-style", "ddpo-both", "divpo")} == {"dpo"}
    assert {paper[f"dorpo-{space}"] for space in ("semantic", "style", "both")} == {"orpo"}
    assert {paper[arm] for arm in ("divpo-4", "ddpo-both-4", "ddpo-both-4-floor", "ddpo-both-4-best")} == {"dpo-4"}
    assert {paper[arm] for arm in ("gold", "instruct", "instruct-verbalized")} == {"dpo"}
    study = twins(load_profile("gpu-study"))
    assert (study["divpo-ddpo"], study["divpo-steps"]) == ("divpo", "dpo")
    assert (study["dpo-divpo-pairs"], study["ddpo-both-divpo-pairs"]) == ("sft", "dpo-divpo-pairs")
    embedded = twins(load_profile("embedded"))
    assert (embedded["dorpo-both"], embedded["ddpo-both-power-2"], embedded["divpo"]) == ("orpo", "dpo", "dpo")
    assert twins(load_profile("deviation")) == {}


def test_an_arm_may_name_the_one_it_is_compared_with(tmp_path):
    arms = "extends: smoke\narms: {{dpo: {{loss: dpo, start: sft}}, d: {{loss: orpo, start: sft, against: {}}}}}\n"
    assert twins(load_profile(written(tmp_path, arms.format("dpo"))))["d"] == "dpo"
    for other in ("d", "gold"):
        with pytest.raises(InputError, match=f"arms.d.against: {other} is no other arm"):
            load_profile(written(tmp_path, arms.format(other)))
