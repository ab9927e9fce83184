"""The group of all commands: how errors are shown, and with what the process ends.

Exit codes: 0 done, 1 the study failed, 2 bad input, 130 interrupted. A traceback is shown for our own bugs alone.
"""

from __future__ import annotations

import logging
import os
import shlex
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

import click

from diffsearch import __version__
from diffsearch.cli import (
    data_commands,
    demo_command,
    machine_commands,
    picture_commands,
    replay_command,
    run_command,
    study_commands,
)
from diffsearch.errors import DiffsearchError, GaveUp, StoreError

DONE, FAILED, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130
GROUPS = (
    ("Begin", ("init", "plan", "run")),
    ("Look", ("status", "table", "best", "next", "report", "sample", "demo", "ui")),
    ("Manage", ("stop", "sync", "export", "archive", "gc")),
    ("Compare", ("replay",)),
    ("Machine", ("doctor", "data", "features", "schema")),
)


class App(click.Group):
    """A click group that turns the exceptions of diffsearch into messages and exit codes."""

    def main(self, args: Sequence[str] | None = None, *rest: Any, **extra: Any) -> NoReturn:
        typed = list(sys.argv[1:] if args is None else args)
        extra = {**extra, "standalone_mode": False, "obj": shlex.join(["diffsearch", *typed])}
        sys.exit(self._guarded(typed, *rest, **extra))

    def _guarded(self, typed: list[str], *rest: Any, **extra: Any) -> int:
        try:
            code = super().main(typed, *rest, **extra)
            sys.stdout.flush()
            return code if isinstance(code, int) else DONE
        except click.exceptions.NoArgsIsHelpError as error:
            click.echo(error.format_message())
            return BAD_INPUT
        except click.ClickException as error:
            error.show()
            return error.exit_code
        except DiffsearchError as error:
            click.echo(str(error), err=True)
            return exit_code(error)
        except (KeyboardInterrupt, click.Abort):
            click.echo("interrupted; what was finished is kept.", err=True)
            return INTERRUPTED
        except BrokenPipeError:  # `diffsearch table x | head`: nobody reads on, which is no error
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            return DONE

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The commands in the order of their use, not of the alphabet."""
        width = max(len(name) for _, names in GROUPS for name in names)
        for title, names in GROUPS:
            with formatter.section(title):
                commands = [(name, self.commands[name]) for name in names]
                formatter.write_dl([(name.ljust(width), command.get_short_help_str(90)) for name, command in commands])


def exit_code(error: DiffsearchError) -> int:
    """1 where the store, MLflow or run after run failed us, 2 where what was asked can't be done as it stands.

    (TrackingDown goes by its name: its module is too heavy to be imported for `--help`.)
    """
    return FAILED if isinstance(error, StoreError | GaveUp) or type(error).__name__ == "TrackingDown" else BAD_INPUT


@click.group(cls=App, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="diffsearch")
@click.option("--verbose", "-v", is_flag=True, help="Log what happens inside, on stderr.")
def app(verbose: bool) -> None:
    """Which hyperparameters of a small diffusion model, at what cost, and how sure are we.

    Write down which settings you wonder about, `diffsearch run` the file, and read the report. The same command goes
    on after a stop, and computes nothing twice.
    """
    logging.basicConfig(
        level=logging.INFO if verbose else logging.WARNING, format="%(levelname)s %(name)s: %(message)s"
    )


for module in (
    run_command,
    study_commands,
    picture_commands,
    demo_command,
    replay_command,
    machine_commands,
    data_commands,
):
    for command in module.COMMANDS:
        app.add_command(command)


def main() -> NoReturn:
    """The console script."""
    app.main(prog_name="diffsearch")
