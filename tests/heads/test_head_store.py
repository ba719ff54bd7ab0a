"""Heads on disk: identical after a new process loads them, and nothing foreign is ever loaded."""

import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
import skops.io
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from pipeline.errors import HeadError
from pipeline.heads.linear_head import LinearHead
from pipeline.heads.sklearn_head import SklearnHead
from pipeline.heads.store import load_head, save_head
from pipeline.heads.torch_head import TorchHead
from tests import forked

RNG = np.random.default_rng(0)
X = RNG.normal(size=(60, 16)).astype(np.float32)
Y = (X[:, 0] + 0.3 * RNG.normal(size=60) > 0).astype(np.int64)


class Foreign:
    """A type that is neither scikit-learn's nor NumPy's."""

    def __init__(self) -> None:
        self.weights = np.ones(3)


class Bomb:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


def _sklearn_head():
    return SklearnHead("LogisticRegression", {"C": 0.5}).fit(X, Y)


def _margin_head():
    """One without probabilities of its own, calibrated."""
    head = SklearnHead("RidgeClassifier").fit(X, Y)
    head.temperature_ = 0.3
    return head


def _linear_head():
    head = LinearHead("svm", C=0.1).fit(X, Y)
    head.temperature_ = 2.5
    return head


def _torch_head(seed: int = 0) -> TorchHead:
    return TorchHead(hidden_size=8, max_epochs=5, random_state=seed).fit(X, Y, X, Y)


LOAD = """
import sys
from pathlib import Path
import numpy as np
from pipeline.heads.store import load_head
X = np.load(sys.argv[1])
for folder in map(Path, sys.argv[2:]):
    head = load_head(folder)
    np.save(folder / "predictions.npy", head.predict(X))
    np.save(folder / "logits.npy", head.decision_function(X))
"""


def test_a_head_loaded_in_a_new_process_gives_identical_logits(train, corpora, tmp_path):
    features = corpora["validation"].X["L1-mean"]
    np.save(tmp_path / "X.npy", features)
    heads = ("mlp", "linear", "logreg", "LinearDiscriminantAnalysis", "RidgeClassifier")
    folders = [tmp_path / "runs" / train(heads=(head,)).run for head in heads]
    before = [load_head(folder) for folder in folders]
    done = forked.python(LOAD, [tmp_path / "X.npy", *folders], tmp_path)
    assert done.returncode == 0, done.stderr
    for folder, head in zip(folders, before, strict=True):
        np.testing.assert_array_equal(np.load(folder / "predictions.npy"), head.predict(features))
        np.testing.assert_array_equal(np.load(folder / "logits.npy"), head.decision_function(features))
    other = load_head(tmp_path / "runs" / train(heads=("mlp",), seed=1).run)
    assert not np.array_equal(np.load(folders[0] / "logits.npy"), other.decision_function(features))


@pytest.mark.parametrize("make", [_torch_head, _sklearn_head, _margin_head, _linear_head])
def test_what_is_loaded_is_what_was_saved(make, tmp_path):
    head = make()
    path = save_head(head, tmp_path)
    assert path.name == ("head.skops" if isinstance(head, SklearnHead) else "head.safetensors")
    loaded = load_head(tmp_path)
    if not isinstance(head, SklearnHead):  # whose settings are all of its classifier's
        assert loaded.get_params() == head.get_params()
    assert loaded.temperature_ == head.temperature_ if hasattr(head, "temperature_") else True
    assert loaded.classes_.tolist() == [0, 1]
    np.testing.assert_array_equal(loaded.decision_function(X), head.decision_function(X))
    np.testing.assert_array_equal(loaded.predict_proba(X), head.predict_proba(X))


def test_loading_a_head_leaves_the_global_random_state_alone(tmp_path):
    save_head(_torch_head(), tmp_path)
    before = torch.get_rng_state()
    load_head(tmp_path)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_skops_file_with_a_foreign_type_is_refused(tmp_path):
    skops.io.dump(make_pipeline(StandardScaler(), Foreign()), tmp_path / "head.skops")
    with pytest.raises(HeadError, match="Foreign"):
        load_head(tmp_path)
    head = _sklearn_head().pipeline_
    skops.io.dump(head, tmp_path / "head.skops")  # the same without it loads
    np.testing.assert_array_equal(load_head(tmp_path).predict(X), head.predict(X))


def test_a_skops_file_that_calls_a_function_is_refused(tmp_path):
    head = make_pipeline(FunctionTransformer(Path.touch), LogisticRegression())
    skops.io.dump(head, tmp_path / "head.skops")
    with pytest.raises(HeadError):
        load_head(tmp_path)


def test_a_head_with_a_foreign_type_is_not_saved_in_silence(tmp_path):
    with pytest.raises(HeadError, match="Foreign"):
        save_head(make_pipeline(StandardScaler(), Foreign()), tmp_path)


@pytest.mark.parametrize("name", ["head.skops", "head.safetensors"])
def test_a_pickle_is_refused_and_does_nothing(tmp_path, name):
    touched = tmp_path / "touched"
    (tmp_path / name).write_bytes(pickle.dumps(Bomb(touched)))
    with pytest.raises(HeadError, match="cannot be read"):
        load_head(tmp_path)
    assert not touched.exists()
    pickle.loads((tmp_path / name).read_bytes())
    assert touched.exists()  # it would have gone off


@pytest.mark.parametrize("make", [_torch_head, _sklearn_head, _linear_head])
@pytest.mark.parametrize("kept", [0.0, 0.3, 0.9])
def test_a_truncated_file_is_refused(tmp_path, make, kept):
    path = save_head(make(), tmp_path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(kept * len(whole))])
    with pytest.raises(HeadError, match="cannot be read") as caught:
        load_head(tmp_path)
    assert caught.value.where == path
    path.write_bytes(whole)
    load_head(tmp_path)


def test_a_skops_file_with_a_flipped_bit_in_a_weight_is_refused(tmp_path):
    path = save_head(_sklearn_head(), tmp_path)
    weights, whole = load_head(tmp_path).pipeline_[-1].coef_.tobytes(), bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as file:
        [member] = [each for each in file.infolist() if weights in file.read(each)]
    place = member.header_offset + 30 + len(member.filename) + member.compress_size // 2  # in its packed bytes
    whole[place] ^= 1
    path.write_bytes(whole)
    with pytest.raises(HeadError):
        load_head(tmp_path)


def test_a_skops_file_without_one_of_its_arrays_is_refused(tmp_path):
    path = save_head(_sklearn_head(), tmp_path)
    with zipfile.ZipFile(path) as whole:
        members = {name: whole.read(name) for name in whole.namelist()}
    arrays = sorted(name for name in members if name.endswith(".npy"))
    with zipfile.ZipFile(path, "w") as partial:
        for name in members.keys() - arrays[:1]:
            partial.writestr(name, members[name])
    with pytest.raises(HeadError):
        load_head(tmp_path)


@pytest.mark.parametrize("schema", ["[]", "{}", '{"__loader__": "NoSuchNode"}', "no json"])
def test_a_zip_file_that_is_no_skops_file_is_refused(tmp_path, schema):
    with zipfile.ZipFile(tmp_path / "head.skops", "w") as file:
        file.writestr("schema.json", schema)
    with pytest.raises(HeadError):
        load_head(tmp_path)


def test_a_safetensors_file_without_a_heads_record_is_refused(tmp_path):
    head = _torch_head()
    path = save_head(head, tmp_path)
    state = head.module_.state_dict()
    save_file(state, path)
    with pytest.raises(HeadError, match="cannot be read"):
        load_head(tmp_path)
    for record in ("[]", "{}", '{"params": {}, "classes": [0, 1]}', "no json", '"text"'):
        save_file(state, path, metadata={"head": record})
        with pytest.raises(HeadError, match="cannot be read"):
            load_head(tmp_path)


@pytest.mark.parametrize(
    ("was", "now"),
    [
        ('"width": 16', '"width": 15'),
        ('"classes": [0, 1]', '"classes": [0, 1, 2]'),
        ('"hidden_size": 8', '"hidden_size": 0'),
        ('"hidden_size"', '"hidden"'),
    ],
)
def test_a_record_that_contradicts_the_weights_is_refused(tmp_path, was, now):
    head = _torch_head()
    path = save_head(head, tmp_path)
    with safe_open(path, framework="pt") as file:
        record = file.metadata()["head"]
    assert was in record
    save_file(head.module_.state_dict(), path, metadata={"head": record.replace(was, now)})
    with pytest.raises(HeadError, match="cannot be read"):
        load_head(tmp_path)


def test_a_folder_without_a_head_is_refused(tmp_path):
    with pytest.raises(HeadError, match="no head") as caught:
        load_head(tmp_path)
    assert caught.value.where == tmp_path


def test_the_weights_are_plain_tensors_and_the_record_plain_json(tmp_path):
    path = save_head(_torch_head(), tmp_path)
    with safe_open(path, framework="pt") as file:
        names = set(file.keys())
    assert {"mean", "scale"} < names
    assert all(name in ("mean", "scale") or name.startswith("body.") for name in names)
