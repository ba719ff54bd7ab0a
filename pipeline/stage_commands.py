"""The commands of the two stages. A room is imported inside the command that needs it."""

from functools import cache as cache_result
from typing import TYPE_CHECKING, Annotated

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
from pipeline.engine_config import EngineConfig, PlanConfig, ShareConfig
from pipeline.heads_config import BaselinesConfig, JointConfig, SweepConfig
from pipeline.own_rows import own_rows
from pipeline.predict_config import PlaceConfig
from pipeline.store_config import StoreConfig
from pipeline.terminal import Flat, Json, columns, missing_package, print_result

if TYPE_CHECKING:
    from pipeline.adapters.zero_shot import ZeroShot
    from pipeline.cache import FeatureSet
    from pipeline.results.ledger import Run
    from pipeline.tasks.spec import TaskSpec


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


def extract(
    *,
    what: Annotated[ExtractConfig, Flat] = ExtractConfig(),
    data: Annotated[CorpusConfig, Flat] = CorpusConfig(),
    backbone: Annotated[BackboneConfig, Flat] = BackboneConfig(),
    tokens: Annotated[TokensConfig, Flat] = TokensConfig(),
    passes: Annotated[PassConfig, Flat] = PassConfig(),
    cache: Annotated[StoreConfig, Flat] = StoreConfig(),
    share: Annotated[ShareConfig, Flat] = ShareConfig(),
    plan: Annotated[PlanConfig, Flat] = PlanConfig(),
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

    if plan.dry_run:
        from pipeline.extract.dry_run import plan_extract
        from pipeline.extract.plan_table import plan_tables

        planned = plan_extract(what, data, backbone, tokens, passes, cache, share, plan)
        print_result(planned.to_dict(), json, lambda _: plan_tables(planned))
        return
    result = run(what, data, backbone, tokens, passes, cache, share)
    names = ("task", "split", "name", "rows", "tokens", "truncated", "status")
    print_result(result, json, lambda rows: sets_in_columns(rows, names))


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


def sweep(
    *,
    what: Annotated[SweepConfig, Flat] = SweepConfig(),
    cache: Annotated[StoreConfig, Flat] = StoreConfig(),
    runs: Annotated[RunsConfig, Flat] = RunsConfig(),
    engine: Annotated[EngineConfig, Flat] = EngineConfig(),
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
    done = run(what, cache, runs, own_rows(what, tasks, cache), engine=engine)
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
