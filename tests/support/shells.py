"""A shell on a terminal of its own, in which a key is pressed: what does completion really put into the line?"""

from __future__ import annotations

import os
import pty
import subprocess
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

from tests.support.require import need

SHELLS: Final = ("bash", "zsh", "fish")
SECONDS: Final = 30

_TAKE: Final = """
tfwatch() {{ printf '%s\\0' "$@" > {home}/taken.part; mv {home}/taken.part {home}/taken; }}
"""

_BASH: Final = """
PS1= PROMPT_COMMAND= HISTFILE=
bind 'set bell-style none' 'set enable-bracketed-paste off'
bind '"\\C-xa": insert-completions'
. {script}
"""

_ZSH: Final = """
PS1= HISTFILE=
fpath=({folder} $fpath)
autoload -Uz compinit && compinit -u -d {home}/dump
every() {{ _main_complete; compstate[insert]=all; compstate[list]= }}
zle -C every complete-word every
bindkey -e
bindkey '^Xa' every
"""


def offered(shell: str, script: Path, line: str, home: Path, variables: Mapping[str, str] | None = None) -> list[str]:
    """The words that completion offers at the end of the line, as the shell gives them to the command. None: [].

    `script`: the completion, named as the shell wants it: _tfwatch for zsh. `home`: a folder, also the current one.
    """
    path = need(shell)
    environ = {"PATH": os.environ["PATH"], "HOME": str(home), "TERM": "dumb", "LC_ALL": "C.UTF-8", **(variables or {})}
    if shell == "fish":
        command = [path, "--no-config", "-c", "source $argv[1]; complete -C $argv[2]", str(script), line]
        done = subprocess.run(command, env=environ, cwd=home, capture_output=True, text=True, timeout=SECONDS)
        assert "" == done.stderr
        return [found.partition("\t")[0] for found in done.stdout.splitlines()]
    rc = (_TAKE + (_BASH if shell == "bash" else _ZSH)).format(home=home, script=script, folder=script.parent)
    name = home / (".bashrc" if shell == "bash" else ".zshrc")
    name.write_text(rc)
    typed = _typed([path, "-i"], environ, home, line)
    given = [*line.removeprefix("tfwatch ").split()]
    before = given if line.endswith(" ") else given[:-1]
    assert before == typed[: len(before)]
    rest = typed[len(before) :]
    return [] if rest == given[len(before) :] and not line.endswith(" ") else rest


def _typed(command: list[str], environ: Mapping[str, str], home: Path, line: str) -> list[str]:
    """Type the line, the key that inserts every completion, and Enter; the arguments the command then got."""
    taken = home / "taken"
    taken.unlink(missing_ok=True)
    ours, theirs = pty.openpty()
    shown = bytearray()

    def read() -> None:
        with suppress(OSError):
            while block := os.read(ours, 4096):
                shown.extend(block)

    with subprocess.Popen(
        command, stdin=theirs, stdout=theirs, stderr=theirs, env=dict(environ), cwd=home, start_new_session=True
    ) as running:
        os.close(theirs)
        reader = threading.Thread(target=read, daemon=True)
        reader.start()
        try:
            os.write(ours, f"{line}\x18a\n".encode())
            deadline = time.monotonic() + SECONDS
            while not taken.exists():
                assert time.monotonic() < deadline, f"nothing was run: {bytes(shown)!r}"
                time.sleep(0.02)
        finally:
            running.kill()
    reader.join(SECONDS)
    os.close(ours)
    return taken.read_bytes().decode().split("\0")[:-1]
