"""``tidegate completion``: what a shell needs to complete this command line, made of the parsers themselves: whatever a
command takes is completed without more being written."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from tidegate.cli.command import LoadConfig, until_reader_leaves

DESCRIPTION = (
    "Print what a shell needs to complete commands and their options. Source it from the shell's own start file, or "
    "write it where the shell looks."
)
EXAMPLES = (
    "source <(tidegate completion bash)",
    "tidegate completion bash > /etc/bash_completion.d/tidegate",
    "source <(tidegate completion zsh)",
    "tidegate completion fish > ~/.config/fish/completions/tidegate.fish",
)

_FILES, _FOLDERS = ("FILE",), ("DIR",)  # what the place of a value is called, where a path belongs


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("shell", metavar="SHELL", choices=sorted(_SCRIPTS), help="bash, fish or zsh")


def run(args: argparse.Namespace, load_config: LoadConfig) -> int:
    with until_reader_leaves():
        print(_SCRIPTS[args.shell](_described()), end="")
    return 0


class Option(NamedTuple):
    """``names``: of one option, or none of a word that stands alone. ``value``: what its place is called, empty where
    it takes none; ``words``: all that may stand there, none where it may be anything."""

    names: tuple[str, ...]
    help: str
    value: str = ""
    words: tuple[str, ...] = ()

    @property
    def is_file(self) -> bool:
        return self.value in _FILES

    @property
    def is_folder(self) -> bool:
        return self.value in _FOLDERS


class Command(NamedTuple):
    """The one without a name is what stands before the command."""

    name: str
    summary: str
    options: list[Option]
    words: list[Option]


def _described() -> list[Command]:
    from tidegate.cli import main

    described = [_command("", "", main.parser())]
    return described + [_command(name, summary, main.command_parser(name)) for name, summary in main.COMMANDS.items()]


def _command(name: str, summary: str, parser: argparse.ArgumentParser) -> Command:
    options, words = [], []
    for action in parser._actions:  # argparse names them nowhere else
        is_told = action.help not in (None, argparse.SUPPRESS)
        told = str(action.help) % (vars(action) | {"prog": parser.prog}) if is_told else ""
        choices = tuple(map(str, action.choices or ()))
        if not action.option_strings:
            words.append(Option((), told, _place(action), choices))
        else:
            value = "" if action.nargs == 0 else _place(action)
            options.append(Option(tuple(action.option_strings), told, value, choices))
    return Command(name, summary, options, words)


def _place(action: argparse.Action) -> str:
    place = action.metavar if isinstance(action.metavar, str) else None
    return place or action.dest.upper()


# bash


def _bash(commands: Sequence[Command]) -> str:
    files: list[str] = []
    folders: list[str] = []
    others: list[str] = []
    chosen: list[str] = []
    for command in commands:
        for option in command.options:
            if not option.value:
                continue
            places = [f"'{command.name} {name}'" for name in option.names]
            if option.words:
                chosen.append(f"        {' | '.join(places)}) words='{' '.join(option.words)}' ;;")
            else:
                (files if option.is_file else folders if option.is_folder else others).extend(places)
    cases = [
        f"        {' | '.join(places)}) {what} ;;"
        for places, what in (
            (files, "_tidegate_paths -f; return"),
            (folders, "_tidegate_paths -d; return"),
            (others, "return"),
        )
        if places
    ]
    known = [
        f"        '{command.name}') words='{' '.join([*_names(command), *_words(commands, command)])}' ;;"
        for command in commands
    ]
    lines = "\n".join
    return f"""\
# Completes tidegate in bash: source <(tidegate completion bash)
_tidegate_paths() {{
    local IFS=$'\\n'
    compopt -o filenames 2>/dev/null
    COMPREPLY=($(compgen "$1" -- "${{COMP_WORDS[COMP_CWORD]}}"))
}}
_tidegate() {{
    local word=${{COMP_WORDS[COMP_CWORD]}} before=${{COMP_WORDS[COMP_CWORD - 1]}} command='' words='' at
    for ((at = 1; at < COMP_CWORD; at++)); do
        case ${{COMP_WORDS[at]}} in
            --config) ((at++)) ;;
            -*) ;;
            *)
                command=${{COMP_WORDS[at]}}
                break
                ;;
        esac
    done
    COMPREPLY=()
    case "$command $before" in
{lines([*cases, *chosen])}
    esac
    [ -n "$words" ] || case $command in
{lines(known)}
    esac
    COMPREPLY=($(compgen -W "$words" -- "$word"))
}}
complete -F _tidegate tidegate
"""


def _names(command: Command) -> Iterator[str]:
    for option in command.options:
        yield from option.names


def _words(commands: Sequence[Command], command: Command) -> Iterator[str]:
    """What may stand alone."""
    if not command.name:
        yield from (other.name for other in commands if other.name)
    else:
        for word in command.words:
            yield from word.words


# zsh


def _zsh(commands: Sequence[Command]) -> str:
    before, *rest = commands
    listed = "\n".join(f"        '{command.name}:{_quoted(command.summary)}'" for command in rest)
    cases = "\n".join(
        f"                {command.name})\n                    _arguments \\\n"
        + " \\\n".join(f"                        {spec}" for spec in _zsh_specs(command))
        + "\n                    ;;"
        for command in rest
    )
    first = " \\\n".join(f"        {_zsh_option(option)}" for option in before.options)
    return f"""\
#compdef tidegate
# Completes tidegate in zsh: source <(tidegate completion zsh)
_tidegate() {{
    local curcontext="$curcontext" state
    local -a commands words_before line
    commands=(
{listed}
    )
    _arguments -C \\
{first} \\
        '1: :->command' \\
        '*:: :->argument'
    case $state in
        command) _describe -t commands command commands ;;
        argument)
            case $words[1] in
{cases}
            esac
            ;;
    esac
}}
if [ "${{funcstack[1]}}" = _tidegate ]; then
    _tidegate "$@"
else
    compdef _tidegate tidegate
fi
"""


def _zsh_specs(command: Command) -> Iterator[str]:
    for option in command.options:
        yield _zsh_option(option)
    for number, word in enumerate(command.words, 1):
        yield f"'{number}:{_quoted(word.value)}:{_zsh_value(word)}'"


def _zsh_option(option: Option) -> str:
    text = f"[{_quoted(option.help)}]" + (f":{_quoted(option.value)}:{_zsh_value(option)}" if option.value else "")
    if len(option.names) == 1:
        return f"'{option.names[0]}{text}'"
    return f"'({' '.join(option.names)})'{{{','.join(option.names)}}}'{text}'"


def _zsh_value(option: Option) -> str:
    if option.words:
        return f"({' '.join(option.words)})"
    return "_files" if option.is_file else "_files -/" if option.is_folder else " "


def _quoted(text: str) -> str:
    """Within single quotes, and within brackets and between colons of _arguments."""
    for special in ("\\", "[", "]", ":"):
        text = text.replace(special, f"\\{special}")
    return text.replace("'", "'\\''")


# fish


def _fish(commands: Sequence[Command]) -> str:
    lines = [
        "# Completes tidegate in fish: tidegate completion fish > ~/.config/fish/completions/tidegate.fish",
        _FISH_COMMAND,
        "complete -c tidegate -f",
    ]
    for command in commands:
        condition = f"'__tidegate_is \"{command.name}\"'"
        if command.name:
            told = _fish_quoted(command.summary)
            lines.append(f"complete -c tidegate -n '__tidegate_is \"\"' -a {command.name} -d {told}")
            lines += [
                f"complete -c tidegate -n {condition} -a '{' '.join(word.words)}'"
                for word in command.words
                if word.words
            ]
        lines += [f"complete -c tidegate -n {condition} {' '.join(_fish_option(option))}" for option in command.options]
    return "\n".join(lines) + "\n"


_FISH_COMMAND = """\
function __tidegate_is
    set -l words (commandline -opc)
    set -e words[1]
    while set -q words[1]
        switch $words[1]
            case --config
                set -e words[1]
            case '-*'
            case '*'
                test "$argv[1]" = "$words[1]"
                return
        end
        set -e words[1]
    end
    test -z "$argv[1]"
end"""


def _fish_option(option: Option) -> Iterator[str]:
    for name in option.names:
        yield f"-l {name[2:]}" if name.startswith("--") else f"-s {name[1:]}"
    if option.words:
        yield f"-x -a '{' '.join(option.words)}'"
    elif option.is_file:
        yield "-r -F"
    elif option.is_folder:
        yield "-x -a '(__fish_complete_directories)'"
    elif option.value:
        yield "-x"
    yield f"-d {_fish_quoted(option.help)}"


def _fish_quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


_SCRIPTS: dict[str, Callable[[Sequence[Command]], str]] = {"bash": _bash, "fish": _fish, "zsh": _zsh}
