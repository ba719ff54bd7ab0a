"""The commands. A room is imported inside the command that needs it, so that `pipeline --help` answers at once."""

import contextlib
import sys
from functools import cache as cache_result
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import App, CycloptsError, Parameter, UnknownOptionError
from cyclopts.config import Toml

from pipeline import __version__, before_torch
from pipeline.adapt_commands import adapt_app
from pipeline.backbones_command import backbones_app
from pipeline.cache_commands import cache_app
from pipeline.config import (
    BackboneConfig,
    ExtractConfig,
    FetchConfig,
    HeadsConfig,
    PassConfig,
    RunsConfig,
    TokensConfig,
)
from pipeline.corpus_config import CorpusConfig
from pipeline.doctor_command import doctor_app
from pipeline.engine_config import ShareConfig
from pipeline.errors import ConfigError, PipelineError
from pipeline.heads_config import BaselinesConfig, JointConfig, SweepConfig
from pipeline.own_rows import own_rows
from pipeline.predict_command import predict_app
from pipeline.predict_config import PlaceConfig
from pipeline.report_command import report_app
from pipeline.runs_commands import runs_app
from pipeline.store_config import StoreConfig
from pipeline.submit_command import submit_app
from pipeline.terminal import LISTS, Flat, Json, columns, missing_package, print_result

if TYPE_CHECKING:
    from pipeline.adapters.zero_shot import ZeroShot
    from pipeline.cache import FeatureSet
    from pipeline.results.ledger import Run
    from pipeline.tasks.spec import TaskSpec

app = App(
    name="pipeline",
    help="Read a corpus once with a frozen, quantised LLM; train heads on the cached hidden states.\n\n"
    "Example: `pipeline extract --data sample`, then `pipeline heads --data sample`",
    version=__version__,
    default_parameter=LISTS,
    suppress_keyboard_interrupt=False,
)
app.command(cache_app)
app.command(adapt_app)
app.command(backbones_app)
app.command(predict_app)
app.command(runs_app)
app.command(doctor_app)
app.command(submit_app)
app.command(report_app)
app.meta.suppress_keyboard_interrupt = False  # main says that the same command goes on


GO_ON = {"extract", "sweep", "joint", "adapt", "backbones", "push", "pull"}
"""Commands that keep what they have done."""


def main() -> None:
    """Run the command line: trouble that a user can mend ends with its message and exit code 2."""
    before_torch.set_for(sys.argv[1:])
    app.config = []
    try:
        app.meta(sys.argv[1:], exit_on_error=False, print_error=False)
    except PipelineError as error:
        print(f"pipeline: {error}", file=sys.stderr)
        sys.exit(2)
    except CycloptsError as error:
        words = [word for word in error.command_chain or () if word != app.name[0]]
        remedy = f"{' '.join(['pipeline', *words, '--help'])} shows how, with an example"
        if isinstance(error, UnknownOptionError):
            remedy += "; what begins with a dash and is no option stands behind --"
        print(f"pipeline: {error}\n  do: {remedy}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        goes_on = bool(GO_ON & set(sys.argv[1:]))
        then = "; the same command goes on from what is whole" if goes_on else ""
        print(f"pipeline: stopped{then}", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(141)
    except OSError as error:  # a folder that may not be read, a disk that is full
        print(f"pipeline: {error.strerror or error}\n  where: {error.filename or 'not said'}", file=sys.stderr)
        sys.exit(2)


@app.meta.default
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
        app.config = [_toml(config)]
    with contextlib.ExitStack() as stack:
        if quiet:
            from pipeline.progress import be_quiet

            stack.enter_context(be_quiet())
        app(tokens, exit_on_error=False, print_error=False)


def _toml(path: Path) -> Toml:
    import tomllib

    try:
        tomllib.loads(path.read_text("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise ConfigError("the settings file is not TOML", where=path, found=error) from error
    return Toml(path, must_exist=True, search_parents=False)


@app.command
def completion(shell: Literal["bash", "zsh", "fish"], /) -> None:
    """Print a script with which a shell completes commands and options.

    Example: `pipeline completion bash`

    Args:
        shell: for bash and zsh, eval "$(pipeline completion bash)" in its start-up file loads it; for fish, what is
            printed belongs in ~/.config/fish/completions/pipeline.fish.
    """
    print(app.generate_completion(shell=shell, prog_name="pipeline"))


@app.command
def data(
    *,
    tasks: tuple[str, ...] = ("cola", "sst2"),
    data: Annotated[FetchConfig, Flat] = FetchConfig(),
    json: Json = False,
) -> None:
    """Fetch GLUE from the Hub into a GLUE folder, or with --data glue check the folder that is there.

    Example: `pipeline data --data glue --glue-dir data/glue`
    """
    from pipeline.tasks.fetch import check_or_fetch

    result = check_or_fetch(tasks, data)
    print_result(result, json, lambda rows: columns(rows, ("task", "split", "rows", "labels", "origin")))


@app.command
def extract(
    *,
    what: Annotated[ExtractConfig, Flat] = ExtractConfig(),
    data: Annotated[CorpusConfig, Flat] = CorpusConfig(),
    backbone: Annotated[BackboneConfig, Flat] = BackboneConfig(),
    tokens: Annotated[TokensConfig, Flat] = TokensConfig(),
    passes: Annotated[PassConfig, Flat] = PassConfig(),
    cache: Annotated[StoreConfig, Flat] = StoreConfig(),
    share: Annotated[ShareConfig, Flat] = ShareConfig(),
    json: Json = False,
) -> None:
    """Stage one: run the frozen backbone once over the corpora and write its hidden states to the cache.

    Example: `pipeline extract --data sample --layers 20 -1 --poolings mean last`
    """
    try:
        from pipeline.extract.run import extract as run
    except ModuleNotFoundError as error:
        raise missing_package(error, "extract") from error
    from pipeline.housekeeping.tables import sets_in_columns

    result = run(what, data, backbone, tokens, passes, cache, share)
    names = ("task", "split", "name", "rows", "tokens", "truncated", "status")
    print_result(result, json, lambda rows: sets_in_columns(rows, names))


@app.command
def heads(
    *,
    what: Annotated[HeadsConfig, Flat] = HeadsConfig(),
    cache: Annotated[StoreConfig, Flat] = StoreConfig(),
    runs: Annotated[RunsConfig, Flat] = RunsConfig(),
    json: Json = False,
) -> None:
    """Stage two: train heads on cached features, and print their scores on validation.

    Example: `pipeline heads --data sample --heads logreg mlp --views L20-mean`
    """
    from pipeline.heads.train import train_heads
    from pipeline.results.lines import ledger_table, lines_of
    from pipeline.results.table import runs_table
    from pipeline.tasks.spec import find_tasks

    tasks = find_tasks(what.tasks, what.task_files)
    done = train_heads(what, cache, runs, own_rows(what, tasks, cache))
    print_result([run.to_dict() for run in done], json, lambda _: runs_table(ledger_table(lines_of(done))))


@app.command
def sweep(
    *,
    what: Annotated[SweepConfig, Flat] = SweepConfig(),
    cache: Annotated[StoreConfig, Flat] = StoreConfig(),
    runs: Annotated[RunsConfig, Flat] = RunsConfig(),
    json: Json = False,
) -> None:
    """Try many heads on many views together; select on rows held out of training, score the selected on validation.

    Example: `pipeline sweep --data sample --tasks cola --heads logreg ridge --side-by-side 3`
    """
    from rich.console import Group

    from pipeline.heads.sweep import sweep as run
    from pipeline.results.trials import by_layer, placed
    from pipeline.results.trials_table import layers_table, leaderboard_table
    from pipeline.tasks.spec import find_tasks

    tasks = find_tasks(what.tasks, what.task_files)
    done = run(what, cache, runs, own_rows(what, tasks, cache))
    layers = [by_layer(each.trials, task.metric) for each, task in zip(done, tasks, strict=True)]
    tables = []
    for each, of_layers, task in zip(done, layers, tasks, strict=True):
        tables.append(leaderboard_table(each.run, each.standings, task.metric, what.show))
        if len({row["layer"] for row in of_layers}) > 1:
            tables.append(layers_table(task.name, of_layers, task.metric))
    result = [
        {
            "run": each.run.to_dict(),
            "leaderboard": [{"place": place, **line.to_dict()} for place, line in placed(each.standings, what.show)],
            "layers": of_layers,
        }
        for each, of_layers in zip(done, layers, strict=True)
    ]
    print_result(result, json, lambda _: Group(*tables))


@app.command
def joint(
    *,
    what: Annotated[JointConfig, Flat] = JointConfig(),
    cache: Annotated[StoreConfig, Flat] = StoreConfig(),
    runs: Annotated[RunsConfig, Flat] = RunsConfig(),
    json: Json = False,
) -> None:
    """Train two tasks' heads on a shared trunk, one of them frozen or none, and compare them with separate heads.

    Example: `pipeline joint --data sample --freeze cola --seeds 3`
    """
    from pipeline.heads.joint import train_joint
    from pipeline.results.sharing import sharing_table
    from pipeline.tasks.spec import find_tasks

    done = train_joint(what, cache, runs, own_rows(what, find_tasks(what.tasks, what.task_files), cache))
    result = {
        "runs": [run.to_dict() for run in done.runs],
        "comparisons": [each.to_dict() for each in done.comparisons],
    }
    print_result(result, json, lambda _: sharing_table(done.comparisons))


@app.command
def baselines(
    *,
    what: Annotated[BaselinesConfig, Flat] = BaselinesConfig(),
    place: Annotated[PlaceConfig, Flat] = PlaceConfig(),
    cache: Annotated[StoreConfig, Flat] = StoreConfig(),
    runs: Annotated[RunsConfig, Flat] = RunsConfig(),
    json: Json = False,
) -> None:
    """Hold each head against the commonest class, TF-IDF, random features, random labels, and the LLM itself.

    Example: `pipeline baselines --data sample --tasks sst2`
    """
    from rich.console import Group

    from pipeline.heads.baselines import measure_baselines
    from pipeline.results.baselines_table import baselines_table
    from pipeline.tasks.spec import find_tasks

    @cache_result
    def llm() -> "ZeroShot":
        from pipeline.adapters.zero_shot import ZeroShot

        asked = BackboneConfig(
            backbone=what.backbone,
            revision=what.revision,
            quantization=what.quantization,
            device=place.device,
            models_dir=place.models_dir,
        )
        return ZeroShot.open(asked, runs)

    def ask(task: "TaskSpec", train: "FeatureSet", validation: "FeatureSet") -> "Run":
        try:
            return llm().answer(task, train, validation)
        except ModuleNotFoundError as error:  # all else can be measured without the live path's packages
            raise missing_package(error, "adapters") from error

    own = own_rows(what, find_tasks(what.tasks, what.task_files), cache)
    done = measure_baselines(what, cache, runs, own, ask if what.zero_shot else None)
    tables = [baselines_table(each.table) for each in done]
    print_result([each.to_dict() for each in done], json, lambda _: Group(*tables))
