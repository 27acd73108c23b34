"""Completion for zsh, in the manner of its own: a function that compinit finds by its first line."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from typing import Final

from tfwatch.completion.tree import Command, Option, Tree, Value

_SCRIPT: Final = r"""#compdef tfwatch
# zsh completion for tfwatch; made by: tfwatch completion zsh

# _tfwatch_packages FOLDER...: offer the packages there.
_tfwatch_packages() {
    local config=${opt_args[--config]:-${opt_args[-c]:-${TFWATCH_CONFIG:-/etc/tfwatch/config.yaml}}}
    local root=$TFWATCH_SPOOL_ROOT folder
    local -a names
    [[ -n $root ]] || root=$(sed -n 's/^ \{1,\}root: *\(\/[^ #]*\).*/\1/p' "$config" 2>/dev/null | head -n 1)
    for folder in "$@"; do
        names+=("${root:-/var/lib/tfwatch}/$folder"/[^-]*.[zZ][iI][pP](N.:t))
    done
    names=(${names:#*[[:cntrl:]]*})
    compadd -a names
}

_tfwatch() {
    local curcontext=$curcontext state line
    local -A opt_args
    local -a commands
    _arguments -C @OPTIONS@ '1: :->command' '*:: :->rest' && return
    case $state in
    command)
        commands=(
@COMMANDS@
        )
        _describe -t commands command commands
        ;;
    rest)
        case $words[1] in
@CASES@
        esac
        ;;
    esac
}

if [[ $funcstack[1] == _tfwatch ]]; then
    _tfwatch "$@"
else
    compdef _tfwatch tfwatch
fi
"""


def script(tree: Tree) -> str:
    """The file's text; its place is a folder of $fpath, as _tfwatch."""
    parts = {
        "@OPTIONS@": " ".join(_option(option) for option in tree.options),
        "@COMMANDS@": "\n".join(
            f"            {shlex.quote(f'{command.name}:{command.summary}')}"
            for command in tree.commands
            if not command.hidden
        ),
        "@CASES@": "\n".join(
            "        {}) _arguments -s {} ;;".format(command.name, " \\\n            ".join(_specs(command)))
            for command in tree.commands
        ),
    }
    text = _SCRIPT
    for mark, part in parts.items():
        text = text.replace(mark, part)
    return text


def _specs(command: Command) -> Iterator[str]:
    for option in command.options:
        yield _option(option)
    for place, argument in enumerate(command.arguments, 1):
        which = "*" if argument.repeated else str(place)
        yield shlex.quote(f"{which}:{_plain(argument.value.shown)}:{_action(argument.value)}")


def _option(option: Option) -> str:
    """One specification: '(--config -c)'{--config,-c}'[what it does]:FILE:_files'."""
    names = " ".join(option.names)
    told = f"[{_plain(option.help)}]"
    if option.value is not None:
        told += f":{_plain(option.value.shown)}:{_action(option.value)}"
    takes = [f"{name}=" if option.value and name.startswith("--") else name for name in option.names]
    repeatable = "several times" in option.help
    if len(takes) == 1:
        return shlex.quote(f"{'*' if repeatable else ''}{takes[0]}{told}")
    return f"'({names})'{{{','.join(takes)}}}{shlex.quote(told)}"


def _action(value: Value) -> str:
    if value.words:
        return f"({' '.join(value.words)})"
    if value.folders:
        return f"_tfwatch_packages {' '.join(value.folders)}"
    if value.is_file:
        return "_files"
    return "_files -/" if value.is_folder else " "


def _plain(text: str) -> str:
    """What _arguments reads as marks is written so that it stands for itself."""
    for mark in "\\:[]":
        text = text.replace(mark, f"\\{mark}")
    return text
