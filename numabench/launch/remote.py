"""What runs on the other machine, a few lines of sh, and what is made of its answer.

Everything that counts stands in lines that begin with a nonce, so that whatever else a login shell prints does no harm. The log is kept there until it
has arrived: a visit that was interrupted is resumed by the next one.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import time
from typing import NamedTuple

from .. import __version__
from ..host.objects import PARCEL
from ..host.pushed import Parcel
from ..runlog.expected import MEASURED, Asked
from ..text import in_shell, printable
from ..units import format_seconds
from .hosts import bare

MOST_PACKED = 1 << 26  # bytes of a log on its way; a standard one has 1.2 MB
MOST_NOISE = 1 << 20  # bytes that a login shell may print
MOST_ERRORS = 1 << 14  # bytes of messages that are kept
MOST_SKEW = 300  # s between two clocks: visits are put in order by them
LONGEST_WHY = 300
LEAST_PYTHON = (3, 10)
WHOLE = (0, 1)  # exit codes of a run that measured to its end: 1 where a sample failed its check
BUSY, INTERRUPTED, LOST, FAILED, UNREACHABLE = "busy", "interrupted", "connection lost", "failed", "unreachable"
GO_ON = "the same line again goes on"
OWN_KERNELS = "it compiled its kernels itself, and did not take those that were sent"

#: Without a connection nothing measures: where its end is seen (`attached`), the run is asked to end, which leaves a log that can be gone on with.
SCRIPT = """\
#!/bin/sh
{{ exec 3<&0
say() {{ printf '%s %s\\n' {nonce} "$*"; }}
say begin
PATH=$PATH:$HOME/.local/bin
umask 077
skew=$(($(date +%s) - {then}))
[ "${{skew#-}}" -le {skew} ] || {{ say clock "$skew"; exit 0; }}
command -v {program} >/dev/null || {{ say missing "$(python3 -V 2>&1)"; exit 0; }}
nb() {{ exec {words} "$@"; }}
version=$(nb -V 2>&1 </dev/null)
[ "$version" = 'numabench {version}' ] || {{ say version "$(printf '%s' "$version" | tail -n 1)"; exit 0; }}
unset {variable}
parcel={parcel}
if [ -n "$parcel" ] && (nb take {nonce} "$parcel" {objects} <{stream}); then
  {variable}=$parcel
  export {variable}
fi
folder={folder}
mkdir -p "$folder" || {{ say folder; exit 0; }}
newest() {{ find "$folder" -name '*.jsonl' | sort | tail -n 1; }}
work() {{
  nb run -q "$@" </dev/null 3<&- >&2 &
  run=$!
  if [ {attached} = yes ]; then
    (while read -r _; do :; done <&3; kill -TERM $run) >/dev/null 2>&1 &
    watch=$!
  fi
  wait $run; code=$?
  [ {attached} = no ] || kill $watch
}}
log=$(newest)
if [ -n "$log" ]; then
  work --resume "$log" {again}
  if [ $code = 2 ]; then mv "$log" "$log.refused"; log=; fi
fi
if [ -z "$log" ]; then
  work {asked} -o "$folder"
  log=$(newest)
fi
case $code in {whole}) if [ -n "$log" ]; then say log; gzip -c "$log"; echo; fi;; esac
[ -n "$log" ] || rmdir "$folder" 2>/dev/null
say end $code
[ {attached} = no ] || {{ read -r answer <&3; [ "$answer" != kept ] || rm -r "$folder"; }}
}}; exit
"""  # in braces: sh has read all of it before the connection is read by others


class Visit(NamedTuple):
    """What is sent to a host, and how its answer is known. `mark`: of all tries of one visit, and the name of the log's folder there. `parcel`: the kernels that it may ask for."""

    host: str
    nonce: str
    script: str
    mark: str
    parcel: Parcel | None = None


class Answer(NamedTuple):
    """State of a host and why; the packed log of one that measured."""

    state: str
    why: str = ""
    packed: bytes = b""


def prepare(asked: Asked, host: str, number: int, shared: str = "", parcel: Parcel | None = None) -> Visit:
    """Visit `number` to a host. `shared`: a folder that both machines see, for an engine without a connection. All words are printable: sh quotes no others."""
    mark = hashlib.sha256(f"{asked.launch} {host} {number}".encode()).hexdigest()[:16]
    folder = in_shell(f"{shared}/{mark}") if shared else f'"${{XDG_STATE_HOME:-$HOME/.local/state}}"/numabench/launch/{mark}'
    nonce = secrets.token_hex(16)
    first, *rest = asked.program
    program = f"~/{in_shell(first[2:])}" if first.startswith("~/") else in_shell(first)  # ~ is that of the other machine
    script = SCRIPT.format(
        nonce=nonce,
        then="$(date +%s)" if shared else int(time.time()),  # a job waits in its queue
        skew=MOST_SKEW,
        program=program,
        words=f"{program} {in_shell(*rest)}",
        version=__version__,
        variable=PARCEL,
        parcel=parcel.name if parcel else "",
        objects=in_shell(parcel.listed.machine, *parcel.objects) if parcel else "",
        stream=in_shell(f"{shared}/{parcel_file(parcel)}") if parcel and shared else "&3",
        folder=folder,
        attached="no" if shared else "yes",
        again=in_shell(*asked.again),
        asked=in_shell(*asked.words, "--alias", bare(host)),
        whole="|".join(map(str, WHOLE)),
    )
    return Visit(host, nonce, script, mark, parcel)


def parcel_file(parcel: Parcel) -> str:
    """Of a folder that both machines see."""
    return f"{parcel.name}.kernels"


def lacking(visit: Visit, data: bytes | bytearray) -> list[str] | None:
    """The objects that a host asks for; None where it asks for none. `data`: the last part of what came."""
    found = re.search(rb"^%b lack((?: [0-9a-f]+)*)\n" % re.escape(visit.nonce.encode()), data, re.MULTILINE)
    return found[1].decode().split() if found else None


def whole(visit: Visit, data: bytes | bytearray) -> bool:
    """Whether all that is awaited of an answer has come."""
    return re.search(rb"(\A|\n)%b end \d+\n\Z" % visit.nonce.encode(), data[-100:]) is not None


def begun(visit: Visit, data: bytes | bytearray) -> bool:
    return f"{visit.nonce} begin\n".encode() in data


def read_answer(visit: Visit, data: bytes | bytearray, errors: str, code: int | None) -> Answer:
    """What a host answered, `errors` what was printed besides, `code` of ssh itself or None."""
    mark = re.escape(visit.nonce.encode())
    said = dict(re.findall(rb"^%b (clock|missing|version|folder|end)(.*)$" % mark, data, re.MULTILINE))
    words = {name.decode(): printable(text.decode(errors="replace")).strip()[:LONGEST_WHY] for name, text in said.items()}
    if re.fullmatch(r"\d{1,3}", words.get("end", "")):
        log = re.search(rb"^%b log\n(.*)\n%b end " % (mark, mark), data, re.MULTILINE | re.DOTALL)
        return after_run(visit, int(words["end"]), log[1] if log else b"", errors)
    for name, judge in (("clock", clock), ("missing", missing), ("version", other_version)):
        if name in words:
            return judge(words[name])
    if "folder" in words:
        return by_disk(errors) or Answer(FAILED, f"no folder for its log can be made there: {last_line(errors)}")
    if begun(visit, data):
        return Answer(LOST, f"{last_line(errors) or 'it ended in the middle'}; what was measured stays there, and {GO_ON}")
    return before_begin(visit.host, errors, code)


def after_run(visit: Visit, code: int, packed: bytes, errors: str) -> Answer:
    why = complaint(errors)
    refused = not_taken(errors)
    if code in WHOLE and packed:
        said = ["some samples failed their check; its log names them"] if code else []
        return Answer(MEASURED, "; ".join([*said, *([f"{OWN_KERNELS}: {refused}"] if refused else [])]), packed)
    if code == 130:
        return Answer(INTERRUPTED, f"the run there was ended; {GO_ON}")
    if code == 5 or (code == 3 and re.search("another run|stop these, choose other CPUs|wait until it ends", why)):
        return Answer(BUSY, why or f"other programs have its CPUs: {GO_ON}, or --wait 10m")
    if full := by_disk(errors):
        return full
    if "no C compiler" in why:
        return Answer(
            "compiler missing",
            f"{why}{f'; the kernels that were sent are not taken: {refused}' if refused else ''}"[: 2 * LONGEST_WHY],
        )
    if code == 137:
        return Answer(FAILED, f"the run there was killed, for want of memory maybe; {GO_ON}")
    return Answer(FAILED, why or f"numabench run ended with {code} there{f': {said}' if (said := last_line(errors)) else ''}")


def not_taken(errors: str) -> str:
    """Why a host did not take the kernels that were for it; empty where it did, or there were none."""
    found = re.findall(r"^numabench: kernels not taken: (.*)$", errors, re.MULTILINE)
    return printable(found[-1]).strip()[:LONGEST_WHY] if found else ""


def clock(skew: str) -> Answer:
    seconds = int(skew) if re.fullmatch(r"-?\d{1,12}", skew) else 0
    which = "ahead" if seconds > 0 else "behind"
    return Answer("clock wrong", f"{format_seconds(abs(seconds))} {which} of this machine's: timedatectl set-ntp true there")


def missing(python: str) -> Answer:
    if old := too_old(python):
        return old
    return Answer(
        "numabench missing", f"{install_line()} there, or say where it is: --with PATH ({python or 'it has no python3 either'})"
    )


def install_line() -> str:
    return in_shell("pipx", "install", f"numabench=={__version__}")


def too_old(text: str) -> Answer | None:
    found = re.search(r"Python (\d+)\.(\d+)", text)
    if not found or (int(found[1]), int(found[2])) >= LEAST_PYTHON:
        return None
    return Answer(
        "Python too old", f"{found[0]} there, numabench needs {'.'.join(map(str, LEAST_PYTHON))}: name another one's, --with PATH"
    )


def other_version(said: str) -> Answer:
    if re.fullmatch(r"numabench \S+", said):
        return Answer("other version", f"{said} there, {__version__} here, which are not compared: {install_line()} there")
    if old := too_old(said):
        return old
    return Answer("numabench missing", f"what is called so there does not start ({said or 'it says nothing'}): {install_line()}")


#: What OpenSSH prints before anything of ours runs -> state, and what mends it.
SAID = (
    (
        "REMOTE HOST IDENTIFICATION HAS CHANGED",
        "host key changed",
        "ask its administrator whether it was set up anew; then: ssh-keygen -R {host}",
    ),
    ("Host key verification failed", "host key unknown", "look at it once, and accept it: ssh {host}"),
    (r"Permission denied \([^)]*(password|keyboard-interactive)", "password wanted", "give it your key: ssh-copy-id {host}"),
    ("Permission denied|Too many authentication failures", "no access", "its key is not accepted: ssh -v {host}"),
    (
        "kex_exchange_identification|Connection (closed|reset) by|Exceeded MaxStartups",
        UNREACHABLE,
        "its sshd, or a jump host's, turned the connection away; the same line again, with fewer --at-once",
    ),
    ("Could not resolve hostname", UNREACHABLE, "is its name right? ssh {host}"),
    ("not responding", LOST, "it stopped to answer; " + GO_ON),
    ("onnect|No route|timed out|unreachable", UNREACHABLE, "is it up? " + GO_ON),
)


def before_begin(host: str, errors: str, code: int | None) -> Answer:
    for pattern, state, mend in SAID:
        if re.search(pattern, errors):
            return Answer(state, f"{last_line(errors)}; {mend.format(host=in_shell(host))}")
    return Answer(
        FAILED, f"its login shell ran nothing ({last_line(errors) or f'ssh ended with {code}'}): ssh {in_shell(host)} true"
    )


def by_disk(errors: str) -> Answer | None:
    found = re.search(r"[^\n]*(No space left on device|Disk quota exceeded)", errors)
    if not found:
        return None
    said = complaint(errors) if found[1] in complaint(errors) else found[0].removeprefix("numabench: ").strip()[-LONGEST_WHY:]
    return Answer("disk full", f"{printable(said)}; make room there, then {GO_ON}")


def complaint(errors: str) -> str:
    """numabench's own line of error."""
    found = re.findall(r"^numabench: error: (.*)$", errors, re.MULTILINE)
    return printable(found[-1]).strip()[:LONGEST_WHY] if found else ""


def last_line(errors: str) -> str:
    lines = [line.strip() for line in errors.splitlines() if line.strip()]
    return printable(lines[-1])[:LONGEST_WHY].rstrip(".") if lines else ""
