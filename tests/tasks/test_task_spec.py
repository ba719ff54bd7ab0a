"""A task is checked when it is made, and when it is read from TOML."""

import pytest

from pipeline.errors import ConfigError
from pipeline.tasks.spec import BUILT_IN, COLA, SST2, TaskSpec, find_tasks, read_task_file, virtual_text
from pipeline.views import View

GOOD = """
name = "tone"
labels = ["dull", "lively", "odd"]
prompt = "How does this read? {}"
metric = "f1"
views = ["L0.65-mean", "L3-first"]
head_view = ["L3-first"]
text_column = "body"
label_column = "verdict"
"""


def write(tmp_path, text):
    path = tmp_path / "task.toml"
    path.write_text(text, "utf-8")
    return path


def test_the_built_in_tasks_number_their_classes_as_glue_does():
    assert set(BUILT_IN) == {"cola", "sst2"}
    assert (COLA.labels[1], COLA.metric) == ("acceptable", "mcc")
    assert (SST2.labels[1], SST2.metric) == ("positive", "accuracy")


@pytest.mark.parametrize("prompt", ["", "no slot", "{} and {}", "{0}", "{ }", "{text}"])
def test_a_prompt_holds_the_slot_once(prompt):
    with pytest.raises(ConfigError, match="exactly once") as caught:
        TaskSpec(name="tone", labels=("a", "b"), prompt=prompt)
    assert caught.value.where == "task 'tone', field prompt"
    assert caught.value.found == repr(prompt)


def test_what_virtual_tokens_begin_as_is_the_tasks_text_or_names_its_label_words(tmp_path):
    assert virtual_text(read_task_file(write(tmp_path, GOOD))) == "Classify the sentence as dull, lively or odd."
    words = GOOD + 'label_words = ["flat", "brisk", "strange"]\n'
    assert virtual_text(read_task_file(write(tmp_path, words))) == "Classify the sentence as flat, brisk or strange."
    assert virtual_text(read_task_file(write(tmp_path, words + 'init_text = "Listen."\n'))) == "Listen."


@pytest.mark.parametrize("prompt", ["{}", "Text: {}", "Braces { } around {} and {x}"])
def test_other_braces_do_not_matter(prompt):
    assert TaskSpec(name="tone", labels=("a", "b"), prompt=prompt).prompt == prompt


@pytest.mark.parametrize("labels", [(), ("a",), ("a", "a"), ("a", "b", "a")])
def test_labels_are_two_or_more_and_distinct(labels):
    with pytest.raises(ConfigError, match="two or more distinct labels") as caught:
        TaskSpec(name="tone", labels=labels, prompt="{}")
    assert caught.value.found == list(labels)


def test_labels_that_differ_in_case_alone_are_distinct():
    assert TaskSpec(name="tone", labels=("A", "a"), prompt="{}").labels == ("A", "a")


@pytest.mark.parametrize("name", ["", "Tone", "a b", "../up", "a/b", "a.b", "-"])
def test_a_name_that_cannot_be_a_folder_is_refused(name):
    with pytest.raises(ConfigError, match="name is not usable"):
        TaskSpec(name=name, labels=("a", "b"), prompt="{}")


def test_an_unknown_metric_and_an_empty_list_of_views_are_refused():
    with pytest.raises(ConfigError, match="no such metric"):
        TaskSpec(name="tone", labels=("a", "b"), prompt="{}", metric="bleu")
    with pytest.raises(ConfigError, match="at least one view"):
        TaskSpec(name="tone", labels=("a", "b"), prompt="{}", views=())


def test_a_task_file_says_every_field(tmp_path):
    assert read_task_file(write(tmp_path, GOOD)) == TaskSpec(
        name="tone",
        labels=("dull", "lively", "odd"),
        prompt="How does this read? {}",
        metric="f1",
        views=(View(0.65, "mean"), View(3, "first")),
        head_view=(View(3, "first"),),
        text_column="body",
        label_column="verdict",
    )


def test_a_task_file_may_leave_out_what_has_a_default(tmp_path):
    path = write(tmp_path, 'name = "tone"\nlabels = ["a", "b"]\nprompt = "{}"\n')
    assert read_task_file(path) == TaskSpec(name="tone", labels=("a", "b"), prompt="{}")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("name =", "name "), "not TOML"),
        (('name = "tone"\n', ""), "fields are wrong"),
        (("metric", "metrics"), "fields are wrong"),
        (("metric", "glue"), "fields are wrong"),
        (('labels = ["dull", "lively", "odd"]', 'labels = "dull"'), "field labels"),
        (('labels = ["dull", "lively", "odd"]', "labels = [0, 1]"), "field labels"),
        (('prompt = "How does this read? {}"', "prompt = 3"), "field prompt"),
        (('prompt = "How does this read? {}"', 'prompt = "none"'), "field prompt"),
        (('"lively"', '"dull"'), "field labels"),
        (('"L3-first"', '"3-first"'), "no view"),
        (('"L3-first"', '"L3-middle"'), "no such pooling"),
        (('"f1"', '"bleu"'), "field metric"),
    ],
)
def test_a_wrong_task_file_is_refused_and_the_field_named(tmp_path, change, message):
    assert change[0] in GOOD
    with pytest.raises(ConfigError, match=message):
        read_task_file(write(tmp_path, GOOD.replace(*change)))


def test_a_task_file_that_is_not_there_or_not_utf8_is_refused_by_its_path(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read") as caught:
        read_task_file(tmp_path / "absent.toml")
    assert caught.value.where == tmp_path / "absent.toml"
    path = tmp_path / "latin.toml"
    path.write_bytes('name = "é"'.encode("latin-1"))
    with pytest.raises(ConfigError, match="not TOML"):
        read_task_file(path)


def test_tasks_come_in_the_order_they_are_named(tmp_path):
    path = write(tmp_path, GOOD)
    assert [task.name for task in find_tasks(("sst2", "tone", "cola"), (path,))] == ["sst2", "tone", "cola"]


def test_an_unknown_task_is_refused_and_the_known_ones_named():
    with pytest.raises(ConfigError, match="no such task") as caught:
        find_tasks(("cola", "mnli"))
    assert caught.value.found == "mnli"
    assert caught.value.expected == "cola | sst2"


@pytest.mark.parametrize("names", [("cola", "cola"), ("cola", "sst2", "cola"), ()])
def test_a_task_is_named_once(names):
    with pytest.raises(ConfigError, match="name each task once"):
        find_tasks(names)


def test_a_task_file_cannot_take_a_built_in_name(tmp_path):
    with pytest.raises(ConfigError, match="two tasks have one name"):
        find_tasks(("cola",), (write(tmp_path, GOOD.replace('"tone"', '"cola"')),))


@pytest.mark.parametrize(
    ("name", "meant"), [("sst-2", "did you mean sst2? "), ("CoLA", "did you mean cola? "), ("mnli", "")]
)
def test_a_task_that_is_misspelt_is_guessed(name, meant):
    with pytest.raises(ConfigError) as caught:
        find_tasks((name,))
    assert str(caught.value.remedy).startswith(f"{meant}Else" if meant else "name one of these")
