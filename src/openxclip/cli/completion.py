"""`openxclip completion`: commands and options completed by the shell."""

import io
from collections.abc import Callable, Mapping
from contextlib import redirect_stdout, suppress
from typing import Annotated, Any, Literal, TypeAlias, Union

import tyro

Shell: TypeAlias = Literal["bash", "zsh", "fish"]

# The script of tyro knows commands and options. Where it offers nothing, these lines offer files; in bash also in place
# of the files that it offers, which for a folder end with a space.
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
    """The command that completes `commands`; `groups` holds the commands of those that have some themselves."""

    def completion(
        shell: Annotated[Shell, tyro.conf.Positional, tyro.conf.arg(help="the shell that reads the script")],
    ) -> int:
        """Print a script that makes a shell complete commands and options; docs/predicting.md says where it belongs."""
        print(script(shell, commands, groups), end="")
        return 0

    return completion


def script(
    shell: Shell,
    commands: Mapping[str, Callable[..., Any]],
    groups: Mapping[str, Mapping[str, Callable[..., Any]]],
) -> str:
    """The text that the shell reads."""
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
    """A type whose values are made by one of the commands."""
    return Union[  # noqa: UP007  of a tuple
        tuple(
            Annotated[Any, tyro.conf.subcommand(name=name, constructor=command)]
            for name, command in commands.items()
        )
    ]


def _group(commands: Mapping[str, Callable[..., Any]]) -> Callable[..., None]:
    """A command that takes another one."""

    def group(command: Any) -> None: ...

    group.__annotations__["command"] = _one_of(commands)
    return group
