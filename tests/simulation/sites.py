"""Where faults strike: what a call is about, which faults a kind of call can meet, and how often.

A call is about a name without what differs from run to run: `state/jobs/*/receipts/0`. Its site is
that without numbers, behind its kind: `create state/jobs/*/receipts/#`. That of a delivery is its
queue: `deliver shards`.
"""

import re
from collections.abc import Mapping, Sequence
from functools import cache, lru_cache
from typing import Literal

from tests.doubles.faults import EFFECTS

Fault = Literal[
    "kill before",  # the process dies, and the call was never made
    "kill after",  # the process dies, and the call had its effect
    "freeze before",
    "freeze after",
    "lose before",  # time-out: the call never arrived
    "lose after",  # time-out: the answer was lost, or the endpoint billed and gave none
    "late",  # time-out: the call arrives when its caller has given up
    "repeat",  # the answer was lost below the SDK, which asks again
    "busy",  # 503 Server Busy
    "refused",  # 403
    "slow",
    "cancel",  # the host cancels the handler that makes the call
    "bug",  # the handler raises what nobody expects
    "drop",  # a message is lost on the way,
    "double",  # comes twice,
    "delay",  # or late
    "outage",  # the service is out, for all of its calls and everybody, for a while
    "cut off",  # this process cannot reach it, others can
    "throttled",  # 503 Server Busy for a name, a prefix or the account
    "storm",  # the endpoint answers with 429
    "unlock",  # a message's lock is taken away while its handler runs
    "lost",  # it is settled though its handler never ran; by scripts alone
]

STORAGE = EFFECTS - {"send"} | {"head", "read", "read_range", "list", "children"}
HANDLERS_ONLY: frozenset[Fault] = frozenset({"refused", "cancel", "bug"})
"""What befalls only calls that a trigger's handler makes: the host answers for the rest."""

LASTING: Sequence[Fault] = ("outage", "cut off", "throttled")
"""What begins at a call and meets all others until it is over."""

APART: Sequence[Fault] = ("storm", "unlock")
"""What a scenario has spans or a chance of its own for: no focus is aimed at it."""

BACKGROUND = ("state/quota/",)
"""What only tasks of the process itself touch, in no handler."""

CLOSING = (("release_lease", "/leases/"), ("delete", "/journal/"))
"""Calls with which an attempt writes its end: a bug in those has no end to be written."""

RATES: Mapping[Fault, float] = {
    "kill before": 0.002,
    "kill after": 0.002,
    "freeze before": 0.002,
    "freeze after": 0.002,
    "lose before": 0.004,
    "lose after": 0.004,
    "late": 0.008,
    "repeat": 0.02,
    "busy": 0.006,
    "refused": 0.003,
    "slow": 0.01,
    "cancel": 0.002,
    "bug": 0.002,
    "drop": 0.01,
    "double": 0.03,
    "delay": 0.03,
}
"""Chances of a fault at one call, in a world where its family is as strong as usual."""

FAMILIES: Mapping[str, Sequence[Fault]] = {
    "kill": ("kill before", "kill after"),
    "freeze": ("freeze before", "freeze after"),
    "lose": ("lose before", "lose after"),
    "late": ("late",),
    "repeat": ("repeat",),
    "busy": ("busy",),
    "refused": ("refused",),
    "slow": ("slow",),
    "cancel": ("cancel",),
    "bug": ("bug",),
    "drop": ("drop",),
    "double": ("double",),
    "delay": ("delay",),
}

_ANY: Sequence[Fault] = (
    "kill before",
    "kill after",
    "freeze before",
    "freeze after",
    "slow",
    "cancel",
    "bug",
    "outage",
    "cut off",
)
# What can arrive late: the others' names are used but once, or by whoever comes first.
_LATE = frozenset({"append", "create", "replace", "commit"})


@cache
def faults_of(kind: str, what: str) -> Sequence[Fault]:
    """The faults that a kind of call about something can meet."""
    found = _faults_of(kind, what)
    if what.startswith(BACKGROUND):
        found = tuple(fault for fault in found if fault not in HANDLERS_ONLY)
    if any(kind == closing and part in what for closing, part in CLOSING):
        found = tuple(fault for fault in found if fault != "bug")
    return found


def _faults_of(kind: str, what: str) -> Sequence[Fault]:
    if kind == "ask":
        return (*_ANY, "lose after", "storm")
    if kind == "deliver":
        return ("unlock",)
    if kind == "send":
        return (*_ANY, "lose before", "lose after", "repeat", *_of_message(what))
    if kind not in STORAGE:
        return (*_ANY, "lose before", "lose after")
    found = (*_ANY, "lose before", "lose after", "busy", "refused", "throttled")
    if kind in EFFECTS:
        found = (*found, "repeat")
    return (*found, "late") if kind in _LATE else found


def _of_message(what: str) -> Sequence[Fault]:
    if what.startswith("job-status"):
        return ()
    # Until a job is marked as open, a request lives in its message alone.
    marked = any(kind in what for kind in (":shard:", ":finish:", ":expire:"))
    return ("drop", "double", "delay") if marked else ("double", "delay")


_JOB = re.compile(r"[0-9]{8}T[0-9]{6}Z-[0-9a-f]{16}")
_UUID = re.compile(r"(?:[0-9]{6}-)?[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_NUMBER = re.compile(r"[0-9]+")
_OTHER_NAME = re.compile(r"\.[0-9](\.jsonl?)$")


# A world asks for the same names again and again; many worlds have many of them.
@lru_cache(maxsize=4096)
def about(name: str) -> str:
    """What a call is about, by the name of what it touches."""
    return _UUID.sub("*", _JOB.sub("*", name))


@lru_cache(maxsize=4096)
def site(kind: str, what: str) -> str:
    """The place in the code that makes a call, as far as its kind and name tell, or a queue."""
    if kind == "ask":
        return "ask"
    if kind == "deliver":
        return f"deliver {what.partition(' ')[0]}"
    if "/index/" in what:
        what = what.partition("-")[0]
    elif what.startswith("results/"):
        what = _OTHER_NAME.sub(r"\1", what)
    elif "/rejected/" in what:
        what = "state/rejected/*"
    elif "job.rejected" in what:
        what = "job-status job.rejected"
    return f"{kind} {_NUMBER.sub('#', what)}"


SITES: Sequence[str] = """
acquire_lease state/jobs/*/leases/#
acquire_lease state/jobs/*/planning
append state/jobs/*/journal/#/*
append state/jobs/*/journal/#/*-#
append state/jobs/*/samples
ask
commit results/f#/*/errors.jsonl
commit results/f#/*/output.jsonl
create results/f#/*/manifest.json
create results/f#/*/report.html
create state/budgets/default/#-#
create state/done/*
create state/index/default/#
create state/jobs/*/duplicates
create state/jobs/*/errors/#.*
create state/jobs/*/estimate.json
create state/jobs/*/job.json
create state/jobs/*/leases/#
create state/jobs/*/output/#.*
create state/jobs/*/plan.jsonl
create state/jobs/*/planning
create state/jobs/*/receipts/#
create state/jobs/*/series
create state/jobs/*/state.json
create state/jobs/*/verdict.json
create state/open/*
create state/quota/phi.json
create state/rejected/*
create_append state/jobs/*/journal/#/*
create_append state/jobs/*/journal/#/*-#
create_append state/jobs/*/samples
delete state/jobs/*/journal/#/*
delete state/open/*
deliver drops
deliver jobs
deliver jobs/$deadletterqueue
deliver shards
deliver shards/$deadletterqueue
head prompts/f#.jsonl
head results/f#/*/errors.jsonl
head results/f#/*/output.jsonl
head state/open/*
list state
read results/f#/*/manifest.json
read state/budgets/default/#-#
read state/done/*
read state/index/default/#
read state/jobs/*/estimate.json
read state/jobs/*/job.json
read state/jobs/*/plan.jsonl
read state/jobs/*/receipts/#
read state/jobs/*/state.json
read state/jobs/*/verdict.json
read state/open/*
read state/quota/phi.json
read state/rejected/*
read_range prompts/f#.jsonl
read_range prompts/f#.options.json
read_range state/jobs/*/duplicates
read_range state/jobs/*/journal/#/*
read_range state/jobs/*/journal/#/*-#
read_range state/jobs/*/plan.jsonl
release_lease state/jobs/*/leases/#
release_lease state/jobs/*/planning
renew_lease state/jobs/*/leases/#
renew_lease state/jobs/*/planning
replace state/budgets/default/#-#
replace state/jobs/*/state.json
replace state/open/*
replace state/quota/phi.json
send job-status *:#:job.cancelled
send job-status *:#:job.cancelling
send job-status *:#:job.completed
send job-status *:#:job.expired
send job-status *:#:job.expiring
send job-status *:#:job.failed
send job-status *:#:job.failing
send job-status *:#:job.finalizing
send job-status *:#:job.in_progress
send job-status *:#:job.paused
send job-status *:#:job.progress
send job-status *:#:job.resumed
send job-status *:#:job.validating
send job-status job.rejected
send jobs *:announce:*
send jobs *:expire:*
send jobs *:finish:*
send jobs request f#.jsonl
send shards *:shard:*
stage_from results/f#/*/errors.jsonl
stage_from results/f#/*/output.jsonl
take_dead jobs
take_dead shards
take_dead webhooks
""".strip().split("\n")
"""Every site of the code under simulation."""


def faults_at(place: str) -> Sequence[Fault]:
    """The faults that the calls of a site can meet."""
    kind, _, what = place.partition(" ")
    return faults_of(kind, what)
