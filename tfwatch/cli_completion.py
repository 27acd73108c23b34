"""`tfwatch completion`: the command line of what shells load. Packages bring the files; this is for other installs."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer


class Shell(StrEnum):
    """The shells there is completion for."""

    BASH = "bash"
    ZSH = "zsh"
    FISH = "fish"


def completion(
    ctx: typer.Context,
    shell: Annotated[Shell, typer.Argument(metavar="|".join(Shell), help="Which shell it is for.")],
) -> None:
    """Print the completion for a shell.

    Debian's package brings it along; after another install, put it where the shell looks. A TAB starts no program
    but sed.

    \b
    tfwatch completion bash > ~/.local/share/bash-completion/completions/tfwatch
    tfwatch completion zsh > ~/.zfunc/_tfwatch     with ~/.zfunc in $fpath before compinit
    tfwatch completion fish > ~/.config/fish/completions/tfwatch.fish
    """
    from tfwatch.completion import bash, fish, zsh
    from tfwatch.completion.tree import read

    script = {Shell.BASH: bash.script, Shell.ZSH: zsh.script, Shell.FISH: fish.script}[shell]
    typer.echo(script(read(ctx.find_root().command)), nl=False)
