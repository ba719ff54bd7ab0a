"""What stage two holds the cache against: the rows of a folder of one's own files, where that is at hand."""

import contextlib
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.config import CacheConfig, DataConfig, FeaturesConfig, source_name
from pipeline.corpus_config import CorpusConfig
from pipeline.errors import DataError, PipelineError

if TYPE_CHECKING:
    from pipeline.heads.features import Own, OwnRows
    from pipeline.tasks.spec import Split, TaskSpec


def own_rows(what: FeaturesConfig, tasks: "Iterable[TaskSpec]", cache: CacheConfig) -> "Own":
    """What a folder of one's own files holds, where `--data` names one that is here; the cache must hold just that."""
    from pipeline.heads.features import OwnRows
    from pipeline.progress import say
    from pipeline.tasks.read import read_task

    if source_name(what.data) != "files" or not Path(what.data).is_dir():
        return {}
    own = {}
    for task in tasks:
        if streamed := _streamed(task, what.data, cache):
            own[task.name] = streamed
            continue
        try:
            splits = read_task(task, DataConfig(data=what.data))
        except DataError as error:
            say(f"{task.name}: {what.data} is not read ({error.what}): features of any own files are taken")
            continue
        own[task.name] = {split: OwnRows(rows.digest, rows.labels, rows.origin) for split, rows in splits.items()}
    return own


def _streamed(task: "TaskSpec", data: str, cache: CacheConfig) -> "dict[Split, OwnRows]":
    """Those splits of the folder of which the cache has features that were streamed: their files are not read."""
    from pipeline.cache import FeatureCache
    from pipeline.heads.features import OwnRows
    from pipeline.tasks.stream import DIGEST, stream_task

    with contextlib.suppress(PipelineError):  # whatever is wrong is said where the features are opened
        texts = {each.identity.texts for each in FeatureCache.of(cache).manifests(task.name)}
        if any(each.startswith(DIGEST) for each in texts):
            corpora = stream_task(task, CorpusConfig(data, stream=True))
            return {
                split: OwnRows(corpus.digest, None, corpus.origin, knows_labels=False)
                for split, corpus in corpora.items()
                if corpus.digest in texts
            }
    return {}
