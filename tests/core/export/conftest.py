"""Small trained checkpoints for the tests of this folder."""

from tests.core.training.small_training import checkpoint_of, make_spec, one_thread, series

__all__ = ["checkpoint_of", "make_spec", "one_thread", "series"]
