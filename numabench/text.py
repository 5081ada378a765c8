"""Text from elsewhere (logs, files of other machines, names of files) made fit for terminals, pages and files."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping

LINE_ENDS = re.compile(r"\s*[\t\n\v\f\r\x1c-\x1e\x85\u2028\u2029]+\s*")
#: C0 and C1 (what terminals obey), halves of surrogate pairs (which no encoding has), and what turns the direction of all that follows it (a name with U+202E would
#: have the verdict behind it read backwards). Scripts from right to left need none of these, and their marks (U+200E, U+200F, U+061C) stay.
UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
_BLANK = re.compile(r"\{(\w+)\}")


def printable(text: str) -> str:
    """One line without control characters: line ends become spaces, the others a sign that says that something was there."""
    if text.isprintable():
        return text
    return UNPRINTABLE.sub(REPLACEMENT, LINE_ENDS.sub(" ", text))


def in_shell(*words: object) -> str:
    """A command that can be pasted into a shell, on one line, whatever stands in the names of files. All commands that are printed come from here."""
    import shlex

    return " ".join(shlex.quote(word) if word.isprintable() else _escaped(word) for word in map(str, words))


MOST_NAMED = 4  # benchmarks in a command; more are all of them


def measure_again(benchmarks: Collection[str], *options: object, topics: Collection[str] = ()) -> str:
    """The command that measures these benchmarks; where they are many, those of `topics`, or all."""
    return in_shell("numabench", "run", *(benchmarks if len(benchmarks) <= MOST_NAMED else topics), *options)


def _escaped(word: str) -> str:
    """$'...' of bash, ksh and zsh: the bytes that would end the line, or that a terminal would obey, by their numbers."""
    data = word.encode("utf-8", "surrogateescape")
    return "$'" + "".join(chr(byte) if 32 <= byte < 127 and byte not in b"'\\" else f"\\x{byte:02x}" for byte in data) + "'"


def near(word: str, known: Iterable[str]) -> str:
    """`; did you mean a or b?` for a name that is none of `known`; nothing where none is near."""
    from difflib import get_close_matches

    close = get_close_matches(word, list(known), 3, 0.4)
    return f"; did you mean {' or '.join(close)}?" if close else ""


def fill(template: str, words: Mapping[str, str]) -> str:
    """`template` with each `{word}` that `words` has put in. Nothing else is looked at: templates travel in logs, and Python's own formats reach
    attributes, take indices and make text of any width."""
    return _BLANK.sub(lambda match: words.get(match[1], match[0]), template)
