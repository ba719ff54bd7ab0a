"""Stage two: heads trained on cached features, without the model, the corpus or a GPU."""
