"""What an attack may not come to, and how sure it is that it has.

A busy machine must not fail a relay that is right, and a pause of the machine is a pause of the
relay. So the kernel is asked how long the relay could have run and was not let: packets that were
late by no more than that prove nothing. A window in which something was wrong is measured again, up
to WINDOWS in all, and one that is right will do: what an attack brings about, it brings about each
time. The admission of strangers and the death of a relay need no proof but one.
"""

import enum
from collections.abc import Sequence

from tests.hostile.attacks import LATE, LOGGED, MIB, Attack
from tests.hostile.measure import Measured, Seen

WINDOWS = 3


class Verdict(enum.Enum):
    """Whether the relay has kept what is promised."""

    KEPT = "kept"
    BROKEN = "broken"
    AGAIN = "measure again"
    UNKNOWN = "the machine was too busy to tell"


def judge(attack: Attack, windows: Sequence[Measured]) -> Verdict:
    """Judge an attack by all that has been measured so far."""
    last = windows[-1]
    if unforgivable(attack, last):
        return Verdict.BROKEN
    if not wrong(attack, last) and not late(attack, last):
        return Verdict.KEPT
    if len(windows) < WINDOWS:
        return Verdict.AGAIN
    proven = any(wrong(attack, one) or late(attack, one, proven=True) for one in windows)
    return Verdict.BROKEN if proven else Verdict.UNKNOWN


def unforgivable(attack: Attack, measured: Measured) -> list[str]:
    """Return what must not have happened in a single window."""
    found = [f"{what} ({n})" for what, n in measured.notes.items() if what.startswith("victims: ")]
    if measured.tracebacks:
        found.append(f"{measured.tracebacks} tracebacks in the log")
    if attack.refused and (admitted := measured.admitted + answered(measured.logins)):
        found.append(f"{admitted} strangers admitted")
    return found


def wrong(attack: Attack, measured: Measured) -> list[str]:
    """Return what must not be so in each window, whatever else the machine does."""
    found = []
    if measured.growth > attack.most:
        grown, most = measured.growth / MIB, attack.most / MIB
        found.append(f"memory grew by {grown:.0f} MiB, more than {most:.0f}")
    if attack.rate and measured.logged > LOGGED:
        found.append(f"the log grew by {measured.logged} bytes, more than {LOGGED}")
    if attack.cpu is not None:
        share, most = measured.cpu / measured.seconds, attack.cpu * measured.slowness
        if share > most:
            found.append(f"{share:.0%} of a core was used, more than {most:.0%}")
    if not attack.refused and not attack.spread and measured.logins.lost:
        found.append(f"{measured.logins.lost} of {measured.logins.sent} newcomers were kept out")
    return found


def late(attack: Attack, measured: Measured, *, proven: bool = False) -> list[str]:
    """Return what came later than promised; what is `proven`, not for want of a core."""
    if not attack.promised:
        return []
    allowed = LATE * measured.slowness
    allowed += measured.waited * 1e3 + measured.late if proven else 0
    kinds = {"packets": measured.pair, **({"STUN answers": measured.stun} if attack.stun else {})}
    return [
        f"{kind}: p99 {seen.p99:.0f} ms, more than {allowed:.0f}"
        for kind, seen in kinds.items()
        if seen.p99 > allowed
    ]


def answered(seen: Seen) -> int:
    return seen.sent - seen.lost


def everything(attack: Attack, measured: Measured) -> str:
    """Return all that is wrong, and what else there is to know about it, in one line."""
    faults = [
        *unforgivable(attack, measured),
        *wrong(attack, measured),
        *late(attack, measured),
    ]
    noise = f"not let run for {measured.waited * 1e3:.0f} ms, victims late by {measured.late:.0f}"
    return f"{'; '.join(faults) or 'nothing wrong'} ({noise})"
