"""Commands of several trainings that are stopped: what was trained stays; what is wrong is said before any trains."""

import pytest

from pipeline.adapters import lora_run, zero_shot
from pipeline.adapters.training import Training
from pipeline.errors import AdapterError, ConfigError
from pipeline.results.ledger import read_runs

BOTH = ("cola", "sst2")


@pytest.fixture
def stopped_at(monkeypatch):
    """Training of a task stops behind its first kept state, as often as it is asked to."""
    keep = Training._keep

    def stop_at(task, times=1):
        left = [times]

        def stopping(self):
            keep(self)
            if task in self.tasks and left[0]:
                left[0] -= 1
                raise KeyboardInterrupt

        monkeypatch.setattr(Training, "_keep", stopping)

    return stop_at


@pytest.mark.parametrize("kind", ["lora", "prompt"])
def test_the_same_command_goes_on_where_it_was_stopped_and_trains_nothing_twice(live, stopped_at, kind, capsys):
    train = getattr(live, kind)
    whole = train(tasks=BOTH, runs_dir=live.folder / "whole")
    stopped_at("sst2")
    with pytest.raises(KeyboardInterrupt):
        train(tasks=BOTH)
    (first,) = read_runs(live.runs_dir)
    runs = train(tasks=BOTH)
    assert [run.tasks for run in runs] == [("cola",), ("sst2",)]
    assert runs[0].run == first.run
    assert len(read_runs(live.runs_dir)) == 2
    said = capsys.readouterr().err
    assert "trained before this command was stopped" in said
    assert "sst2" in said.split("goes on from step")[0].splitlines()[-1]
    assert [run.scores for run in runs] == [run.scores for run in whole]
    assert not (live.runs_dir / ".training").exists()


def test_what_was_stopped_before_it_began_leaves_nothing(live, monkeypatch):
    def stop(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(lora_run, "_begin", stop)
    with pytest.raises(KeyboardInterrupt):
        live.lora()
    assert not (live.runs_dir / ".training").exists()


def test_tensorboards_files_hold_the_steps_before_a_stop_too(live, stopped_at, counted_from_0):
    stopped_at("cola")
    with pytest.raises(KeyboardInterrupt):
        live.lora(log="tensorboard")
    (run,) = live.lora(log="tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(live.runs_dir / run.run / "tensorboard"))
    events.Reload()
    steps = [event.step for event in events.Scalars("cola/loss")]
    assert steps == list(range(1, len(steps) + 1))
    assert len(events.Scalars("cola/curve/held_out/loss")) == len(run.selection["evaluations"])


def test_states_of_the_second_task_that_are_not_cached_are_missed_before_the_first_trains(live):
    live.extract(tasks=("cola",), layers=("1",), poolings=("tokens",))
    with pytest.raises(AdapterError, match="its tokens view is not there") as caught:
        live.lora(tasks=BOTH, top_layers=1, views="L-1-mean")
    assert "sst2" in str(caught.value)
    assert not read_runs(live.runs_dir)


def test_label_words_of_the_second_task_are_checked_before_the_first_trains(live, monkeypatch):
    read = zero_shot.label_word_ids

    def refuse(*args, task, **kwargs):
        if task == "sst2":
            raise AdapterError("label words share their first token")
        return read(*args, task=task, **kwargs)

    monkeypatch.setattr(zero_shot, "label_word_ids", refuse)
    with pytest.raises(AdapterError, match="share their first token"):
        live.prompt(tasks=BOTH)
    assert not read_runs(live.runs_dir)


def test_a_gate_by_name_is_its_own_tasks_and_no_others(live, capsys):
    written = live.extract(tasks=BOTH, layers=("-1",), poolings=("last",), splits=("train", "validation"))
    named = {record["name"]: record for record in written}
    of_cola = next(name for name, record in named.items() if (record["task"], record["split"]) == ("cola", "train"))
    of_validation = next(name for name, record in named.items() if record["split"] == "validation")
    first, second = live.lora(tasks=BOTH, epochs=1, gate=of_cola)
    assert first.adapter["gate"]["cola"]["relative"] <= 1e-4
    assert second.adapter["gate"]["sst2"] == {}
    assert "sst2: not held against the cache" in capsys.readouterr().err
    with pytest.raises(AdapterError, match="not of these tasks' training rows"):
        live.lora(tasks=BOTH, gate=of_validation)


def test_frozen_weights_that_change_are_found_and_nothing_is_stored(live, monkeypatch):
    run = Training.run

    def touching(self):
        trained = run(self)
        self.network.engine.backbone.model.get_input_embeddings().weight.data.view(-1)[0] += 1
        return trained

    monkeypatch.setattr(Training, "run", touching)
    for train in (live.lora, live.prompt):
        with pytest.raises(AdapterError, match="frozen weights changed"):
            train()
    assert not read_runs(live.runs_dir)


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"virtual_tokens": 5, "init_text": ""}, "init_text"),
        ({"shared_text": ""}, "shared_text"),
    ],
)
def test_virtual_tokens_of_no_text_are_refused(live, changed, says):
    with pytest.raises(ConfigError, match=says):
        live.prompt(**changed)


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"virtual_tokens": 100_000}, "more virtual tokens than the backbone was made for"),
        ({"label_words": ("", "no")}, "a label word is empty"),
    ],
)
def test_prompts_that_cannot_be_are_one_message(live, changed, says):
    with pytest.raises(AdapterError, match=says):
        live.prompt(**changed)
