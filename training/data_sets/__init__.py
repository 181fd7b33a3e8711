"""Readers for the two papers' own data, as users have them on disk. Nothing is downloaded."""

from training.data_sets.cifar100 import read_cifar100
from training.data_sets.glands import read_glands
from training.data_sets.imagenet import ImageNetValidation, read_imagenet
from training.data_sets.timit import Utterance, read_timit

__all__ = [
    "ImageNetValidation",
    "Utterance",
    "read_cifar100",
    "read_glands",
    "read_imagenet",
    "read_timit",
]
