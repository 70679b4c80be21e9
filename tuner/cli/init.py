"""``tuner init``: a project to start from."""

from __future__ import annotations

import shlex
from pathlib import Path

import click
from click.shell_completion import CompletionItem

from tuner.cli.options import echo_json, examples, json_option, quiet_option, tell


class _Template(click.ParamType[str]):
    """Takes the name of a template, and completes it."""

    name = "template"

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """Returns the names of templates that begin so."""
        from tuner.service.project import template_names

        return [CompletionItem(name) for name in template_names() if name.startswith(incomplete)]


@click.command(
    epilog=examples(
        "tuner init mine && cd mine && tuner run studies/digits.toml",
        "tuner init mine --template own-loop && cd mine && tuner run study.toml",
    )
)
@click.argument("folder", default=".", type=click.Path(file_okay=False, path_type=Path))
@click.option(
    "--template",
    default="class",
    show_default=True,
    type=_Template(),
    metavar="NAME",
    help="What to start from: class, own-loop, lightning, transformers, command, or another of the "
    "examples; "
    "a name that there is none of shows all.",
)
@quiet_option
@json_option
def init(folder: Path, template: str, as_json: bool) -> None:
    """Write a project to start from, in FOLDER or here: code, study files and a README.

    It runs as it is, and writes over nothing.
    """
    from tuner.service.project import write_project

    project = write_project(folder, template)
    if as_json:
        described = {
            "folder": str(folder),
            "template": template,
            "files": list(map(str, project.files)),
            "study": str(project.study),
            "missing": list(project.missing),
        }
        echo_json(described)
        return
    tell(f"Wrote {len(project.files)} files to {folder}. Next:", err=False)
    if folder != Path():
        tell(f"  cd {shlex.quote(str(folder))}", err=False)
    if project.missing:
        tell(f"  pip install {shlex.join(project.missing)}", err=False)
    tell(f"  tuner run {project.study}", err=False)
