"""What `benchmarks.scale` measured -> what a larger corpus needs, and the tables that the book shows."""

import numpy as np

from ddpo_lib.data.divided import MOST

PLANNED = 1_000_000_000  # responses
CORES = (64, 1000)  # of a cluster
STEPS = ("divide", "weights", "merge")
MILLION = 1_000_000
ASKED = 10 * MILLION  # responses of the largest run that is asked for


def plan(found: dict, responses: int) -> dict:
    """What a corpus of so many responses needs, at the rates of the largest run: time and disk grow with the responses.

    The memory of `divide` and `merge` depends on the number of parts, and that of a shard on its responses. It is a
    measured one where one was measured, else on the straight line through the measured ones.

    Args:
        found: `runs`, each as from `scale.measure`, and `encoders`, each as from `scale.speed`.
        responses: the number planned.

    Returns:
        A mapping for JSON; empty if no run is whole. `measured` is the run whose rates are used. `steps` has, by
        command, `processes`, `core_hours`, `hours` by number of cores, `peak_mb` of a process (None if it is unknown),
        and `bytes` written. `disk` is the sum of these and the corpus. `encoders` has core-hours of embedding, by name.
    """
    whole = {name: one for name, one in found.get("runs", {}).items() if "checked" in one}
    if not whole:
        return {}
    name, largest = max(whole.items(), key=lambda item: (item[1]["responses"], item[1]["parts"]))
    times, parts = responses / largest["responses"], min(MOST, -(-responses // _part(largest)))
    processes = {"divide": 1, "weights": parts, "merge": 1}
    peaks = {
        "divide": _at(parts, [(one["parts"], one["commands"]["divide"]["peak_mb"]) for one in found["runs"].values()]),
        "weights": _at(
            responses // parts, [(_part(one), one["commands"]["weights"]["peak_mb"]) for one in whole.values()]
        ),
        "merge": _at(parts, [(one["parts"], one["commands"]["merge"]["peak_mb"]) for one in whole.values()]),
    }
    steps = {}
    for step in STEPS:
        cost = largest["commands"][step]
        hours = times * cost["core_seconds"] / 3600
        steps[step] = {
            "processes": processes[step],
            "core_hours": round(hours, 1),
            "hours": {str(cores): round(_elapsed(hours, processes[step], cores), 2) for cores in CORES},
            "peak_mb": peaks[step],
            "bytes": round(times * cost["bytes"]),
        }
    corpus = round(times * largest["bytes"])
    rates = {name: one["texts_per_core_second"] for name, one in found.get("encoders", {}).items()}
    encoders = {name: round(responses / rate / 3600, 1) for name, rate in rates.items()}
    return {
        "responses": responses,
        "parts": parts,
        "measured": name,
        "corpus": corpus,
        "steps": steps,
        "disk": corpus + sum(step["bytes"] for step in steps.values()),
        "encoders": encoders,
    }


def _part(run: dict) -> int:
    return -(-run["responses"] // run["parts"])


def _elapsed(hours: float, processes: int, cores: int) -> float:
    """Hours on the clock of so many equal processes of one core each."""
    return hours / processes * -(-processes // cores)


def _at(x: float, points: list[tuple[float, float]]) -> int | None:
    """The most that was measured at x; else what the straight line through the points gives there, at least the most
    that was measured below; None if one x alone was measured."""
    if measured := [y for at, y in points if at == x]:
        return round(max(measured))
    places, values = np.array(points, dtype=float).T
    if len({*places}) < 2:
        return None
    slope, start = np.polyfit(places, values, 1)
    return round(max(start + slope * x, *(y for at, y in points if at < x), 0))


def report(found: dict) -> str:
    """The table of what was measured: a row per run and command."""
    if not found.get("runs"):
        return "No run is stored yet; `python -m benchmarks.scale` makes one.\n"
    runs = sorted(found["runs"].values(), key=lambda one: (one["responses"], one["parts"]))
    about = found["hardware"]
    when = ", ".join(sorted({f"{one['made']} at {one['commit']}" for one in runs}))
    lines = [
        f"Measured on {about['processor']}, {about['cores']} cores, {when}.\n",
        "| responses | parts | command | core-seconds | per million responses | seconds | peak memory | on disk |",
        "|---" * 8 + "|",
    ]
    for one in runs:
        first = f"{one['responses']:,} | {one['parts']}"
        for step, cost in one["commands"].items():
            rate = cost["core_seconds"] / one["responses"] * MILLION
            cells = f"{cost['core_seconds']:,.0f} | {rate:.0f} | {cost['seconds']:,.0f} | {cost['peak_mb']:,} MB"
            lines.append(f"| {first} | `{step}` | {cells} | {_size(cost['bytes'])} |")
            first = " | "
    gaps = [one["checked"]["largest_gap"] for one in runs if "checked" in one]
    if gaps:
        lines.append(
            f"\nTables checked: {len(gaps)}. In each, every prompt has all its responses, and their weights sum to "
            f"their number within {max(gaps):.0e} of it."
        )
    if max(one["responses"] for one in runs) < ASKED:
        lines.append(f"\nNo run of {ASKED:,} responses is stored; `python -m benchmarks.scale {ASKED}` makes one.")
    return "\n".join(lines) + "\n"


def report_plan(found: dict) -> str:
    """The table of the plan: a row per command, and one on each encoder."""
    planned = found.get("plan")
    if not planned:
        return "There is no plan before a run is stored.\n"
    cores = [str(n) for n in CORES]
    lines = [
        f"For {planned['responses']:,} responses in {planned['parts']:,} parts, at the rates of the run of "
        f"{found['runs'][planned['measured']]['responses']:,} responses:\n",
        "| step | processes | core-hours | "
        + " | ".join(f"hours on {n} cores" for n in cores)
        + " | memory per process | written |",
        "|---" * (5 + len(cores)) + "|",
    ]
    for step, cost in planned["steps"].items():
        cells = [f"{cost['processes']:,}", f"{cost['core_hours']:,}", *(str(cost["hours"][n]) for n in cores)]
        cells += [f"{cost['peak_mb']:,} MB" if cost["peak_mb"] else "", _size(cost["bytes"])]
        lines.append(f"| `{step}` | {' | '.join(cells)} |")
    lines.append(
        f"\nThe corpus takes {_size(planned['corpus'])}; with all that is written, {_size(planned['disk'])}.\n"
    )
    if planned["encoders"]:
        lines += [
            "| encoder | texts per core-second | bytes of a vector | core-hours for this corpus |",
            "|---|---|---|---|",
        ]
        for name, hours in planned["encoders"].items():
            one = found["encoders"][name]
            lines.append(f"| {name} | {one['texts_per_core_second']:,.0f} | {one['bytes']:,} | {hours:,.0f} |")
        lines.append("")
    return "\n".join(lines)


def _size(count: float) -> str:
    power = min(4, int(np.log10(max(count, 1)) // 3))
    return f"{count / 1000**power:.3g} {('B', 'kB', 'MB', 'GB', 'TB')[power]}"
