"""`openxclip completion`: shell completion of commands and options."""

import io
from collections.abc import Callable, Mapping
from contextlib import redirect_stdout, suppress
from typing import Annotated, Any, Literal, TypeAlias, Union

import tyro

Shell: TypeAlias = Literal["bash", "zsh", "fish"]

# tyro's script completes commands and options. Where it offers nothing, these lines offer files; in bash they also
# replace the files that it offers, because it adds a space after a folder.
FILES: dict[Shell, str] = {
    "bash": """
_openxclip() {
  _tyro_openxclip
  local first="${COMPREPLY[0]}" before="${COMP_WORDS[COMP_CWORD-1]}"
  if [[ -z "$first" || ( "$before" == -* && -e "$first" ) ]]; then COMPREPLY=(); fi
}
complete -o default -F _openxclip openxclip
""",
    "zsh": """
(( compstate[nmatches] )) || _files
""",
    "fish": """
complete --command openxclip --condition 'test (count (commandline -opc)) -gt 1' --force-files
""",
}


def completion_of(
    commands: Mapping[str, Callable[..., Any]], groups: Mapping[str, Mapping[str, Callable[..., Any]]]
) -> Callable[[Shell], int]:
    """The completion command for `commands`; `groups` holds the subcommands of those that have some."""

    def completion(
        shell: Annotated[Shell, tyro.conf.Positional, tyro.conf.arg(help="the shell that reads the script")],
    ) -> int:
        """Print a shell script that completes commands and options; docs/predicting.md says where to put it."""
        print(script(shell, commands, groups), end="")
        return 0

    return completion


def script(
    shell: Shell,
    commands: Mapping[str, Callable[..., Any]],
    groups: Mapping[str, Mapping[str, Callable[..., Any]]],
) -> str:
    """The completion script."""
    nested = {name: _group(inner) for name, inner in groups.items()}
    written = io.StringIO()
    with redirect_stdout(written), suppress(SystemExit):  # how tyro ends
        tyro.cli(
            _one_of({**commands, **nested}),
            prog="openxclip",
            args=["--tyro-write-completion", shell, "-"],
            config=(tyro.conf.OmitSubcommandPrefixes,),
        )
    return written.getvalue() + FILES[shell]


def _one_of(commands: Mapping[str, Callable[..., Any]]) -> Any:
    """A union type with one member for each command."""
    return Union[  # noqa: UP007  from a tuple
        tuple(
            Annotated[Any, tyro.conf.subcommand(name=name, constructor=command)]
            for name, command in commands.items()
        )
    ]


def _group(commands: Mapping[str, Callable[..., Any]]) -> Callable[..., None]:
    """A command with subcommands."""

    def group(command: Any) -> None: ...

    group.__annotations__["command"] = _one_of(commands)
    return group
