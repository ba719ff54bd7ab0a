"""What stage two holds the cache against: the rows of a folder of one's own files, where that is at hand."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.config import CacheConfig, DataConfig, FeaturesConfig, source_name
from pipeline.corpus_config import CorpusConfig
from pipeline.errors import MissingSplit, PipelineError

if TYPE_CHECKING:
    from pipeline.heads.features import Own, OwnRows
    from pipeline.tasks.spec import Split, TaskSpec


def own_rows(what: FeaturesConfig, tasks: "Iterable[TaskSpec]", cache: CacheConfig) -> "Own":
    """What a folder of one's own files holds, where `--data` names one that is here; the cache must hold just that.

    Raises:
        DataError: the folder does not hold the task as it should; where a split is not there at all, it is said.
    """
    from pipeline.heads.features import OwnRows
    from pipeline.progress import say
    from pipeline.tasks.read import read_task

    if source_name(what.data) != "files":
        return {}
    if not Path(what.data).is_dir():
        say(f"note: there is no folder {what.data} here: features of own files are taken as the cache has them")
        return {}
    own = {}
    for task in tasks:
        if streamed := _streamed(task, what.data, cache):
            own[task.name] = streamed
            continue
        try:
            splits = read_task(task, DataConfig(data=what.data))
        except MissingSplit as error:
            say(f"note: {task.name}: {error.what}, in {what.data}: features are taken as the cache has them")
            continue
        own[task.name] = {split: OwnRows(rows.digest, rows.labels, rows.origin) for split, rows in splits.items()}
    return own


def _streamed(task: "TaskSpec", data: str, cache: CacheConfig) -> "dict[Split, OwnRows]":
    """The folder's splits, where the cache has features of own files that were streamed.

    Known by their files, they are not read; one that was not streamed, beside others that were, is.
    """
    from pipeline.cache import FeatureCache
    from pipeline.heads.features import OwnRows
    from pipeline.tasks.read import read_task
    from pipeline.tasks.stream import DIGEST, stream_task

    try:
        manifests = FeatureCache.of(cache).manifests(task.name)
        known = {(each.split, each.identity.texts) for each in manifests if "files" in each.sources}
        if not any(texts.startswith(DIGEST) for _, texts in known):
            return {}
        corpora = stream_task(task, CorpusConfig(data, stream=True))
    except PipelineError:  # whatever is wrong is said where the features are opened
        return {}
    found: dict[Split, OwnRows] = {}
    for split, corpus in corpora.items():
        found[split] = OwnRows(corpus.digest, None, corpus.origin, knows_labels=False)
        was_read = any(where == split and not texts.startswith(DIGEST) for where, texts in known)
        if was_read and (split, corpus.digest) not in known:
            [rows] = read_task(task, DataConfig(data=data), (split,)).values()
            found[split] = OwnRows(rows.digest, rows.labels, rows.origin)
    return found
