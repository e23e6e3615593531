"""Why a server gives no answer -> one sentence for the user: what failed, and what to do."""

from ddpo_lib.protocol.faults import Fault

LONGEST = 120.0  # seconds of a pause; if a server asks for a longer one, the command ends


def explain(fault: Fault, name: str, quoted: str, tries: int, *, key: str | None, timeout: float) -> str:
    """What failed and what to do, in one sentence.

    Args:
        fault: of the last answer.
        name: of the server and the model.
        quoted: what the server says, without any secret.
        tries: how often the request was repeated.
        key: the environment variable that contains the key, if one was sent; not the key.
        timeout: seconds that one request may take.
    """
    status = f" ({fault.status})" if fault.status else ""
    said = f"; it says: {quoted}" if quoted else ""
    after = f", after {tries} retries"
    match fault.kind:
        case "key":
            where = f"the key in ${key}" if key else "no key was sent: name its variable under `key`"
            return f"{name}: refuses access{status}, {where}{said}"
        case "quota":
            return f"{name}: nothing is left to pay with{status}{said}; the same command goes on when there is"
        case "model":
            return f"{name}: no such model{status}{said}; check the model's name"
        case "path":
            if fault.status == 200:
                return f"{name}: the answer is no chat completion ({quoted}); does the URL end with /v1?"
            return f"{name}: no such address{status}{said}; does the URL end with /v1?"
        case "busy":
            long = fault.pause is not None and fault.pause > LONGEST
            wait = f"; it asks for a pause of {fault.pause:.0f} s: try again then" if long else ""
            what = "too many requests" if fault.status == 429 else "is overloaded"
            return f"{name}: {what}{status}{after}{said}{wait}"
        case "slow":
            return f"{name}: no answer within {timeout:g} s{after}; a profile's `timeout` allows more"
        case "connection":
            return f"{name}: cannot be reached, or cut the connection{after} ({quoted})"
        case "broken" if fault.status != 200:
            return f"{name}: fails{status}{after}{said}"
        case "broken" | "empty":
            return f"{name}: an answer that cannot be read, and no chat completion{after} ({quoted})"
        case "long":
            return f"{name}: a prompt is too long for the model{status}{said}; shorten it, or lower the token limit"
    advice = "; leave what it does not take out of `sends` (`--sends`)"
    return f"{name}: refuses the request{status}{said}{advice}"
