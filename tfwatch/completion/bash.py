"""Completion for bash; works with and without the package bash-completion."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from typing import Final

from tfwatch.completion.tree import Command, Tree, Value

_SCRIPT: Final = r"""# bash completion for tfwatch; made by: tfwatch completion bash

# _tfwatch_packages FOLDER...: fill COMPREPLY with the packages there whose names begin like the current word.
_tfwatch_packages() {
    local root=$TFWATCH_SPOOL_ROOT config=${TFWATCH_CONFIG:-/etc/tfwatch/config.yaml}
    local typed=${current//[\\\"\']/} quote=%q special='[[:cntrl:]]' folder path name i
    for ((i = 2; i < COMP_CWORD; i++)); do
        [[ ${COMP_WORDS[i - 1]} == -c || ${COMP_WORDS[i - 1]} == --config ]] && config=${COMP_WORDS[i]}
    done
    [[ -n $root ]] || root=$(sed -n 's/^ \{1,\}root: *\(\/[^ #]*\).*/\1/p' "$config" 2>/dev/null | head -n 1)
    # Names are chosen by strangers, and bash leaves a $ in them as it is: outside of quotes the name is quoted here,
    # within them only those are offered that need no quoting of their own.
    [[ $current == [\"\']* ]] && compopt -o filenames && quote=%s special='[[:cntrl:]"$`\\!'\'']'
    for folder in "$@"; do
        for path in "${root:-/var/lib/tfwatch}/$folder"/[!-]*.[zZ][iI][pP]; do
            name=${path##*/}
            [[ $name == "$typed"* && $name != *$special* && -f $path ]] || continue
            printf -v name "$quote" "$name"
            COMPREPLY+=("$name")
        done
    done
}

_tfwatch() {
    local current=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD - 1]} command=${COMP_WORDS[1]} words=
    COMPREPLY=()
    # bash splits --config=FILE at the sign.
    if [[ $current == = ]]; then
        current=
    elif [[ $before == = ]]; then
        before=${COMP_WORDS[COMP_CWORD - 2]}
    fi
    if ((COMP_CWORD == 1)); then
        words=@WORDS@
        mapfile -t COMPREPLY < <(compgen -W "$words" -- "$current")
        return
    fi
    case "$command $before" in
@VALUES@
    esac
    if [[ -n $words ]]; then
        :
    elif [[ $current == -* ]]; then
        case $command in
@OPTIONS@
        esac
    else
        case $command in
@ARGUMENTS@
        esac
    fi
    [[ -z $words ]] || mapfile -t COMPREPLY < <(compgen -W "$words" -- "$current")
}

complete -F _tfwatch tfwatch
"""


def script(tree: Tree) -> str:
    """The file's text; its place is /usr/share/bash-completion/completions/tfwatch."""
    shown = [command for command in tree.commands if not command.hidden]
    first = [*(command.name for command in shown), *(name for option in tree.options for name in option.names)]
    parts = {
        "@WORDS@": _quoted(first),
        "@VALUES@": "\n".join(line for command in tree.commands for line in _values(command)),
        "@OPTIONS@": "\n".join(
            f"            {command.name}) words={_quoted([n for o in command.options for n in o.names])} ;;"
            for command in tree.commands
        ),
        "@ARGUMENTS@": "\n".join(
            f"            {command.name}) {_offer(argument.value)} ;;"
            for command in tree.commands
            for argument in command.arguments[:1]
        ),
    }
    text = _SCRIPT
    for mark, part in parts.items():
        text = text.replace(mark, part)
    return text


def _values(command: Command) -> Iterator[str]:
    for option in command.options:
        if option.value is not None:
            pattern = "|".join(f'"{command.name} {name}"' for name in option.names)
            then = _offer(option.value)
            yield f"        {pattern}) {then}{'' if option.value.words else '; return'} ;;"


def _offer(value: Value) -> str:
    if value.words:
        return f"words={_quoted(value.words)}"
    if value.folders:
        return f"_tfwatch_packages {' '.join(value.folders)}"
    if value.is_file:
        return "compopt -o default"
    return "compopt -o dirnames" if value.is_folder else ":"


def _quoted(words: list[str] | tuple[str, ...]) -> str:
    return shlex.quote(" ".join(words))
