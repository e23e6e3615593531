"""An analysis of votes -> text for a terminal."""

from ddpo_lib.people.two_way_intervals import CHANCE
from ddpo_lib.people.vote_results import Analysis
from ddpo_lib.people.votes import QUESTIONS


def describe(analysis: Analysis) -> str:
    """An analysis as text for a terminal."""
    from ddpo_lib.profiles.wording import interval, name, p_value

    confidence = f"{analysis['confidence']:.0%}"
    over = "over items and annotators" if len(analysis["annotators"]) > 1 else "over items, for this one annotator,"
    lines = [
        f"{analysis['answers']} answers of {len(analysis['annotators'])} annotators to {len(analysis['items'])} items; "
        f"[{confidence} intervals], {over} where not said otherwise; p two-sided, then after Holm"
    ]

    def tested(found: dict, p: str = "p") -> str:
        return f"p {p_value(found[p]) or '—'}, {p_value(found[f'{p}_corrected']) or '—'}"

    for question in QUESTIONS:
        found = analysis[question]
        agreed, side, plans = found["agreement"], found["side"], found["detection"]
        lines.append(f"\n{question}")
        lines += [f"  {kind:<32}{interval(found[kind])}" for kind in ("first", "second", "tie")]
        lines.append(f"  {'first, a tie as half':<32}{interval(found['score'])}   {tested(found['score'])}")
        lines.append(f"  {'first, of decided labels':<32}{interval(found['wins'])}   {tested(found['wins'])}")
        for level in ("labels", "items"):
            one = found[level]
            rates = f"{one['first']} / {one['second']} / {one['ties']} ties, {interval(one)} exact"
            lines.append(f"  {'by ' + level:<32}{rates}   {tested(one)}; ties as half wins {tested(one, 'p_half')}")
        pairs = "—" if agreed["pairs"] is None else f"{agreed['pairs']:.0%}"
        lines.append(
            f"  {'agreement':<32}alpha {interval(agreed['alpha'], 2)}, {pairs} of pairs; items: {agreed['unanimous']} "
            f"unanimous, {agreed['majority']} by majority, {agreed['neither']} neither"
        )
        lines.append(
            f"  {'left side, a tie as half':<32}{interval(side['left'])}   p {p_value(side['left']['p']) or '—'}"
        )
        paper = f"the paper's ({name(plans['paper_against'])})"
        for part, said in (("seen", "what was seen"), ("half", "half of it"), ("paper", paper)):
            plan = plans[part]
            needed = "more items than can be planned" if plan["needed"] is None else f"{plan['needed']} items"
            shares = f"{plan['first']:.0%} / {plan['second']:.0%}"
            lines.append(f"  {'detects ' + said:<32}{shares}: {plan['chance']:.0%}; {needed} for {CHANCE:.0%}")
    return "\n".join([*lines, "", *_describe_annotators(analysis)])


def _describe_annotators(analysis: Analysis) -> list[str]:
    from ddpo_lib.profiles.wording import interval

    time, attention = analysis["time"], analysis["attention"]
    lines = []
    if time["known"]:
        lines.append(
            f"time: median {time['median']:.0f} s an item, quartiles {time['low']:.0f} and {time['high']:.0f}; "
            f"{time['fast']} of {time['known']} under {time['bar']:.0f} s"
        )
    lines.append(f"attention checks: {attention['failed']} of {attention['checks']} failed")
    if analysis["attentive"]:
        said = "; ".join(f"{q} {interval(analysis['attentive'][q]['score'])}" for q in QUESTIONS)
        lines.append(f"  without {', '.join(attention['annotators'])}: first, a tie as half: {said}")
    lines.append(
        f"{'annotator':<24}{'answers':>8}" + "".join(f"{q + ' f/s/t':>20}" for q in QUESTIONS) + f"{'left':>7}{'s':>6}"
    )
    for one in analysis["annotators"]:
        votes = "".join(f"{one[q]['first']:>12}/{one[q]['second']}/{one[q]['ties']}".rjust(20) for q in QUESTIONS)
        left = "" if one["left"] is None else f"{one['left']:.0%}"
        seconds = "" if one["seconds"] is None else f"{one['seconds']:.0f}"
        lines.append(f"{one['annotator'][:23]:<24}{one['answers']:>8}{votes}{left:>7}{seconds:>6}")
    return lines
