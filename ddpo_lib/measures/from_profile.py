"""What a profile's names stand for: its spaces and its reward."""

from pathlib import Path

from ddpo_lib.profiles.settings import Profile


def space(profile: Profile, name: str):
    """The space that a profile means by "semantic", "style" or the name of another."""
    from ddpo_lib.spaces.embed import Space

    choice = profile.spaces.choices()[name]
    return Space(choice.model, choice.revision, choice.trust_remote_code)


def fit_reward(profile: Profile, corpus, folder: Path) -> tuple:
    """Fit the reward that the profile names and save it in a folder, for `load_reward`.

    Args:
        profile: its section `quality` says which reward.
        corpus: the table of `corpus.read_corpus`; its scored training responses teach, its held-out ones judge.
        folder: to fill; a reward model goes on from a checkpoint that it finds there. `seen_prompts.json` there lists
            the prompts whose responses it learned from, or was stopped by.

    Returns:
        The reward; the table of `quality.judge_held_out`; and the report on it, with the reward's `name` and `facts`.

    Raises:
        InputError: no scored response to learn from, or a reward whose scores are not finite.
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
    judged = quality.judge_held_out(reward, held_out)
    found = quality.report(judged["predicted"].to_numpy(), judged, profile.seed)
    return reward, judged, {"name": reward.name, "facts": reward.facts, **found}


def load_reward(profile: Profile, folder: Path):
    """The reward of the profile's kind that `fit_reward` saved in a folder."""
    if profile.quality.kind == "reward-model":
        from ddpo_lib.measures.reward_model import RewardModel as Kept
    else:
        from ddpo_lib.measures.stand_in import StandIn as Kept
    return Kept.load(folder)
