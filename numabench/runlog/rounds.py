"""Samples that were measured together, as one record of columns: a pair of CPUs takes 35 bytes of a run log and not 640.

Imported by worker processes: the standard library and msgspec only. Whatever is packed is the same when it is expanded.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, get_type_hints

import msgspec

from ..model import Column, Round, Sample, ThreadProof, TrialRecord, Value, case_hash, together
from ..text import printable
from .wrong import Wrong

LEAST = 4  # samples: fewer are as short, and easier to read, as they are
MANY = 32  # samples: of fewer the numbers are written as such, which a person can read
MOST_HELD = 16  # values in samples for each that is written of them: of all pairs of 512 CPUs 1.6, of a few samples 3
NS = 1e-9  # what times of threads are whole numbers of
HUNDREDTHS = 100  # of which figures are whole numbers that were rounded to two places
DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz-_"
NUMBER_OF = {digit: number for number, digit in enumerate(DIGITS)}
WHOLE = ("case", "index", "valid", "reasons", "overlap", "start_skew", "hop", "frequency", "width", "memory")
NAMED = ("parameters", "metrics", "extra")
PROOF = ThreadProof.__struct_fields__
DEFAULTS = {
    name: value
    for kind in (Sample, ThreadProof)
    for name, value in zip(kind.__struct_fields__[-len(kind.__struct_defaults__) :], kind.__struct_defaults__, strict=True)
}
_encode = msgspec.json.Encoder().encode


def shape(sample: Sample) -> tuple:
    """What all samples of a round have in common: what they hold, and what was found around them."""
    return (
        len(sample.threads),
        *map(tuple, (sample.parameters, sample.metrics, sample.extra)),
        sample.index,
        sample.hop,
        sample.frequency,
        sample.width,
    )


def pack_trial(trial: TrialRecord) -> TrialRecord:
    """The trial as it is written: samples that were measured together are rounds."""
    rounds, left, before = [], [], 0
    for _, run in itertools.groupby(trial.samples, shape):
        samples = list(run)
        packed = pack(trial.benchmark, samples, before) if len(samples) >= LEAST else None
        if packed and is_told(packed):
            rounds.append(packed)
        else:
            left += samples
        before += len(samples)
    return msgspec.structs.replace(trial, samples=tuple(left), rounds=tuple(rounds)) if rounds else trial


def is_told(packed: Round) -> bool:
    """Whether something is said of each sample, as of all that differ, and enough of what they hold: a few bytes must not ask for any number of
    samples, nor a few columns for any number of fields of each."""
    columns = packed.columns.values()
    if not any(
        (each.values is not None and each.at is None and len(each.values) == packed.count)
        or (each.digits is not None and 0 < packed.count <= len(each.digits))
        for each in columns
    ):
        return False
    said = len(packed.same) + sum(1 + len(each.values or ()) + len(each.digits or "") + len(each.at or ()) for each in columns)
    fields = len(WHOLE) + len(PROOF) * packed.threads + sum(len(getattr(packed, kind)) for kind in NAMED)
    return packed.count * fields <= MOST_HELD * said


def unpack_trial(trial: TrialRecord) -> TrialRecord:
    """The trial with all of its samples in their order. Raises Wrong where a round is none."""
    if not trial.rounds:
        return trial
    if not all(map(is_told, trial.rounds)):
        raise Wrong("a round of it has more samples, or more in each, than it says anything of")
    samples: list[Sample] = []
    plain = iter(trial.samples)
    try:
        for each in trial.rounds:
            samples += itertools.islice(plain, each.before - len(samples))
            samples += unpack(trial.benchmark, each)
    except (ValueError, LookupError, TypeError, ArithmeticError, msgspec.MsgspecError) as error:
        raise Wrong(f"a round of it cannot be expanded ({type(error).__name__}: {printable(str(error))[:120]})") from error
    return msgspec.structs.replace(trial, samples=(*samples, *plain), rounds=())


# -- packing ------------------------------------------------------------------------------------------------------------


def fields(samples: Sequence[Sample]) -> Iterator[tuple[str, list]]:
    """Each field's name and its values; times of threads first, which others are told by."""
    first = samples[0]
    for number in range(len(first.threads)):
        for name in PROOF:
            yield f"threads.{number}.{name}", [getattr(s.threads[number], name) for s in samples]
    for kind in NAMED:
        for name in getattr(first, kind):
            yield f"{kind}.{name}", [getattr(s, kind)[name] for s in samples]
    for name in WHOLE:
        yield name, [getattr(s, name) for s in samples]


def pack(benchmark: str, samples: Sequence[Sample], before: int = 0) -> Round:
    """A round of samples of one `shape`."""
    first = samples[0]
    same: dict[str, Any] = {}
    columns: dict[str, Column] = {}
    seen: dict[str, list] = {}
    derived = [
        name
        for name, rule in RULES.items()
        if all(exactly(getattr(s, name), rule(benchmark, s.parameters, s.threads)) for s in samples)
    ]
    for name, values in fields(samples):
        if name in derived:
            continue
        if all(exactly(value, values[0]) for value in values):
            if not exactly(values[0], default(name)):
                same[name] = msgspec.to_builtins(values[0])
            continue
        columns[name] = column(name, values, seen)
        seen[name] = values
    return Round(
        before=before,
        count=len(samples),
        threads=len(first.threads),
        parameters=tuple(first.parameters),
        metrics=tuple(first.metrics),
        extra=tuple(first.extra),
        same=same,
        columns=columns,
        derived=tuple(derived),
    )


def exactly(a: Any, b: Any) -> bool:
    return a == b and type(a) is type(b)


def default(name: str) -> Any:
    last = name.rpartition(".")[2]
    return DEFAULTS.get(last, msgspec.NODEFAULT) if name.startswith("threads.") or name in WHOLE else msgspec.NODEFAULT


def column(name: str, values: list, seen: dict[str, list]) -> Column:
    """The shortest form of these values; `seen`: the columns before it."""
    for other, theirs in seen.items():
        if all(map(exactly, values, theirs)):
            return Column(than=other)
    forms = [Column(values=tuple(values))]
    whole = all(type(value) is int for value in values)
    numbers, unit = (values, None) if whole else in_ns(values)
    if numbers is None and (parts := in_hundredths(values)) is not None:
        forms.append(Column(values=tuple(parts), parts=HUNDREDTHS))
    elif numbers is not None:
        if whole and (common := math.gcd(*values)) > 1:
            forms.append(Column(values=tuple(value // common for value in values), unit=common))
        if not whole:
            forms.append(Column(values=tuple(numbers), unit=unit))
        neighbour = name.replace("threads.1.", "threads.0.") if name.startswith("threads.1.") else ""
        theirs, same_unit = (seen.get(neighbour), None) if whole else in_ns(seen.get(neighbour, [None]))
        if neighbour in seen and theirs is not None and same_unit == unit and all(type(n) is int for n in theirs):
            differences = tuple(a - b for a, b in zip(numbers, theirs, strict=True))
            forms.append(Column(values=differences, unit=unit, than=neighbour))
    keys = [(type(value), _encode(value)) for value in values]
    kinds = dict(zip(keys, values, strict=True))
    if len(kinds) <= len(values) // 2:
        order = {key: number for number, key in enumerate(kinds)}
        forms.append(Column(values=tuple(order[key] for key in keys), of=tuple(kinds.values())))
        usual = Counter(keys).most_common(1)[0][0]
        others = [number for number, key in enumerate(keys) if key != usual]
        forms.append(Column(values=tuple(values[n] for n in others), at=tuple(others), usual=kinds[usual]))
    if len(values) >= MANY:
        forms += [in_digits(form) for form in forms if form.at is None and all(type(n) is int for n in form.values)]
    return msgspec.convert(min((msgspec.to_builtins(form) for form in forms), key=lambda form: len(_encode(form))), Column)


def in_ns(values: Sequence) -> tuple[list[int] | None, float | None]:
    """Times as whole ns; None where they are not."""
    if not all(type(value) is float and abs(value) < 1e6 for value in values):
        return None, None
    whole = [round(value / NS) for value in values]
    return (whole, NS) if all(n * NS == value for n, value in zip(whole, values, strict=True)) else (None, None)


def in_hundredths(values: Sequence) -> list[int] | None:
    """Figures of two decimal places as whole hundredths; None where one is none."""
    if not all(type(value) is float and abs(value) < 1e9 for value in values):
        return None
    parts = [round(value * HUNDREDTHS) for value in values]
    return parts if all(exactly(n / HUNDREDTHS, value) for n, value in zip(parts, values, strict=True)) else None


def in_digits(form: Column) -> Column:
    """The same column with its whole numbers as digits, as many for each."""
    least = min(form.values)
    width = max(1, -(-(max(form.values) - least).bit_length() // 6))
    text = "".join(DIGITS[number - least >> 6 * place & 63] for number in form.values for place in reversed(range(width)))
    return msgspec.structs.replace(form, values=None, digits=text, least=least)


def from_digits(packed: Column, count: int) -> list[int]:
    """The numbers of a column of digits. Raises ValueError and KeyError where it is none."""
    width, rest = divmod(len(packed.digits), count)
    if rest or not width:
        raise ValueError(f"{len(packed.digits)} digits of {count} samples")
    numbers = []
    for at in range(0, len(packed.digits), width):
        number = 0
        for digit in packed.digits[at : at + width]:
            number = number * len(DIGITS) + NUMBER_OF[digit]
        numbers.append(packed.least + number)
    return numbers


# -- expanding ----------------------------------------------------------------------------------------------------------


def unpack(benchmark: str, packed: Round) -> list[Sample]:
    """The samples of a round, which have in common what is the same. Raises ValueError, KeyError, IndexError and the like for what is none."""
    count, numbers = packed.count, {}
    columns: dict[str, list] = {}
    for name, each in packed.columns.items():
        columns[name], numbers[name] = expand(each, columns, numbers, count)

    def of(name: str) -> list:
        if name in packed.same:
            return [msgspec.convert(packed.same[name], kind_of(name))] * count
        if name not in columns:
            return [default(name)] * count
        if name in ("memory", "reasons"):
            return each_once(columns[name], kind_of(name))
        return msgspec.convert(columns[name], list[kind_of(name)])

    proofs = [zip(*(of(f"threads.{number}.{name}") for name in PROOF), strict=True) for number in range(packed.threads)]
    threads = list(zip(*([ThreadProof(**dict(zip(PROOF, row, strict=True))) for row in rows] for rows in proofs), strict=True))
    threads = threads or [()] * count
    named = {
        kind: list(zip(*(of(f"{kind}.{name}") for name in getattr(packed, kind)), strict=True)) or [()] * count for kind in NAMED
    }
    dicts = {kind: [dict(zip(getattr(packed, kind), row, strict=True)) for row in rows] for kind, rows in named.items()}
    rest = {name: of(name) for name in WHOLE if name not in packed.derived}
    for name in packed.derived:
        rest[name] = [RULES[name](benchmark, p, t) for p, t in zip(dicts["parameters"], threads, strict=True)]
    rows = zip(*(rest[name] for name in WHOLE), strict=True)
    return [
        Sample(threads=t, parameters=p, metrics=m, extra=e, **dict(zip(WHOLE, row, strict=True)))
        for t, p, m, e, row in zip(threads, dicts["parameters"], dicts["metrics"], dicts["extra"], rows, strict=True)
    ]


def kind_of(name: str) -> Any:
    """The type of a field: logs come from elsewhere, and a column can hold anything."""
    kind, _, rest = name.partition(".")
    if kind == "threads":
        return HINTS[ThreadProof, rest.partition(".")[2]]
    return {"parameters": Value, "metrics": float, "extra": float}.get(kind) or HINTS[Sample, name]


def expand(packed: Column, columns: dict[str, list], numbers: dict[str, list], count: int) -> tuple[list, list]:
    """A column's values, and the numbers that they are so many units of."""
    if packed.values is None and packed.digits is None:
        return columns[packed.than], numbers[packed.than]
    values = from_digits(packed, count) if packed.values is None else list(packed.values)
    if packed.at is not None:
        values = [packed.usual] * count
        for number, value in zip(packed.at, packed.values, strict=True):
            values[number] = value
    elif packed.of is not None:
        values = [packed.of[number] for number in values]
    if packed.than is not None:
        theirs = numbers[packed.than]
        if packed.unit == NS and not all(type(n) is int for n in theirs):
            theirs, _ = in_ns(columns[packed.than])
        values = [a + b for a, b in zip(theirs, values, strict=True)]
    numbers_here = values
    if packed.unit is not None:
        values = [number * packed.unit for number in values]
    if packed.parts is not None:
        values = [number / packed.parts for number in values]
    return values, numbers_here if packed.unit == NS else values


def each_once(values: list, kind: Any) -> list:
    """Converted, each object once: what columns share by number stays shared."""
    made: dict[int, Any] = {}
    return [made[id(v)] if id(v) in made else made.setdefault(id(v), msgspec.convert(v, kind)) for v in values]


#: Fields that follow from a sample's parameters and threads.
RULES = {
    "case": lambda benchmark, parameters, threads: case_hash(benchmark, parameters),
    "overlap": lambda benchmark, parameters, threads: (
        together([t.end for t in threads], [t.begin for t in threads]) if threads else 1.0
    ),
    "start_skew": lambda benchmark, parameters, threads: max((t.begin for t in threads), default=0.0),
}
HINTS = {(struct, name): kind for struct in (Sample, ThreadProof) for name, kind in get_type_hints(struct).items()}
