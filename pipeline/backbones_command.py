"""`pipeline backbones`: which backbone? A room is imported inside the command that needs it."""

from pathlib import Path
from typing import Annotated

from cyclopts import App

from pipeline.choosing_config import CONTENDERS, BackbonesConfig, SampleCacheConfig
from pipeline.config import DataConfig, RunsConfig
from pipeline.errors import BackboneError
from pipeline.terminal import LISTS, Flat, Json, print_result

backbones_app = App(name="backbones", default_parameter=LISTS)


@backbones_app.default
def backbones(
    *contenders: str,
    what: Annotated[BackbonesConfig, Flat] = BackbonesConfig(),
    data: Annotated[DataConfig, Flat] = DataConfig(),
    cache: Annotated[SampleCacheConfig, Flat] = SampleCacheConfig(),
    runs: Annotated[RunsConfig, Flat] = RunsConfig(),
    plot: Path | None = None,
    force: bool = False,
    json: Json = False,
) -> None:
    """Compare backbones on one sample: score with interval, seconds, memory, bytes, and LogME.

    A contender is `<backbone>[#<revision>][:<quantisation>][@<layer>]`: a name of the catalogue, a Hub id or a folder;
    nf4 unless it says otherwise; cut at a layer, or whole. Its features are its top layer's mean and last token.

    Example: `pipeline backbones smollm2-135m:nf4@20 smollm2-135m:none --data sample --tasks cola --rows 400`

    Args:
        contenders: by default the embedded backbone in nf4, int8, none and checkpoint, and nf4 cut at layers 10 and 20.
        plot: also write score against seconds as a page, such as backbones.html, that needs no network.
        force: overwrite that file.
    """
    from pipeline.choosing.contender import parse_contenders
    from pipeline.choosing.measure import compare_backbones
    from pipeline.choosing.plot import check_plot, write_plot
    from pipeline.choosing.table import comparison_tables

    named = parse_contenders(contenders or CONTENDERS)
    if plot is not None:
        check_plot(plot, overwrite=force)
    found = compare_backbones(named, what, data, cache, runs)
    if plot is not None and found.measured:
        write_plot(found, plot)
    print_result(found.to_dict(), json, lambda _: comparison_tables(found))
    if found.not_had:
        reasons = "\n".join(f"{each.contender}: {each.reason}" for each in found.not_had)
        raise BackboneError(f"{len(found.not_had)} of {len(named)} contenders could not be had\n{reasons}")
