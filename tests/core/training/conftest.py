"""One small training for the tests of this folder."""

from tests.core.training.small_training import best_checkpoint, make_spec, one_thread, series, short, trained

__all__ = ["best_checkpoint", "make_spec", "one_thread", "series", "short", "trained"]
