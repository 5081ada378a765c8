"""Other machines for tests and for `tools/bench_self.py`: a numabench that writes a log at once, and an ssh and a Slurm that run what they are given here."""

from __future__ import annotations

from pathlib import Path

from synthetic import make_log
from test_runlog import write

from numabench import __version__

#: A numabench that measures in no time, or what do/ALIAS says. `measured` has a line for each visit.
FAKE = """\
#!/bin/sh
here=${0%/*}
case $1 in
  -V) echo "numabench ${FAKE_VERSION:-THIS}"; exit;;
  take) [ ! -e "$here/take" ] || . "$here/take"; exit 3;;
esac
while [ $# -gt 0 ]; do
  case $1 in --alias) alias=$2;; -o) folder=$2;; --resume) log=$2;; esac
  shift
done
if [ -n "$log" ]; then
  alias=$(basename "$(dirname "$log")")
  run=$(sed -n 's/.*"run":"\\([^"]*\\)".*/\\1/p;q' "$log")
else
  mkdir -p "$folder/$alias"; log=$folder/$alias/1.jsonl; run=$alias-$$
fi
all() { sed "s/toyname/$alias/g; s/toyrun/$run/g" "$here/template"; }
whole() { all >"$log"; echo "$alias $run" >>"$here/measured"; }
part() { all | head -n 3 >"$log"; }
connection() { cut -d' ' -f4 /proc/$PPID/stat; }
if [ -e "$here/do/$alias" ]; then . "$here/do/$alias"; else whole; fi
"""
#: What a connection meets: the login shell's noise and settings of one address, then the command.
DOOR = """\
#!/bin/sh
here=${0%/*}
export HOME=$here/home PATH=$here:$PATH
set -- $SSH_CONNECTION
[ ! -e "$here/doors/$3" ] || . "$here/doors/$3"
exec sh -c "$SSH_ORIGINAL_COMMAND"
"""

#: Of `queue` each line is a job: its number, mark and state.
SLURM = {
    "sinfo": "#!/bin/sh\ncat ${0%/*}/../nodes\n",
    "scontrol": "#!/bin/sh\necho $3 | tr , '\\n'\n",
    "squeue": "#!/bin/sh\ncat ${0%/*}/../queue 2>/dev/null || :\n",
    "sbatch": """\
#!/bin/sh
there=${0%/*}/..
while [ $# -gt 0 ]; do case $1 in -w) node=$2;; -o) out=$2;; --comment) mark=$2;; --array*) exit 9;; esac; shift; done
state=COMPLETED
export HOME=$there/home PATH=$there:$PATH
if [ -e $there/jobs/$node ]; then . $there/jobs/$node; else sh >"$out" 2>&1; fi
echo "$$|$mark|$state" >>$there/queue
""",
}


class There:
    """Other machines: `do` and `door` say what happens on one of them."""

    def __init__(self, folder: Path):
        self.folder = folder
        for name in ("do", "doors", "home", "bin"):
            (folder / name).mkdir()
        log = write(folder / "log", make_log("toyname", processes=2, samples=1))
        text = log.read_text().replace("toyname-0-0", "toyrun")
        (folder / "template").write_text(text)
        self.program("fakebench", FAKE.replace("THIS", __version__))

    def program(self, name: str, text: str) -> Path:
        path = self.folder / name
        path.write_text(text)
        path.chmod(0o755)
        return path

    def do(self, alias: str, text: str) -> None:
        (self.folder / "do" / alias).write_text(text)

    def door(self, address: str, text: str) -> None:
        (self.folder / "doors" / address).write_text(text)

    def measured(self) -> list[str]:
        path = self.folder / "measured"
        return [line.split()[0] for line in path.read_text().splitlines()] if path.exists() else []

    def ssh(self) -> None:
        """An `ssh` that connects nowhere: whatever host, what is asked runs here."""
        self.program(
            "bin/ssh",
            f'#!/bin/sh\nexport HOME={self.folder}/home PATH={self.folder}:$PATH\nfor each; do :; done\nexec sh -c "$each"\n',
        )

    def slurm(self, nodes: str) -> None:
        """A Slurm whose jobs are done as soon as they are submitted; `nodes` are lines of sinfo's. jobs/NODE says what a job does instead."""
        (self.folder / "jobs").mkdir(exist_ok=True)
        (self.folder / "nodes").write_text(nodes)
        for name, text in SLURM.items():
            self.program(f"bin/{name}", text)
