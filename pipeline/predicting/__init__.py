"""New sentences: whatever a run trained, loaded once and asked in batches, from files or as they come."""

from pipeline.predicting.predictor import Predictor, load_predictor

__all__ = ["Predictor", "load_predictor"]
