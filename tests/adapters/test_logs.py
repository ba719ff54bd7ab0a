"""TensorBoard's files, where they are wanted: read back with TensorBoard's own reader."""

import warnings

import pytest

from pipeline.adapters.training import Training


def logged_by(live, run):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TensorBoard's own, at import
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    events = EventAccumulator(str(live.runs_dir / run.run / "tensorboard"))
    events.Reload()
    return events


def test_losses_and_held_out_scores_are_in_tensorboards_files(live):
    (run,) = live.lora(log="tensorboard")
    events = logged_by(live, run)
    scalars = events.Tags()["scalars"]
    assert {
        "cola/loss",
        "cola/curve/held_out/mcc",
        "cola/held_out/mcc",
        "cola/curve/held_out/loss",
        "learning_rate",
    } <= set(scalars)
    (kept,) = events.Scalars("cola/held_out/mcc")
    assert kept.value == pytest.approx(run.scores["cola"]["held_out"]["mcc"])
    logged = [event.value for event in events.Scalars("cola/curve/held_out/loss")]
    expected = [record["held_out"]["cola"]["loss"] for record in run.selection["evaluations"]]
    assert len(logged) == len(expected)
    assert max(abs(one - other) for one, other in zip(logged, expected, strict=True)) < 1e-6


@pytest.mark.parametrize("kept", [None, 3])
def test_steps_that_a_stopped_training_logged_behind_its_state_stand_once(live, monkeypatch, counted_from_0, kept):
    do, keep = Training._do, Training._keep

    def stopped_at_5(self, step):
        if self._step == 5:
            raise KeyboardInterrupt
        return do(self, step)

    with monkeypatch.context() as patch:
        patch.setattr(Training, "_do", stopped_at_5)
        patch.setattr(Training, "_keep", lambda self: keep(self) if self._step == kept else None)
        with pytest.raises(KeyboardInterrupt):
            live.lora(log="tensorboard")
    (run,) = live.lora(log="tensorboard")
    events = logged_by(live, run)
    assert [event.step for event in events.Scalars("cola/loss")] == [1, 2, 3, 4, 5, 6]
    assert [event.step for event in events.Scalars("cola/curve/held_out/loss")] == [0, 2, 3, 5, 6]


def test_without_being_asked_for_there_are_none(live):
    (run,) = live.lora(epochs=1)
    assert not (live.runs_dir / run.run / "tensorboard").exists()
