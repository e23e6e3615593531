"""What a profile's names stand for: its spaces and its reward."""

from pathlib import Path

from ddpo_lib.profiles.profile import Profile


def space(profile: Profile, name: str):
    """The space that a profile calls "semantic", "style" or by another name."""
    from ddpo_lib.spaces.embed import Space

    choice = profile.spaces.choices()[name]
    return Space(**choice.model_dump())


def fit_reward(profile: Profile, corpus, folder: Path) -> tuple:
    """Fit the reward that the profile names and save it in a folder, for `load_reward`.

    Args:
        profile: its section `quality` says which reward.
        corpus: the table of `corpus.read_corpus`. The reward is fitted to its scored training responses and tested on
            its held-out ones.
        folder: where the reward is saved; a reward model resumes from a checkpoint there. `seen_prompts.json` there
            lists the prompts whose responses the reward was fitted to, or which decided when to stop.

    Returns:
        The reward; the table of `quality.predict_held_out`; and the report on it, with the reward's `name` and `facts`.

    Raises:
        InputError: no training response has a score, or a score of the reward is not finite.
    """
    from ddpo_lib.data import seen_prompts
    from ddpo_lib.measures import quality

    train, held_out = quality.split_scored(corpus)
    if profile.quality.kind == "reward-model":
        from ddpo_lib.measures import reward_model

        reward = reward_model.fit(train, profile.quality, profile.seed, folder)
    else:
        from ddpo_lib.measures import stand_in

        reward = stand_in.fit(train, space(profile, "semantic"), space(profile, "style"))
    reward.save(folder)
    seen_prompts.write(folder, train["prompt"])
    held_out = quality.predict_held_out(reward, held_out)
    found = quality.report(held_out["predicted"].to_numpy(), held_out, profile.seed)
    return reward, held_out, {"name": reward.name, "facts": reward.facts, **found}


def load_reward(profile: Profile, folder: Path):
    """The reward of the profile's kind that `fit_reward` saved in a folder."""
    if profile.quality.kind == "reward-model":
        from ddpo_lib.measures.reward_model import RewardModel as Kept
    else:
        from ddpo_lib.measures.stand_in import StandIn as Kept
    return Kept.load(folder)
