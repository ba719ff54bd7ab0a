"""The cache gives the one feature set that was asked for, or says what is there instead."""

import numpy as np
import pytest

from pipeline.cache import FeatureCache, FeatureSet
from pipeline.cache.identity import flatten
from pipeline.cache.manifest import MANIFEST, shard_paths
from pipeline.cache.verify import verify_feature_set
from pipeline.errors import CacheError, ConfigError, DamagedFeatureSet, FeatureSetNotFound

OTHER = {
    "weights": "sha256:other",
    "architecture.model_type": "qwen2",
    "architecture.num_hidden_layers": 5,
    "architecture.hidden_size": 7,
    "adapter": "sha256:lora",
    "quantization.type": "int8",
    "quantization.double": False,
    "quantization.block_size": 128,
    "quantization.compute_dtype": "bfloat16",
    "tokenizer": "sha256:other",
    "prompt": "Text: {}",
    "special_tokens": False,
    "max_length": 511,
    "truncation": True,
    "layer": 3,
    "layer_norm": "final",
    "pooling": "last",
    "storage_dtype": "float16",
    "texts": "sha256:other",
    "backbone": "other",
    "source": "glue",
}


INT8 = {"type": "int8", "compute_dtype": "float32"}


@pytest.fixture
def cache(tmp_path):
    return FeatureCache(tmp_path)


@pytest.fixture
def whole(corpus, tmp_path):
    """Write whole feature sets of cola/train, `whole({"layer": 2}, {"layer": 4})`, and give them."""

    def write(*changes, **facts):
        return [corpus(changes=change, facts=facts).write(tmp_path) for change in changes]

    return write


def table_of(error):
    """The lines of an error's table, in words."""
    lines = str(error).split("\n")
    start = next(i for i, line in enumerate(lines) if line.split() == ["field", "wanted", "found"])
    return [line.split() for line in lines[start + 1 :] if line.startswith("    ")]


def test_the_whole_identity_opens_its_set(cache, whole, corpus):
    mine, _ = whole({}, {"layer": 3})
    wanted = flatten(corpus().identity.to_dict())
    assert cache.open("cola", "train", backbone="tiny", source="sample", identity=wanted).folder == mine.folder
    assert set(wanted) | {"backbone", "source"} == set(OTHER)


def test_the_identity_of_a_set_as_it_is_opens_that_set(cache, whole):
    mine, other = whole({}, {"quantization": {"type": "int8"}})
    for feature_set in (mine, other):
        assert (
            cache.open("cola", "train", identity=feature_set.manifest.identity.to_dict()).folder == feature_set.folder
        )


@pytest.mark.parametrize("field", OTHER)
def test_any_one_field_otherwise_is_an_error_that_names_it(cache, whole, corpus, field):
    texts = {"texts": "sha256:cc"}
    whole(texts, {"layer": 1, "pooling": "first", "prompt": "far away {}", "max_length": 3})
    facts = {"backbone": "tiny", "source": "sample", **flatten(corpus(changes=texts).identity.to_dict())}
    with pytest.raises(FeatureSetNotFound) as caught:
        cache.open("cola", "train", identity={**facts, field: OTHER[field]})
    [line] = table_of(caught.value)
    assert line[0] == field
    spoken = [
        {True: "true", False: "false", None: "null"}.get(value, str(value)) for value in (OTHER[field], facts[field])
    ]
    assert line[1:] == " ".join(spoken).split()


def test_the_nearest_is_the_one_with_the_fewest_differences(cache, whole):
    far, near = whole({"prompt": "far {}", "layer": 1, "max_length": 7}, {"layer": 3})
    with pytest.raises(FeatureSetNotFound) as caught:
        cache.open("cola", "train", layer=2, pooling="mean", identity={"prompt": "Sentence: {}", "max_length": 512})
    assert near.manifest.name in str(caught.value)
    assert far.manifest.name not in str(caught.value)
    assert table_of(caught.value) == [["layer", "2", "3"]]


def test_of_two_that_differ_in_the_layer_alone_the_nearer_one_is_the_nearest(cache, whole):
    whole({"layer": 0, "layer_norm": "none"}, {"layer": 3}, {"layer": 1})
    with pytest.raises(FeatureSetNotFound) as caught:
        cache.open("cola", "train", layer=4, pooling="mean")
    assert table_of(caught.value) == [["layer", "4", "3"]]


def test_several_differences_all_stand_in_the_table(cache, whole):
    whole({})
    with pytest.raises(FeatureSetNotFound) as caught:
        cache.open("cola", "train", layer=4, pooling="last", backbone="big", identity={"quantization.type": "int8"})
    assert table_of(caught.value) == [
        ["quantization.type", "int8", "nf4"],
        ["backbone", "big", "tiny"],
        ["layer", "4", "2"],
        ["pooling", "last", "mean"],
    ]


def test_a_field_that_no_identity_has_is_said_to_be_absent(cache, whole):
    whole({})
    with pytest.raises(FeatureSetNotFound) as caught:
        cache.open("cola", "train", identity={"quantisation.type": "nf4"})
    assert table_of(caught.value) == [["quantisation.type", "nf4", "(absent)"]]


@pytest.mark.parametrize(
    ("layer", "number"),
    [(4, 4), (-1, 4), (1.0, 4), (2, 2), (-3, 2), (0.5, 2), (0.6, 2), (0.4, 2), (0, 0), (-5, 0), (0.0, 0)],
)
def test_a_layer_may_count_from_the_end_or_be_a_share_of_the_depth(cache, whole, layer, number):
    sets = {feature_set.manifest.identity.layer: feature_set for feature_set in whole({}, {"layer": 4}, {"layer": 0})}
    assert cache.open("cola", "train", layer=layer).folder == sets[number].folder


@pytest.mark.parametrize("layer", [5, -6, 1.5])
def test_a_layer_that_no_backbone_has_is_refused(cache, whole, layer):
    whole({})
    with pytest.raises((ConfigError, FeatureSetNotFound)):
        cache.open("cola", "train", layer=layer)


@pytest.mark.parametrize("layer", [20, -20])
def test_a_layer_of_the_one_backbone_is_found_beside_a_shallower_one(cache, corpus, whole, tmp_path, layer):
    deep = {"model_type": "llama", "num_hidden_layers": 30, "hidden_size": 6}
    number = layer % 31
    [mine] = whole({"architecture": deep, "layer": number}, backbone="deep")
    assert cache.open("cola", "train", layer=layer, backbone="deep").folder == mine.folder
    whole({"layer": 2}, backbone="shallow")
    assert cache.open("cola", "train", layer=layer, backbone="deep").folder == mine.folder


def test_an_unknown_pooling_is_refused(cache, whole):
    whole({})
    with pytest.raises(ConfigError, match="no such pooling"):
        cache.open("cola", "train", pooling="max")


def test_several_that_match_are_refused_naming_what_tells_them_apart(cache, whole):
    sets = whole({}, {"layer": 4, "prompt": "Text: {}"}, {"layer": 3})
    with pytest.raises(CacheError, match="3 feature sets of cola/train match") as caught:
        cache.open("cola", "train", pooling="mean")
    assert not isinstance(caught.value, FeatureSetNotFound)
    assert "which differ in layer, prompt:" in caught.value.what
    assert "(in Python: identity={'layer': " in caught.value.remedy
    assert all(feature_set.manifest.name in str(caught.value) for feature_set in sets)
    assert cache.open("cola", "train", layer=3).folder == sets[2].folder


def test_what_tells_apart_may_be_the_backbone_and_inside_a_record(cache, corpus, tmp_path):
    corpus(facts={"backbone": "one"}).write(tmp_path)
    quantization = {"type": "int8", "double": True, "block_size": 64, "compute_dtype": "float32"}
    corpus(facts={"backbone": "two"}, changes={"quantization": quantization}).write(tmp_path)
    with pytest.raises(CacheError) as caught:
        cache.open("cola", "train")
    assert "which differ in backbone, quantization.type:" in caught.value.what
    assert "rows, --backbone two --quantization int8" in caught.value.what


def test_another_split_or_task_never_stands_in(cache, corpus, tmp_path):
    train = corpus().write(tmp_path)
    validation = corpus(facts={"split": "validation"}, rows=5).write(tmp_path)
    assert cache.open("cola", "train").folder == train.folder
    assert cache.open("cola", "validation").folder == validation.folder
    with pytest.raises(FeatureSetNotFound, match="no features of sst2/train") as caught:
        cache.open("sst2", "train")
    assert caught.value.found == "cola/train, cola/validation"


@pytest.mark.parametrize("make", [True, False], ids=["empty", "absent"])
def test_an_empty_cache_says_so_and_what_to_do(tmp_path, make):
    path = tmp_path / "cache"
    if make:
        path.mkdir()
    with pytest.raises(FeatureSetNotFound, match="pipeline extract") as caught:
        FeatureCache(path).open("cola", "train")
    assert caught.value.found == "an empty cache"
    assert caught.value.where == path
    assert FeatureCache(path).manifests() == []


def test_a_set_without_manifest_is_not_there(cache, corpus, whole, tmp_path):
    [mine] = whole({})
    half = corpus(changes={"layer": 3})
    half.write_shard(half.writer(tmp_path), 0)
    assert [manifest.name for manifest in cache.manifests()] == [mine.manifest.name]
    with pytest.raises(FeatureSetNotFound):
        cache.open("cola", "train", layer=3)


def test_an_unfinished_set_that_is_opened_says_so_and_how_to_finish_it(cache, corpus, tmp_path):
    writer = corpus().writer(tmp_path)
    corpus().write_shard(writer, 0)
    with pytest.raises(CacheError, match="is not finished") as caught:
        FeatureSet(writer.folder)
    assert MANIFEST in caught.value.expected
    assert "the same pipeline extract again" in caught.value.remedy


def test_a_set_that_is_a_link_is_refused(cache, whole, tmp_path):
    [mine] = whole({})
    elsewhere = tmp_path.parent / f"{tmp_path.name}-elsewhere"
    mine.folder.rename(elsewhere)
    mine.folder.symlink_to(elsewhere)
    with pytest.raises(DamagedFeatureSet, match="a link"):
        cache.open("cola", "train")


def test_a_damaged_set_bars_the_way_to_no_other_and_is_named_where_it_may_be_the_one(cache, whole):
    mine, other = whole({}, {"layer": 3})
    (other.folder / MANIFEST).write_text("{")
    assert cache.open("cola", "train", layer=2).folder == mine.folder
    assert cache.open("cola", "train").folder == mine.folder
    with pytest.raises(FeatureSetNotFound, match="may be the one") as caught:
        cache.open("cola", "train", layer=3)
    assert table_of(caught.value)[0] == ["layer", "3", "2"]
    assert str(other.folder) in str(caught.value)
    assert "pipeline cache verify" in caught.value.remedy
    with pytest.raises(FeatureSetNotFound, match="no features of sst2/train"):
        cache.open("sst2", "train")
    (mine.folder / MANIFEST).write_text("{")
    with pytest.raises(DamagedFeatureSet, match="every feature set of cola/train is damaged") as caught:
        cache.open("cola", "train", layer=2)
    assert caught.value.found == "2 damaged"
    with pytest.raises(DamagedFeatureSet):
        cache.manifests()


def test_a_folder_opens_by_name_or_by_the_beginning_of_its_fingerprint(cache, whole):
    one, other = whole({}, {"layer": 3})
    assert cache.open_folder(one.manifest.name).folder == one.folder
    assert cache.open_folder(other.fingerprint[:12]).folder == other.folder
    assert cache.open_folder(other.fingerprint).folder == other.folder
    for name in ("", other.fingerprint[:5], "tiny", "../train"):
        with pytest.raises(FeatureSetNotFound):
            cache.open_folder(name)


def test_one_identity_in_two_splits_is_ambiguous_by_name(cache, corpus, tmp_path):
    corpus().write(tmp_path)
    twin = corpus(facts={"split": "test"}).write(tmp_path)
    with pytest.raises(CacheError, match="several feature sets begin so"):
        cache.open_folder(twin.manifest.name)


def test_manifests_are_sorted_and_can_be_narrowed(cache, corpus, tmp_path):
    for task in ("sst2", "cola"):
        for split in ("validation", "train"):
            corpus(facts={"task": task, "split": split}).write(tmp_path)
    assert [(m.task, m.split) for m in cache.manifests()] == [
        ("cola", "train"),
        ("cola", "validation"),
        ("sst2", "train"),
        ("sst2", "validation"),
    ]
    assert [(m.task, m.split) for m in cache.manifests("sst2")] == [("sst2", "train"), ("sst2", "validation")]
    assert [m.task for m in cache.manifests(split="train")] == ["cola", "sst2"]
    assert cache.folder(cache.manifests("cola", "train")[0]).parent == tmp_path / "cola" / "train"


def test_an_identity_is_taken_as_it_is_and_layers_as_numpy_has_them(cache, whole, corpus):
    mine, _ = whole({}, {"layer": 3})
    assert cache.open("cola", "train", identity=corpus().identity).folder == mine.folder
    for layer in (np.int64(2), np.float32(0.5), "2"):
        assert cache.open("cola", "train", layer=layer, pooling="mean").folder == mine.folder
    with pytest.raises(FeatureSetNotFound, match=r"layer +4 +[23]"):
        cache.open("cola", "train", layer=np.int64(4))
    with pytest.raises(ConfigError, match="a layer is not a number"):
        cache.open("cola", "train", layer="x")


def test_a_full_identity_that_lacks_a_field_of_the_sets_is_another(cache, whole, corpus):
    whole({})
    wanted = corpus().identity.to_dict()
    wanted["quantization"] = {name: value for name, value in wanted["quantization"].items() if name != "double"}
    with pytest.raises(FeatureSetNotFound) as caught:
        cache.open("cola", "train", identity=wanted)
    assert table_of(caught.value) == [["quantization.double", "(absent)", "true"]]


def test_damage_does_not_make_an_ambiguous_request_a_clear_one(cache, whole):
    nf4, int8, _ = whole({}, {"quantization": INT8}, {"layer": 3})
    with pytest.raises(CacheError, match="2 feature sets"):
        cache.open("cola", "train", layer=2, pooling="mean")
    manifest = nf4.folder / MANIFEST
    manifest.write_bytes(manifest.read_bytes().replace(b"nf4", b"nf5"))
    with pytest.raises(DamagedFeatureSet, match="but so may what is damaged") as caught:
        cache.open("cola", "train", layer=2, pooling="mean")
    assert nf4.folder.name in str(caught.value)
    assert cache.open("cola", "train", layer=3, pooling="mean")
    assert cache.open("cola", "train", layer=2, identity={"quantization.type": "int8"}).folder == int8.folder


def test_a_set_that_was_damaged_and_set_aside_may_still_be_the_one_that_was_meant(cache, whole):
    nf4, int8 = whole({}, {"quantization": INT8})
    states = shard_paths(nf4.folder, 0)[0]
    states.write_bytes(states.read_bytes()[:-1])
    verify_feature_set(nf4.folder, deep=True).set_aside(timeout=0.0)
    with pytest.raises(DamagedFeatureSet, match="but so may what is damaged") as caught:
        cache.open("cola", "train", layer=2, pooling="mean")
    assert nf4.folder.name in str(caught.value)
    assert cache.open("cola", "train", identity={"quantization.type": "int8"}).folder == int8.folder


def test_a_relative_folder_is_a_folder(whole, monkeypatch):
    (mine,) = whole({})
    monkeypatch.chdir(mine.folder)
    assert len(FeatureSet(".")) == len(mine)
    monkeypatch.chdir(mine.folder.parent)
    assert len(FeatureSet(mine.folder.name)) == len(mine)


def test_what_is_unfinished_is_said_where_nothing_matches(cache, corpus, tmp_path):
    small = corpus()
    small.write_shard(small.writer(tmp_path), 0)
    with pytest.raises(FeatureSetNotFound, match="goes on with them") as caught:
        cache.open("cola", "train")
    assert small.writer(tmp_path).folder.name in str(caught.value)
    corpus(changes={"layer": 3}).write(tmp_path)
    with pytest.raises(FeatureSetNotFound, match="goes on with them"):
        cache.open("cola", "train", layer=2)
    small.write(tmp_path)
    with pytest.raises(FeatureSetNotFound) as caught:
        cache.open("cola", "train", layer=1)
    assert "goes on with them" not in str(caught.value)
