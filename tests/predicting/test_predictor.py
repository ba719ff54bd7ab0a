"""What a run predicts of sentences is what it predicted of the features that stage one wrote of them, to the bit."""

import json
import shutil
import threading

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.metrics import get_scorer, roc_auc_score
from sklearn.model_selection import cross_val_predict

from pipeline.errors import BackboneError, ConfigError, DataError, RunError
from pipeline.predicting import load_predictor
from tests.tiny_backbone import make_tiny_backbone

KINDS = (
    "logreg", "mix", "mlp", "RidgeClassifier", "attention", "joint", "adapted", "float16", "bfloat16",
    "tfidf", "majority",
)  # fmt: skip


def load(place, kind, **settings):
    settings = {"adapter": place.adapter if kind == "adapted" else None, "models_dir": place.models, **settings}
    return load_predictor(place.run(kind), **settings)


@pytest.fixture(scope="module")
def predictor(place):
    return load(place, "logreg")


@pytest.mark.parametrize("kind", KINDS)
def test_sentences_are_predicted_as_their_features_were(place, kind):
    found = load(place, kind)
    for task in found.run.tasks:
        for split in ("validation", "test") if kind not in ("tfidf", "majority") else ("validation",):
            texts, classes, probabilities = place.predicted(kind, split, task)
            answers = found.answer(texts, task)
            np.testing.assert_array_equal(answers.predictions, classes)
            np.testing.assert_array_equal(answers.probabilities, probabilities)
    if kind != "majority":
        assert np.ptp(probabilities[:, 0]) > 1e-6
        assert not np.array_equal(found.answer(texts[::-1], task).probabilities, probabilities)


def test_other_sentences_beside_one_do_not_change_it(predictor, place):
    texts, _, probabilities = place.predicted("logreg")
    one_by_one = np.concatenate([predictor.answer([text]).probabilities for text in texts[:5]])
    np.testing.assert_allclose(one_by_one, probabilities[:5], atol=1e-5)


def test_it_has_scikit_learns_manners(predictor, place):
    texts, classes, probabilities = place.predicted("logreg")
    assert predictor.classes_.tolist() == ["acceptable", "unacceptable"]  # sorted, which their numbers are not
    np.testing.assert_array_equal(predictor.predict_proba(texts), probabilities[:, ::-1])
    labels = np.array(["unacceptable", "acceptable"])
    assert predictor.predict(np.array(texts)).tolist() == labels[classes].tolist()
    y = labels[np.arange(len(texts)) % 2]
    expected = roc_auc_score(y == "unacceptable", probabilities[:, 0])
    assert get_scorer("roc_auc")(predictor, texts, y) == expected != 0.5
    assert predictor.score(texts, y) == np.mean(labels[classes] == y)
    assert clone(predictor) is predictor
    assert cross_val_predict(predictor, np.array(texts), y, cv=2).tolist() == labels[classes].tolist()
    assert predictor.predict_proba([]).shape == (0, 2)


@pytest.mark.parametrize(
    ("texts", "error", "parts"),
    [
        (["Fine .", "  "], DataError, ("a sentence is empty", "row 2")),
        (["Fine .", float("nan")], DataError, ("not a text", "row 2", "nan")),
        ("Fine .", ConfigError, ("a list of sentences",)),
        (pd.DataFrame({"id": [7], "sentence": ["Fine ."]}), ConfigError, ("df['sentence']", "'id', 'sentence'")),
        ({"sentence": ["Fine ."]}, ConfigError, ("df['sentence']",)),
        (["Fine .", "long " * 300], DataError, ("longer than the limit", "row 2")),
    ],
)
def test_what_is_no_sentence_is_refused_with_its_place(predictor, texts, error, parts):
    with pytest.raises(error) as caught:
        predictor.predict(texts)
    assert all(part in str(caught.value) for part in parts), caught.value
    with pytest.raises(error):
        list(predictor.stream(texts))


def test_a_stream_answers_what_has_come_before_it_asks_for_more(predictor, place):
    texts, classes, _ = place.predicted("logreg")
    answered = []

    def ask():
        for number, text in enumerate(texts[:4]):
            while len(answered) < number:  # a stream that waited for more would wait for ever
                pass
            yield text
        yield "  "

    with pytest.raises(DataError, match="row 5"):
        for record in predictor.stream(ask()):
            answered.append(record)
    assert [(r["sentence"], r["prediction"]) for r in answered] == list(zip(texts, classes.tolist(), strict=True))[:4]


def test_a_stream_answers_what_is_before_the_sentence_at_fault_and_cuts_it_where_that_is_asked_for(place, capsys):
    texts = ["Fine .", "Good .", "long " * 300, "  "]
    for truncation, answers in ((False, 2), (True, 3)):
        answered = []
        with pytest.raises(DataError, match=f"row {answers + 1}") as caught:
            for record in load(place, "logreg", truncation=truncation).stream(texts):
                answered.append(record["sentence"])
        assert answered == [text.strip() for text in texts[:answers]]
        assert ("--max-length" in str(caught.value), "--truncation" in str(caught.value)) == (False, not truncation)
        assert ("sentences cut to 256 tokens" in capsys.readouterr().err) is truncation


def test_a_stream_that_is_left_takes_no_more(predictor):
    def threads():
        return [thread for thread in threading.enumerate() if thread.name == "arriving sentences"]

    before = threads()
    stream = predictor.stream("Fine ." for _ in range(10**6))
    next(stream)
    (taking,) = set(threads()) - set(before)
    stream.close()
    taking.join(30)
    assert not taking.is_alive()


def test_a_run_of_several_tasks_asks_which(place):
    joint = load(place, "joint")
    assert not hasattr(joint, "classes_")
    with pytest.raises(ConfigError, match="several tasks"):
        joint.predict(["Fine ."])
    with pytest.raises(ConfigError, match="another task"):
        joint.predict(["Fine ."], task="mnli")
    only = load(place, "joint", task="sst2")
    assert only.classes_.tolist() == ["negative", "positive"]
    np.testing.assert_array_equal(only.predict_proba(["Fine ."]), joint.predict_proba(["Fine ."], task="sst2"))


@pytest.mark.parametrize(("kind", "reason"), [("control", "drawn at random"), ("random-features", "drawn at random")])
def test_baselines_that_say_nothing_of_new_sentences_are_refused(place, kind, reason):
    with pytest.raises(RunError, match=reason):
        load(place, kind)


def test_another_backbone_is_refused_with_the_fields_that_differ(place, sample_dir, tmp_path):
    other = make_tiny_backbone(tmp_path / "tiny-llama", sample_dir, rms_norm_eps=1e-3)
    with pytest.raises(BackboneError, match=r"architecture\.config"):
        load(place, "logreg", backbone=str(other))
    with pytest.raises(BackboneError, match="no such backbone") as caught:
        load(place, "logreg", backbone="tiny-llama")
    assert "local folder" in str(caught.value)
    with pytest.raises(BackboneError, match="an adapter merged into it"):
        load(place, "adapted", adapter=None)
    with pytest.raises(BackboneError, match="of the plain backbone"):
        load(place, "logreg", adapter=place.adapter)


def test_a_wrong_adapter_is_refused(place, make_adapter):
    with pytest.raises(BackboneError, match=r"differs in\n.*\n *adapter"):
        load(place, "adapted", adapter=make_adapter("other", seed=1))


def test_an_older_run_is_understood_through_the_cache(place, tmp_path):
    folder = tmp_path / place.runs["logreg"]
    shutil.copytree(place.run("logreg"), folder)
    record = json.loads((folder / "run.json").read_text())
    del record["inputs"]
    (folder / "run.json").write_text(json.dumps(record))
    texts, _, probabilities = place.predicted("logreg")
    np.testing.assert_array_equal(
        load_predictor(folder, models_dir=place.models).answer(texts).probabilities, probabilities
    )
    with pytest.raises(RunError, match="--cache-dir"):
        load_predictor(folder, models_dir=place.models, cache_dir=tmp_path / "elsewhere")
