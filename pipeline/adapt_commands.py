"""The commands of `pipeline adapt`: the live path. A room is imported inside the command that needs it."""

from typing import TYPE_CHECKING, Annotated

from cyclopts import App

from pipeline.config import BackboneConfig, DataConfig, RunsConfig, TokensConfig
from pipeline.live_config import LivePathConfig, LoraOptions, PromptOptions, TrainingConfig
from pipeline.store_config import StoreConfig
from pipeline.terminal import LISTS, Flat, Json, missing_package, print_result

if TYPE_CHECKING:
    from pipeline.results.ledger import Run

adapt_app = App(
    name="adapt",
    help="Train through the backbone: LoRA adapters with heads, or soft prompts in front of the whole frozen network."
    "\n\nExample: `pipeline adapt lora --data sample --epochs 1`",
    default_parameter=LISTS,
)


@adapt_app.command(name="lora")
def adapt_lora(
    *,
    live: Annotated[LivePathConfig, Flat] = LivePathConfig(),
    lora: Annotated[LoraOptions, Flat] = LoraOptions(),
    training: Annotated[TrainingConfig, Flat] = TrainingConfig(),
    data: Annotated[DataConfig, Flat] = DataConfig(),
    backbone: Annotated[BackboneConfig, Flat] = BackboneConfig(),
    tokens: Annotated[TokensConfig, Flat] = TokensConfig(),
    cache: Annotated[StoreConfig, Flat] = StoreConfig(),
    runs: Annotated[RunsConfig, Flat] = RunsConfig(),
    json: Json = False,
) -> None:
    """Train low-rank adapters on the backbone's layers, and a head for each task, and print their scores.

    Example: `pipeline adapt lora --data sample --tasks cola --rank 8 --epochs 1`
    """
    try:
        from pipeline.adapters.lora_plan import Settings
        from pipeline.adapters.lora_run import adapt_lora as train
    except ModuleNotFoundError as error:
        raise missing_package(error, "adapters") from error
    _print(train(Settings(live, lora, training, data, backbone, tokens, cache, runs)), json)


@adapt_app.command(name="prompt")
def adapt_prompt(
    *,
    live: Annotated[LivePathConfig, Flat] = LivePathConfig(),
    prompt: Annotated[PromptOptions, Flat] = PromptOptions(),
    training: Annotated[TrainingConfig, Flat] = TrainingConfig(),
    data: Annotated[DataConfig, Flat] = DataConfig(),
    backbone: Annotated[BackboneConfig, Flat] = BackboneConfig(),
    tokens: Annotated[TokensConfig, Flat] = TokensConfig(),
    runs: Annotated[RunsConfig, Flat] = RunsConfig(),
    json: Json = False,
) -> None:
    """Train virtual tokens in front of the text, the whole network frozen, and print the scores of the label words.

    Example: `pipeline adapt prompt --data sample --tasks sst2 --epochs 1`
    """
    try:
        from pipeline.adapters.prompt_run import Settings
        from pipeline.adapters.prompt_run import adapt_prompt as train
    except ModuleNotFoundError as error:
        raise missing_package(error, "adapters") from error
    _print(train(Settings(live, prompt, training, data, backbone, tokens, runs)), json)


def _print(done: "list[Run]", as_json: bool) -> None:
    from pipeline.results.lines import ledger_table, lines_of
    from pipeline.results.table import runs_table

    print_result([run.to_dict() for run in done], as_json, lambda _: runs_table(ledger_table(lines_of(done))))
