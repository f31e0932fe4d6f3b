"""Small trained checkpoints for the tests of this folder."""

from tests.core.training.small_training import best_checkpoint, checkpoint_of, make_spec, one_thread, series, trained

__all__ = ["best_checkpoint", "checkpoint_of", "make_spec", "one_thread", "series", "trained"]
