"""What does a task cost who takes it: its owner, or a thief on another CPU?"""

from __future__ import annotations

from ..kernel import median_batch
from ..model import ALPHA, Answer, Axis, Card, Contrast, Price, View
from . import (
    MOST_APART,
    MOST_LINE,
    RELATION_NAMES,
    RELATION_WORDS,
    Benchmark,
    Found,
    Parameters,
    Placement,
    Probes,
    Sweep,
    memory_node,
    nearest_cores_first,
)

POP, STEAL = ACTIONS = ("pop", "steal")
LINES = (0, 1, 8)
MANY = LINES[-1]
MOST_LINES = 64
LINE_PS, UPDATES, PUSH_PS, REFUSED, WON, WON_SUM, RACED, LATE = range(6, 14)  # of `value`, as in kernels/stealing.c
DEQUES, SLOTS = 16, 4  # likewise
BYTES = 88 * MOST_APART  # the deques, and what the threads tell each other
ORDER_BYTES = 4  # of scratch memory, for each line


class Stealing(Benchmark):
    name = kernel = "stealing"
    rank = 29
    topic = "runtime"
    phase = ALPHA
    title = "Work stealing"
    question = "What does a task cost who takes it: its owner, or a thief on another CPU?"
    expected = (
        "A pop costs its owner a fence, 5 to 20 ns, whatever the task is. A thief fetches the deque's two ends and the task from the owner's cache and must own one of them: 2 to 4 hops of a line, one "
        "after the other. Each line that the task carries costs one more hop, where the owner has it from its cache for some cycles."
    )
    axes = (
        Axis(name="action", summary="who takes the task: pop: its owner; steal: another thread", values=ACTIONS),
        Axis(
            name="lines",
            summary="that the task carries: written by its owner, updated by who takes it",
            values=LINES,
            least=0,
            most=MOST_LINES,
        ),
        Axis(name="placement", summary="relation of the CPUs of owner and thief", values=()),
    )
    contrasts = tuple(Contrast(axis="action", control=POP, metric=metric) for metric in ("take", "line", "push"))
    views = (
        View(title="Taking a task", metric="take", kind="bar", x="placement", series="action", where={"lines": 0}),
        View(
            title="Updating a line that it carries",
            metric="line",
            kind="bar",
            x="placement",
            series="action",
            where={"lines": MANY},
        ),
    )
    method = {
        "deque": "Chase-Lev with the orders of Le et al. (2013), 64 places; its ends and its places on lines of their own",
        "round": "one task from each of 16 deques, in an order by chance, each when the one before is done with; the owner idle meanwhile",
        "update": "a load, an addition and a store in each line, in dependent order by chance",
        "figures": "medians of rounds",
    }
    notes = (
        "What a thief that finds nothing costs, and how victims are chosen, is the scheduler's and not in these figures.",
        "A race for the tasks of one deque ends each sample: a task that is taken twice or lost fails it, and the run.",
    )
    judges_gaps = False  # a round is no batch
    most_samples = 1  # processes differ more than samples of one
    judges_overlap = False  # the owner serves before and after the window
    needs = "two CPUs"

    def sweep(self, topology, profile: str) -> list[Sweep]:
        relations = topology.relations()
        if profile == "quick":
            return [{"action": ACTIONS, "lines": (0, MANY), "placement": relations[:1] + relations[1:][-1:]}]
        lines = (*LINES, MOST_LINES) if profile == "full" else LINES
        return [{"action": ACTIONS, "lines": lines, "placement": relations}]

    def group(self, p: Parameters) -> tuple:
        return (p["placement"],)

    def place(self, p: Parameters, topology) -> Placement | None:
        if p["placement"] not in topology.relations() or not (cpus := topology.choose_cpus(p["placement"], 2)):
            return None
        lines = p["lines"] * DEQUES * SLOTS
        return Placement(
            cpus=cpus if p["action"] == STEAL else cpus[:1],
            node=memory_node(topology, topology.node_of(cpus[0])),
            size=BYTES + lines * (MOST_APART + MOST_LINE),
            scratch=lines * ORDER_BYTES,
        )

    def answers(self, topology, cases: list[Parameters]) -> tuple[Answer, ...]:
        found = []
        for placement in dict.fromkeys(p["placement"] for p in cases):
            between = f"between {RELATION_WORDS[placement]}"
            bare = {"action": STEAL, "lines": 0, "placement": placement}
            loaded = {**bare, "lines": MANY}
            found += [
                Answer(
                    kind="ratio",
                    metric="take",
                    where=bare,
                    against={"action": POP},
                    text=f"Stealing a task {between} takes {{value}} as long as popping one",
                ),
                Answer(
                    kind="cell", metric="hops", where=bare, text=f"A steal {between} takes {{value}} of a line between these CPUs"
                ),
                Answer(
                    kind="difference",
                    metric="line",
                    where=loaded,
                    against={"action": POP},
                    text=f"Each of {MANY} lines that a stolen task carries {between} costs {{value}} more than in its owner's cache",
                ),
                Answer(
                    kind="ratio",
                    metric="push",
                    where=bare,
                    against={"action": POP},
                    headline=False,
                    text=f"After a steal {between} the owner's next push takes {{value}} as long as after a pop of its own",
                ),
            ]
            found += [
                self.cell({**bare, "action": action}, f"{words} takes {{value}}", False)
                for action, words in ((POP, "A pop"), (STEAL, f"A steal {between}"))
            ]
        return tuple(found)

    def cell(self, where: Parameters, text: str, headline: bool = True) -> Answer:
        return Answer(kind="cell", metric="take", where=where, headline=headline, text=text)

    def card(self, topology, cases: list[Parameters]) -> Card:
        """Of the nearest cores."""
        near = sorted(dict.fromkeys(p["placement"] for p in cases), key=nearest_cores_first)[:1]
        return Card(
            prices=tuple(
                Price(answer=self.cell({"action": action, "lines": 0, "placement": placement}, text), rank=rank)
                for placement in near
                for action, text, rank in (
                    (POP, "task popped from its own deque", 50),
                    (STEAL, f"task stolen, {RELATION_NAMES[placement]}", 47),
                )
            )
        )

    def arguments(self, p: Parameters, probes: Probes) -> dict[str, str | int]:
        return {"action": p["action"], "lines": p["lines"]}

    def metrics(self, p: Parameters, found: Found, probes: Probes) -> dict[str, float]:
        owner, taker = found.threads[0], found.threads[-1]
        take = median_batch(taker) / DEQUES
        metrics = {"take": take, "push": owner.value[PUSH_PS] / 1000}
        if p["lines"]:
            metrics["line"] = taker.value[LINE_PS] / 1000
        if p["action"] == STEAL and probes.hop:
            metrics["hops"] = take / (probes.hop * 1e9)
        return metrics

    def check(self, p: Parameters, found: Found) -> str:
        """Every task was taken once, in its turn and with its lines; in the race, by one of the two."""
        owner, taker = found.threads[0], found.threads[-1]
        rounds, steals = taker.executed, p["action"] == STEAL
        first = 1 if steals else 2  # what is stolen is the oldest of two, what is popped the newest
        numbers = sum(range(first, first + rounds))
        wanted = DEQUES * DEQUES * numbers + rounds * DEQUES * (DEQUES - 1) // 2
        if taker.check != wanted:
            return f"the tasks of {rounds} rounds add up to {taker.check}, and are to add up to {wanted}"
        updates = p["lines"] * (weighted(1, rounds + 1) + weighted(first, rounds))
        if taker.value[UPDATES] != updates:
            return f"the lines of all tasks add up to {taker.value[UPDATES]}, and are to add up to {updates}"
        if owner.value[REFUSED]:
            return f"{owner.value[REFUSED]} tasks found no room in a deque of two"
        raced, won = owner.value[RACED], [t.value[WON] for t in found.threads] if steals else []
        if sum(won) != raced or sum(t.value[WON_SUM] for t in found.threads) != raced * (raced + 1) // 2:
            return f"in the race for {raced} tasks the owner got {won[0]} and the thief {won[1]}, which are not these tasks once each"
        return ""

    def extra(self, arguments: dict[str, str | int], probes: Probes, found: Found) -> dict[str, float]:
        """The thief's share of the tasks that both wanted, and its attempts that came too late for one of them."""
        raced = found.threads[0].value[RACED]
        return {"stolen": found.threads[-1].value[WON] / raced, "late": found.threads[-1].value[LATE] / raced} if raced else {}


def weighted(first: int, tasks: int) -> int:
    """One update of each line of so many tasks of each deque, each counted as often as its slot's number says (kernels/stealing.c)."""
    return (
        sum(DEQUES * (number % SLOTS + 1) for number in range(first, first + tasks)) + tasks * SLOTS * DEQUES * (DEQUES - 1) // 2
    )


BENCHMARK = Stealing()
