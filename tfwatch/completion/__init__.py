"""Completion for shells, made from the same command tree as --help: a TAB starts no Python.

Not typer's own: that starts the whole program at each TAB, and its script for zsh evaluates what comes back. Names in
the spool are chosen by strangers, and the one who types is often root. These scripts never evaluate a name.
"""
