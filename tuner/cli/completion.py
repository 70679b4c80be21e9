"""``tuner completion``: the Tab key completes commands, and names of studies and of the catalog."""

from __future__ import annotations

import os
import shlex
from dataclasses import asdict, dataclass
from pathlib import Path

import click
from click.shell_completion import get_completion_class

from tuner.cli.options import echo_json, examples, json_option, quiet_option, tell
from tuner.errors import SpecError, StorageError

_SHELLS = ("bash", "zsh", "fish")

_ZSH_BEGIN = """\
(( $+functions[compdef] )) || { autoload -Uz compinit && compinit }
"""
"""The line that turns completion on in zsh, where its startup file has not done so."""


@dataclass(frozen=True)
class Installed:
    """The files that make a shell complete what is typed after ``tuner``.

    Attributes:
        shell: The shell.
        script: The file that tells it how.
        startup_file: The file that has it read the script as it starts; None if it does so anyway.
    """

    shell: str
    script: Path
    startup_file: Path | None


@click.command(
    epilog=examples(
        "tuner completion", "tuner completion zsh", "tuner completion bash --print > tuner.bash"
    )
)
@click.argument("shell", required=False, type=click.Choice(_SHELLS))
@click.option("--print", "prints", is_flag=True, help="Print the script, and install nothing.")
@quiet_option
@json_option
def completion(shell: str | None, prints: bool, as_json: bool) -> None:
    """Have your shell complete commands, options, studies, optimizers and schedules.

    It writes a script, and for bash and zsh one line of your startup file that reads it. Which
    shell it is, $SHELL tells. To undo it, delete that line and the script.
    """
    chosen = shell or _find_shell()
    script = _write_script(chosen)
    if prints:
        click.echo(script)
        return
    done = _install(chosen, script)
    if as_json:
        echo_json({key: value and str(value) for key, value in asdict(done).items()})
        return
    tell(f"Wrote {done.script}.", err=False)
    if done.startup_file is not None:
        tell(f"{done.startup_file} reads it.", err=False)
    tell(f"It works in shells that start from now on; here, after: exec {chosen}", err=False)


def _find_shell() -> str:
    name = Path(os.environ.get("SHELL", "")).name
    if name not in _SHELLS:
        raise SpecError(
            f"SHELL={os.environ.get('SHELL', '')}: completion is for {', '.join(_SHELLS)}: name "
            "yours, such as: tuner completion bash"
        )
    return name


def _write_script(shell: str) -> str:
    """Returns the script by which a shell asks tuner for what can follow."""
    found = get_completion_class(shell)
    root = click.get_current_context().find_root().command
    if found is None:
        raise SpecError(f"{shell}: completion is for {', '.join(_SHELLS)}.")
    script = found(root, {}, "tuner", "_TUNER_COMPLETE").source().strip()
    if shell == "fish":  # what is completed may have commas itself, as in --optimizers sgd,adam
        script = script.replace('string split ","', 'string split -m 1 ","')
    return f"{_ZSH_BEGIN if shell == 'zsh' else ''}{script}\n"


def _install(shell: str, script: str) -> Installed:
    """Writes the script, and has the shell read it as it starts.

    Raises:
        StorageError: If a file cannot be written.
    """
    home = Path.home()
    if shell == "fish":
        config = Path(os.environ.get("XDG_CONFIG_HOME") or home / ".config")
        path, startup = config / "fish" / "completions" / "tuner.fish", None
    else:
        data = Path(os.environ.get("XDG_DATA_HOME") or home / ".local" / "share")
        path = data / "tuner" / f"completion.{shell}"
        folder = Path(os.environ.get("ZDOTDIR") or home) if shell == "zsh" else home
        startup = folder / f".{shell}rc"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(script, encoding="utf-8")
        if startup is not None:
            _read_at_start(startup, path)
    except OSError as error:
        raise StorageError(
            f"{error.filename}: cannot be written: {error.strerror}. Print the script, and keep it "
            f"where your shell reads it: tuner completion {shell} --print"
        ) from None
    return Installed(shell, path, startup)


def _read_at_start(startup: Path, script: Path) -> None:
    """Adds the line that reads the script to a startup file, unless it is there."""
    quoted = shlex.quote(str(script))
    line = f"[ -f {quoted} ] && source {quoted}  # completion of tuner"
    before = startup.read_text(encoding="utf-8") if startup.exists() else ""
    if line in before.splitlines():
        return
    with startup.open("a", encoding="utf-8") as file:
        file.write(f"{'' if before.endswith(chr(10)) or not before else chr(10)}{line}\n")
