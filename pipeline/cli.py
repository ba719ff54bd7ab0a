"""The front door: the names of the commands, and what goes for all of them.

A command is imported when it is called, and a room inside the command that needs it, so that `pipeline --help` answers
at once.
"""

import contextlib
import re
import sys
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import App, CycloptsError, Parameter, UnknownOptionError
from cyclopts.config import Toml

from pipeline import __version__, before_torch
from pipeline.errors import ConfigError, PipelineError
from pipeline.terminal import LISTS, complain

COMMANDS = {
    "data": (
        "pipeline.stage_commands:data",
        "Fetch GLUE from the Hub into a GLUE folder, or with --data glue check the folder that is there.",
    ),
    "extract": (
        "pipeline.stage_commands:extract",
        "Stage one: run the frozen backbone once over the corpora and write its hidden states to the cache.",
    ),
    "heads": (
        "pipeline.stage_commands:heads",
        "Stage two: train heads on cached features, and print their scores on validation.",
    ),
    "sweep": (
        "pipeline.stage_commands:sweep",
        "Try many heads on many views together; select on rows held out of training, score the selected on validation.",
    ),
    "joint": (
        "pipeline.stage_commands:joint",
        "Train two tasks' heads on a shared trunk, one of them frozen or none, and compare them with separate heads.",
    ),
    "baselines": (
        "pipeline.stage_commands:baselines",
        "Hold each head against the commonest class, TF-IDF, random features, random labels, and the LLM itself.",
    ),
    "adapt": (
        "pipeline.adapt_commands:adapt_app",
        "Train through the backbone: LoRA adapters with heads, or soft prompts in front of the whole frozen network.",
    ),
    "predict": (
        "pipeline.predict_command:predict_app",
        "Classify sentences, the lines of standard input, or a file's, with what a run trained: a head or an adapter.",
    ),
    "backbones": (
        "pipeline.backbones_command:backbones_app",
        "Compare backbones on one sample: score with interval, seconds, memory, bytes, and LogME.",
    ),
    "runs": (
        "pipeline.runs_commands:runs_app",
        "Look into the ledger of runs.",
    ),
    "report": (
        "pipeline.report_command:report_app",
        "Write all runs as one HTML page that needs no network: leaderboards, figures, searchable sentences.",
    ),
    "submit": (
        "pipeline.submit_command:submit_app",
        "Write GLUE's submission files, CoLA.tsv and SST-2.tsv, from predictions of the test sets, as one zip.",
    ),
    "cache": (
        "pipeline.cache_commands:cache_app",
        "Look into the feature cache, and look after it.",
    ),
    "doctor": (
        "pipeline.doctor_command:doctor_app",
        "Look at what this machine has and what of it will be used, and try it; each problem is said with its remedy.",
    ),
}
"""Where each command is, and the first words of its help, which the front page shows without importing it."""

GO_ON = {"extract", "sweep", "joint", "adapt", "backbones", "push", "pull"}
"""Commands that keep what they have done."""


def main() -> None:
    """Run the command line: trouble that a user can mend ends with its message and exit code 2."""
    before_torch.set_for(sys.argv[1:])
    door = app if {*COMMANDS, "completion"} & set(sys.argv[1:]) else front_door(page=True)
    door.config = []
    try:
        door.meta(sys.argv[1:], exit_on_error=False, print_error=False)
    except PipelineError as error:
        complain(f"pipeline: {error}")
        sys.exit(2)
    except CycloptsError as error:
        words = [word for word in error.command_chain or () if word != door.name[0]]
        remedy = f"{' '.join(['pipeline', *words, '--help'])} shows how, with an example"
        if isinstance(error, UnknownOptionError):
            short = next((word for word in sys.argv[1:] if re.fullmatch(r"-[a-z][a-z-]+(=.*)?", word)), None)
            meant = f"did you mean -{short}? " if short else ""
            remedy = f"{meant}{remedy}; what begins with a dash and is no option stands behind --"
        complain(f"pipeline: {error}\n  do: {remedy}")
        sys.exit(2)
    except KeyboardInterrupt:
        goes_on = bool(GO_ON & set(sys.argv[1:]))
        then = "; the same command goes on from what is whole" if goes_on else ""
        complain(f"pipeline: stopped{then}")
        sys.exit(130)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(141)
    except OSError as error:  # a folder that may not be read, a disk that is full
        complain(f"pipeline: {error.strerror or error}\n  where: {error.filename or 'not said'}")
        sys.exit(2)


def completion(shell: Literal["bash", "zsh", "fish"], /) -> None:
    """Print a script with which a shell completes commands and options.

    Example: `pipeline completion bash`

    Args:
        shell: for bash and zsh, eval "$(pipeline completion bash)" in its start-up file loads it; for fish, what is
            printed belongs in ~/.config/fish/completions/pipeline.fish.
    """
    print(app.generate_completion(shell=shell, prog_name="pipeline"))


def front_door(page: bool = False) -> App:
    """All commands.

    Args:
        page: it is only to be looked at: commands say what they are by `COMMANDS`, and can't be called.
    """
    door = App(
        name="pipeline",
        help="Read a corpus once with a frozen, quantised LLM; train heads on the cached hidden states.\n\n"
        "Example: `pipeline extract --data sample`, then `pipeline heads --data sample`",
        help_format="plaintext" if page else None,  # Markdown takes a tenth of a second to load
        version=__version__,
        default_parameter=LISTS,
        suppress_keyboard_interrupt=False,
    )
    for name, (where, summary) in COMMANDS.items():
        door.command(where, name=name, help=summary if page else None)
    door.command(completion)
    door.meta.suppress_keyboard_interrupt = False  # main says that the same command goes on

    @door.meta.default
    def _launch(
        *tokens: Annotated[str, Parameter(show=False, allow_leading_hyphen=True)],
        config: Annotated[Path | None, Parameter(name="--config")] = None,
        quiet: Annotated[bool, Parameter(name=["--quiet", "-q"], negative="")] = False,
    ) -> None:
        """What goes for every command.

        Args:
            config: a TOML file with a table for each command, such as [extract] or [heads]; the command line wins.
            quiet: say nothing of what is going on, only results, warnings and errors.
        """
        if config is not None and not config.is_file():
            raise ConfigError(
                "the settings file is not there",
                where=config,
                expected="a TOML file with a table for each command, such as [extract] and [heads]",
                remedy="check the path, or leave --config out",
            )
        if config is not None:
            door.config = [_toml(config)]
        with contextlib.ExitStack() as stack:
            if quiet:
                from pipeline.progress import be_quiet

                stack.enter_context(be_quiet())
            door(tokens, exit_on_error=False, print_error=False)

    return door


def _toml(path: Path) -> Toml:
    import tomllib

    try:
        tomllib.loads(path.read_text("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise ConfigError("the settings file is not TOML", where=path, found=error) from error
    return Toml(path, must_exist=True, search_parents=False)


app = front_door()
