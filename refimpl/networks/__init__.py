"""The flagship networks as float32 graphs, and how to chain graphs."""

from refimpl.networks.chain import chain
from refimpl.networks.fine_tune import fine_tune
from refimpl.networks.tomogan import tomogan
from refimpl.networks.weights import load_weights

__all__ = ["chain", "fine_tune", "load_weights", "tomogan"]
