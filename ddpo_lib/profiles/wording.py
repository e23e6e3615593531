"""Arms and numbers as prose writes them."""

NAMES = {
    "gold": "Gold (the corpus)",
    "gpt-4o": "GPT-4o",
    "instruct": "Instruct",
    "instruct-iter": "Instruct, told to differ",
    "instruct-verbalized": "Instruct, verbalized",
}
METHODS = {"sft": "SFT", "dpo": "DPO", "orpo": "ORPO", "ddpo": "DDPO", "dorpo": "DORPO", "divpo": "DivPO"}


def name(arm: str) -> str:
    """An arm as prose writes it: `ddpo-both` is DDPO-both; a name of the user's own stays as it is."""
    method, _, space = arm.partition("-")
    if method in METHODS:
        return f"{METHODS[method]}-{space}" if space else METHODS[method]
    return NAMES.get(arm, arm)


def p_value(p: float | None) -> str:
    """`0.032`, `< 0.001`, or an empty text if p is None."""
    return "" if p is None else "< 0.001" if p < 0.001 else f"{p:.3f}"


def interval(values: dict, digits: int = 3, sign: bool = False) -> str:
    """`0.412 [0.398, 0.425]`, with a sign for a difference; `0.412 [no interval]`, or `—` without a mean."""
    style = f"{{:{'+' if sign else ''}.{digits}f}}"
    if values["mean"] is None:
        return "—"
    if values["low"] is None:
        return style.format(values["mean"]).replace("-", "−") + " [no interval]"
    return f"{style} [{style}, {style}]".format(values["mean"], values["low"], values["high"]).replace("-", "−")
