"""Completion for fish."""

from __future__ import annotations

from typing import Final

from tfwatch.completion.tree import Option, Tree, Value

_HEAD: Final = r"""# fish completion for tfwatch; made by: tfwatch completion fish

# __tfwatch_packages FOLDER...: the names of the packages there, one a line.
function __tfwatch_packages
    set -l config /etc/tfwatch/config.yaml
    set -q TFWATCH_CONFIG; and set config $TFWATCH_CONFIG
    set -l before
    for word in (commandline -opc)
        contains -- "$before" -c --config; and set config $word
        set before $word
    end
    set -l root $TFWATCH_SPOOL_ROOT
    test -n "$root"; or set root (sed -n 's/^ \{1,\}root: *\(\/[^ #]*\).*/\1/p' $config 2>/dev/null | head -n 1)
    test -n "$root"; or set root /var/lib/tfwatch
    for folder in $argv
        for path in $root/$folder/*
            string match -qri '/[^-][^/]*\.zip$' -- $path; and not string match -qr '[[:cntrl:]]' -- $path
            and test -f $path; and string replace -r '.*/' '' -- $path
        end
    end
end

complete -c tfwatch -f
"""


def script(tree: Tree) -> str:
    """The file's text; its place is a folder of $fish_complete_path, as tfwatch.fish."""
    lines = [f"complete -c tfwatch -n __fish_use_subcommand {_option(option)}" for option in tree.options]
    lines += [
        f"complete -c tfwatch -n __fish_use_subcommand -a {command.name} -d {_quoted(command.summary)}"
        for command in tree.commands
        if not command.hidden
    ]
    for command in tree.commands:
        when = f"complete -c tfwatch -n '__fish_seen_subcommand_from {command.name}'"
        lines += [f"{when} {_option(option)}" for option in command.options]
        lines += [f"{when} {offer}" for argument in command.arguments if (offer := _offer(argument.value))]
    return _HEAD + "\n".join(lines) + "\n"


def _option(option: Option) -> str:
    """One option's words. Nothing: a flag; -x: takes a value; -r -F: takes a file's name."""
    words = [f"-l {name[2:]}" if name.startswith("--") else f"-s {name[1:]}" for name in option.names]
    if option.value is not None:
        words.append("-r -F" if option.value.is_file else f"-x {_offer(option.value)}".rstrip())
    return " ".join([*words, f"-d {_quoted(option.help)}"])


def _offer(value: Value) -> str:
    if value.words:
        return f"-a {_quoted(' '.join(value.words))}"
    if value.folders:
        return f"-a '(__tfwatch_packages {' '.join(value.folders)})'"
    if value.is_file:
        return "-F"
    return "-a '(__fish_complete_directories)'" if value.is_folder else ""


def _quoted(text: str) -> str:
    """In fish's single quotes only these two are special."""
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"
