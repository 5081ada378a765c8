"""What the report says of `channels`: figures, sentences and prices, for the points that were planned."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ..model import Answer, Card, Price, Value, View
from . import RELATION_NAMES, RELATION_WORDS, SAME_CPU, Parameters, nearest_cores_first

HCHAN, SPSC, SPSC_CACHED, MPSC, MPMC, MUTEX_COND, PIPE, EVENTFD = KINDS = (
    "hchan",
    "spsc",
    "spsc_cached",
    "mpsc",
    "mpmc",
    "mutex_cond",
    "pipe",
    "eventfd",
)
PARK, SPIN_PARK, SPIN = WAITS = ("park", "spin_park", "spin")
NORMAL, BATCH = SCHEDULINGS = ("normal", "batch")
USUAL, PACKED, APART, PLACES_APART = PADDINGS = ("usual", "packed", "apart", "places_apart")
STREAM, ROUND_TRIP = PATTERNS = ("stream", "round_trip")
PRODUCER, CONSUMER = HOMES = ("producer", "consumer")

#: What a channel is compared by; of everything else a case with this value is the one that others are held against.
PLAIN: dict[str, Value] = {
    "element": 8,
    "think_time": 0,
    "service_time": 0,
    "batch": 1,
    "padding": USUAL,
    "pattern": STREAM,
    "home": PRODUCER,
    "producers": 1,
    "consumers": 1,
}
ROOMY = 64  # places: by so many a newcomer is told what places save

WORDS = {
    HCHAN: "a channel as Go's (hchan)",
    SPSC: "a ring for two threads",
    SPSC_CACHED: "a ring for two threads with cached indices",
    MPSC: "a ring with numbered places for one consumer",
    MPMC: "a ring with numbered places (Vyukov)",
    MUTEX_COND: "a ring under a mutex with conditions",
    PIPE: "a pipe",
    EVENTFD: "a ring counted by eventfds",
}
WAIT_WORDS = {PARK: "sleep", SPIN_PARK: "spin before they sleep", SPIN: "spin"}
UNDISTURBED = "where who is woken does not preempt who wakes it (SCHED_BATCH)"
#: How a case that differs in one of these is told, and the plain one that its time is held against.
AGAINST_PLAIN = {
    "batch": "where each goes alone",
    "padding": "where its words lie as usual",
    "home": "where it is on the producer's node",
}
PADDING_WORDS = {
    PACKED: "its words packed",
    APART: "its words on lines of their own",
    PLACES_APART: "words and places on lines of their own",
}


def figures(cases: list[Parameters]) -> tuple[View, ...]:
    found = []
    alone = {**PLAIN, "kind": HCHAN, "scheduling": NORMAL}
    for metric, title in (("time", "Time of a message"), ("parks", "Sleeps for a message")):
        found.append(
            View(title=title, metric=metric, kind="bar", x="capacity", series="placement", where={**alone, "wait": PARK})
        )
    for placement in in_order(p["placement"] for p in cases):
        where = {**PLAIN, "capacity": 64, "placement": placement}
        title = f"Time of a message, {place_words(placement)}"
        found.append(View(title=title, metric="time", kind="bar", x="kind", series="wait", where=where))
    for placement in in_order(p["placement"] for p in cases if p["think_time"]):
        where = {name: value for name, value in alone.items() if name != "think_time"} | {"capacity": 0, "placement": placement}
        title = f"CPU time of a message, {place_words(placement)}"
        found.append(View(title=title, metric="cpu_time", kind="line", x="think_time", series="wait", where=where))
    return tuple(found)


def answers(cases: list[Parameters]) -> tuple[Answer, ...]:
    found = [answer for p in cases if not p["think_time"] for answer in answers_of(p)]
    for placement in in_order(p["placement"] for p in cases if p["think_time"]):
        first = next(p for p in cases if p["think_time"] and p["placement"] == placement)
        where = {name: value for name, value in first.items() if name != "think_time"}
        for metric, what in (("cpu_time", "CPU time"), ("time", "time between messages")):
            found += [
                Answer(
                    kind="crossover",
                    metric=metric,
                    axis="think_time",
                    where={**where, "wait": other},
                    against={"wait": PARK},
                    headline=metric == "cpu_time" and other == SPIN,
                    text=f"By {what} and the work before each message, {place_words(placement)}: {{value}}.",
                )
                for other in (SPIN, SPIN_PARK)
            ]
    return tuple(found)


def answers_of(p: Parameters) -> list[Answer]:
    """What is said of one point, by what tells it from a plain one."""
    changed = {name for name, value in PLAIN.items() if p[name] != value}
    if not changed:
        return answers_of_channel(p)
    if changed == {"pattern"}:
        return answers_of_round_trip(p)
    if changed <= {"producers", "consumers"}:
        return answers_of_crowd(p)
    if changed == {"service_time"}:
        text = f"A consumer that takes {p['service_time']} ns for each message finds {{value}} in the channel ({details(p)})"
        return [cell("occupancy", p, text, False)]
    if changed == {"element"}:
        return [cell("time", p, f"{message(p)} costs {{value}}", False)]
    changed -= {"element"}
    return answers_against_plain(p, changed.pop()) if len(changed) == 1 and changed <= set(AGAINST_PLAIN) else []


def answers_of_channel(p: Parameters) -> list[Answer]:
    kind, wait, capacity = p["kind"], p["wait"], p["capacity"]
    if p["scheduling"] == BATCH:
        found = [cell("parks", p, f"{message(p)} takes {{value}} {UNDISTURBED}", kind == HCHAN and capacity in (1, ROOMY))]
        if kind == HCHAN:
            text = f"{message(p)} takes {{value}} of the time {UNDISTURBED}"
            found.append(ratio("time", p, {"scheduling": NORMAL}, text, False))
        return found
    if kind != HCHAN:
        text = f"{capital(WORDS[kind])} takes {{value}} of the time of {WORDS[HCHAN]}, {details(p)}"
        return [ratio("time", p, {"kind": HCHAN}, text, wait == SPIN and kind == SPSC_CACHED)]
    same = p["placement"] == SAME_CPU
    found = [cell("time", p, f"{message(p)} costs {{value}}", not capacity and wait == PARK and not same)]
    if not same:
        found += [
            cell(f"delivery_{rank}", p, f"{message(p)} arrives after {{value}} ({words})", False)
            for rank, words in (("p50", "median"), ("p99", "99th percentile"))
        ]
    if wait != PARK:
        text = f"{message(p)} takes {{value}} of the time where its ends sleep"
        return [*found, ratio("time", p, {"wait": PARK}, text, not capacity and wait == SPIN)]
    found.append(cell("parks", p, f"{message(p)} takes {{value}}", not capacity))
    if capacity and not same:
        text = f"{capital(places(p))} save{'s' * (capacity == 1)} {{value}} of the time of a message from hand to hand ({place_words(p['placement'])})"
        found.append(
            Answer(kind="saving", metric="time", where=p, against={"capacity": 0}, headline=capacity == ROOMY, text=text)
        )
    return found


def answers_of_round_trip(p: Parameters) -> list[Answer]:
    who = f"A message and its answer by {WORDS[p['kind']]} ({details(p)})"
    if p["scheduling"] == BATCH:
        return [cell("parks", p, f"{who} take {{value}} for each of the two {UNDISTURBED}", False)]
    return [cell("round_trip", p, f"{who} take {{value}}", False)]


def answers_against_plain(p: Parameters, axis: str) -> list[Answer]:
    how = {
        "batch": f"{p['batch']} at a time",
        "padding": PADDING_WORDS.get(p["padding"], ""),
        "home": "the memory on the consumer's node",
    }[axis]
    if p["scheduling"] == BATCH:
        return [cell("parks", p, f"{message(p)}, {how}, takes {{value}} {UNDISTURBED}", False)]
    text = f"{message(p)}, {how}, takes {{value}} of the time {AGAINST_PLAIN[axis]}"
    return [ratio("time", p, {axis: PLAIN[axis]}, text, False)]


def answers_of_crowd(p: Parameters) -> list[Answer]:
    sides = [f"{p[side]} {side[:-1]}{'s' * (p[side] > 1)}" for side in ("producers", "consumers")]
    who = f"{' and '.join(sides)} by {WORDS[p['kind']]}, {details(p)}"
    found = [cell("time", p, f"{who}: a message costs {{value}}", False)]
    if p["wait"] != PARK:
        found.append(ratio("time", p, {"wait": PARK}, f"{who}: a message takes {{value}} of the time where they sleep", False))
    if p["producers"] > 1:
        found.append(cell("fairness", p, f"{who}: the producers' rates have a Jain index of {{value}}", False))
    return found


def card(cases: list[Parameters]) -> Card:
    """A message from hand to hand to a thread that sleeps, on the same CPU and on another one, nearest first."""
    wanted = {**PLAIN, "kind": HCHAN, "scheduling": NORMAL, "capacity": 0, "wait": PARK}
    plain = [p for p in cases if p == {**p, **wanted}]
    plain.sort(key=lambda p: (p["placement"] != SAME_CPU, nearest_cores_first(p["placement"])))
    return Card(
        prices=tuple(
            Price(
                answer=cell("time", p, f"message to a sleeping thread, {RELATION_NAMES.get(p['placement'], 'same CPU')}"),
                rank=40 + position,
            )
            for position, p in enumerate(plain[:2])
        )
    )


# -- words --------------------------------------------------------------------------------------------------------------


def in_order(values: Iterable[Value]) -> Sequence[Value]:
    """Each once, in the order of its first."""
    return list(dict.fromkeys(values))


def cell(metric: str, p: Parameters, text: str, headline: bool = True) -> Answer:
    return Answer(kind="cell", metric=metric, where=p, text=text, headline=headline)


def ratio(metric: str, p: Parameters, against: Parameters, text: str, headline: bool) -> Answer:
    return Answer(kind="ratio", metric=metric, where=p, against=against, text=text, headline=headline)


def capital(text: str) -> str:
    return text[0].upper() + text[1:]


def place_words(placement: str) -> str:
    return "both ends on one CPU" if placement == SAME_CPU else f"on {RELATION_WORDS[placement]}"


def places(p: Parameters) -> str:
    return f"{p['capacity']} place{'s' * (p['capacity'] != 1)}" if p["capacity"] else "no buffer"


def details(p: Parameters) -> str:
    """`64 places, on CPUs that share an L3, whose ends sleep`."""
    return f"{places(p)}, {place_words(p['placement'])}, whose ends {WAIT_WORDS[p['wait']]}"


def message(p: Parameters) -> str:
    """Its size where it is no word, and what it goes through where that is not the usual channel."""
    size = f" of {p['element']} bytes" if p["element"] != PLAIN["element"] else ""
    through = f" through {WORDS[p['kind']]}" if p["kind"] != HCHAN else ""
    return f"A message{size}{through} ({details(p)})"
