"""TensorBoard's files, where they are wanted: read back with TensorBoard's own reader."""

import warnings


def test_losses_and_held_out_scores_are_in_tensorboards_files(live):
    (run,) = live.lora(log="tensorboard")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TensorBoard's own, at import
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    events = EventAccumulator(str(live.runs_dir / run.run / "tensorboard"))
    events.Reload()
    scalars = events.Tags()["scalars"]
    assert {"cola/loss", "cola/held_out/mcc", "cola/held_out/loss", "learning_rate"} <= set(scalars)
    logged = [event.value for event in events.Scalars("cola/held_out/loss")]
    expected = [record["held_out"]["cola"]["loss"] for record in run.selection["evaluations"]]
    assert len(logged) == len(expected)
    assert max(abs(one - other) for one, other in zip(logged, expected, strict=True)) < 1e-6


def test_without_being_asked_for_there_are_none(live):
    (run,) = live.lora(epochs=1)
    assert not (live.runs_dir / run.run / "tensorboard").exists()
