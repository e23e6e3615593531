"""The ids of prompts and responses in a table that a user may have joined or numbered -> ids that are told apart."""

import logging

import pandas as pd

from ddpo_lib.base.errors import InputError

log = logging.getLogger(__name__)


def check_ids(table: pd.DataFrame) -> None:
    """Raise InputError if a row has no prompt id, or if one id stands for several prompts or responses."""
    missing = table["prompt_id"].isna().to_numpy()
    if missing.any():
        raise InputError(f"row {missing.argmax() + 1}: no prompt_id")
    if "prompt" not in table:
        return
    prompts = table.groupby("prompt_id")["prompt"].agg(["nunique", "first", "last"])
    repeated = prompts[prompts["nunique"] > 1]
    if len(repeated):
        first = repeated.iloc[0]
        raise InputError(
            f"prompt_id {repeated.index[0]} stands for {first['nunique']} prompts, such as {_short(first['first'])} "
            f"and {_short(first['last'])}; {len(repeated)} ids do so. Tables were joined: give each prompt "
            "an id of its own"
        )
    if "response_id" in table and (twice := table["response_id"].duplicated()).any():
        name = table.loc[twice, "response_id"].iloc[0]
        raise InputError(
            f"response_id {name} stands for {(table['response_id'] == name).sum()} responses. Tables were joined: give "
            "each response an id of its own"
        )


def told_apart(table: pd.DataFrame, source: str) -> pd.DataFrame:
    """A table of weights with one id per prompt and one per response, as text, and without rows that repeat.

    Each table numbers its prompts from 0, so ids repeat in joined tables; the text of the prompt tells them apart.
    Weights compare the responses to one prompt, so they hold in a joined table.

    Args:
        table: `prompt_id response_id prompt text`, and more.
        source: the file, for messages.

    Raises:
        InputError: a prompt, an id or a text is missing; or responses to one prompt were weighed in two tables, so that
            their weights cannot be compared. Names the row or the prompt.
    """
    for column in ("prompt_id", "response_id", "prompt", "text"):
        missing = table[column].isna().to_numpy()
        if missing.any():
            raise InputError(f"{source}, row {missing.argmax() + 1}: no `{column}`; take the row out")
    for column in ("prompt", "text"):
        wrong = [i for i, value in enumerate(table[column], 1) if not isinstance(value, str)]
        if wrong:
            value = table[column].iloc[wrong[0] - 1]
            raise InputError(f"{source}, row {wrong[0]}, column `{column}`: expected text, got {value!r:.80}")
    table = table.assign(prompt_id=_as_text(table["prompt_id"]), response_id=_as_text(table["response_id"]))
    repeats = table.duplicated(["prompt_id", "response_id", "prompt", "text"]).to_numpy()
    if repeats.any():
        log.warning("%s: %d rows repeat another one and are left out", source, repeats.sum())
        table = table[~repeats].reset_index(drop=True)
    twice = table.duplicated(["prompt", "response_id"]) | (
        table.groupby("prompt")["prompt_id"].transform("nunique") > 1
    )
    if twice.any():
        raise InputError(
            f"{source}: the responses to {_short(table.loc[twice.idxmax(), 'prompt'])} were weighed in two tables "
            f"({table.loc[twice, 'prompt'].nunique()} prompts in all), so their weights cannot be compared. Give "
            "`ddpo weights` one corpus with all responses"
        )
    several = table.groupby("prompt_id")["prompt"].transform("nunique") > 1
    if several.any() or table["response_id"].duplicated().any():
        count = table.loc[several, "prompt_id"].nunique(), table["response_id"].duplicated().sum()
        log.warning(
            "%s: %d ids of prompts and %d of responses repeat, as in joined tables; texts tell them apart",
            source,
            *count,
        )
        number = table.groupby("prompt", sort=False).ngroup().astype(str).str.zfill(5)
        table = table.assign(prompt_id="p" + number, response_id="p" + number + "-" + table["response_id"])
    return table


def _as_text(ids: pd.Series) -> pd.Series:
    """Ids as text; whole numbers that a tool made floats are written without their point."""
    if pd.api.types.is_float_dtype(ids) and (ids == ids.round()).all():
        ids = ids.astype("int64")
    return ids.astype(str)


def _short(text) -> str:
    text = " ".join(str(text).split())
    return repr(text if len(text) <= 60 else text[:57] + "...")
