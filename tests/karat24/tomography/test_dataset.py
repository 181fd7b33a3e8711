"""TomoGAN's HDF5 layout: the published files read as they are, ours read back, bad ones named in one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from karat24.refimpl.errors import FeedError, KaratError, UsageError
from karat24.refimpl.graph import Array
from karat24.tomography.imaging.dataset import NAMES, read_dataset, write_dataset
from karat24.tomography.imaging.normalize import to_bytes
from karat24.tomography.imaging.simulate import simulate_stack

h5py = pytest.importorskip("h5py")


def arrays(slices: int = 5, side: int = 64, dtype: Any = np.uint8) -> dict[str, Array]:
    rng = np.random.default_rng(0)
    return {name: rng.integers(0, 256, (slices, side, side)).astype(dtype) for name in NAMES}


def save(path: Path, content: dict[str, Array], **options: Any) -> Path:
    with h5py.File(path, "w") as file:
        for name, values in content.items():
            file.create_dataset(name, data=values, **options)
    return path


@pytest.mark.parametrize("half", ["train", "test"])
def test_the_published_layout_is_read_as_it_is(tmp_path: Path, half: str) -> None:
    content = arrays()
    pairs = read_dataset(save(tmp_path / "demo.h5", content), half)
    np.testing.assert_array_equal(to_bytes(pairs.noisy), content[f"{half}_ns"])
    np.testing.assert_array_equal(to_bytes(pairs.clean), content[f"{half}_gt"])
    assert pairs.noisy.dtype == np.float32
    np.testing.assert_array_equal(pairs.centres(), [1, 2, 3])
    window, target = pairs.window(2)
    np.testing.assert_array_equal(window, np.stack([pairs.noisy[1], pairs.noisy[2], pairs.noisy[3]], axis=-1))
    np.testing.assert_array_equal(target, pairs.clean[2])
    with pytest.raises(UsageError, match="slice 0 has no neighbours"):
        pairs.window(0)


def test_a_part_is_the_same_as_the_whole_cut(tmp_path: Path) -> None:
    path = save(tmp_path / "demo.h5", arrays(8))
    whole, part = read_dataset(path), read_dataset(path, first=2, count=4)
    np.testing.assert_array_equal(part.noisy, whole.noisy[2:6])
    np.testing.assert_array_equal(part.centres(), [1, 2])
    with pytest.raises(UsageError, match="slices 6 to 9 asked for"):
        read_dataset(path, first=6, count=4)


def test_written_sets_read_back_and_keep_samples_apart(tmp_path: Path) -> None:
    """Two samples of four slices: no window crosses from one into the other."""
    train = [simulate_stack("foam", 64, seed, slices=4, angles=20, method="fbp") for seed in (0, 1)]
    test = [simulate_stack("bone", 64, 0, split="test", slices=4, angles=20, method="fbp")]
    path = tmp_path / "ours.h5"
    write_dataset(path, train, test)
    with h5py.File(path) as file:
        assert sorted(file) == sorted(NAMES)
        assert file["train_ns"].dtype == np.uint8
        assert file["train_ns"].shape == (8, 64, 64)
    pairs = read_dataset(path, "train")
    np.testing.assert_array_equal(pairs.centres(), [1, 2, 5, 6])
    expected = np.clip(np.concatenate([stack.noisy for stack in train]), 0.0, 1.0)
    assert np.abs(pairs.noisy - expected).max() <= 0.5 / 255.0 + 1e-6
    with pytest.raises(UsageError, match="multiples of 4"):
        read_dataset(path, first=1, count=3)


@pytest.mark.parametrize("dtype", [np.float32, np.uint16])
def test_other_numbers_are_scaled_by_the_noisy_percentiles(tmp_path: Path, dtype: Any) -> None:
    content = arrays(dtype=dtype)
    content["train_gt"] = content["train_ns"] // 2
    pairs = read_dataset(save(tmp_path / "own.h5", content))
    assert np.percentile(pairs.noisy, [1, 99]) == pytest.approx([0.1, 0.9], abs=0.01)
    slope = (pairs.clean.max() - pairs.clean.min()) / (pairs.noisy.max() - pairs.noisy.min())
    assert slope == pytest.approx(0.5, abs=0.01)  # clean keeps its relation to noisy


def refuse(path: Path, **options: Any) -> str:
    with pytest.raises(KaratError) as caught:
        read_dataset(path, **options)
    message = str(caught.value)
    assert "\n" not in message
    assert path.name in message
    return message


def test_missing_file(tmp_path: Path) -> None:
    assert "no such file" in refuse(tmp_path / "absent.h5")


def test_not_hdf5_and_truncated(tmp_path: Path) -> None:
    text = tmp_path / "text.h5"
    text.write_text("train_ns")
    assert "not a whole HDF5 file" in refuse(text)
    whole = save(tmp_path / "whole.h5", arrays()).read_bytes()
    for kept in (0, 100, len(whole) // 2, len(whole) - 1):
        cut = tmp_path / f"cut{kept}.h5"
        cut.write_bytes(whole[:kept])
        assert "not a whole HDF5 file" in refuse(cut)


def test_damaged_inside(tmp_path: Path) -> None:
    """The structure is whole but a compressed chunk is not: the read fails, not the opening."""
    path = save(tmp_path / "bits.h5", arrays(), compression="gzip", chunks=(1, 64, 64))
    with h5py.File(path) as file:
        chunk = file["train_ns"].id.get_chunk_info(2)
    content = bytearray(path.read_bytes())
    content[chunk.byte_offset : chunk.byte_offset + chunk.size] = b"\xff" * chunk.size
    path.write_bytes(content)
    assert "train_ns cannot be read" in refuse(path)


def test_missing_names_lists_what_is_there(tmp_path: Path) -> None:
    content = arrays()
    content["noisy"] = content.pop("train_ns")
    message = refuse(save(tmp_path / "names.h5", content))
    assert "no data set named 'train_ns'" in message
    assert "noisy" in message.split("holds")[1]


def test_a_group_in_place_of_a_data_set(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "group.h5", "w") as file:
        file.create_group("train_ns")
    assert "'train_ns' is a group" in refuse(tmp_path / "group.h5")


@pytest.mark.parametrize(
    ("shape", "says"),
    [
        ((5, 64, 64, 1), "expected three dimensions"),
        ((64, 64), "expected three dimensions"),
        ((2, 64, 64), "holds 2 slices"),
        ((5, 63, 64), "images of 63×64"),
        ((0, 64, 64), "holds 0 slices"),
    ],
)
def test_wrong_dimensions(tmp_path: Path, shape: tuple[int, ...], says: str) -> None:
    content = {name: np.zeros(shape, np.uint8) for name in NAMES}
    assert says in refuse(save(tmp_path / "shape.h5", content))


def test_noisy_and_clean_of_different_shape(tmp_path: Path) -> None:
    content = arrays()
    content["train_gt"] = content["train_gt"][:4]
    assert "every noisy slice needs its clean one" in refuse(save(tmp_path / "pair.h5", content))


@pytest.mark.parametrize("name", ["train_ns", "train_gt"])
def test_nan_names_the_first_place(tmp_path: Path, name: str) -> None:
    content = arrays(dtype=np.float32)
    content[name][3, 20, 30] = np.nan
    message = refuse(save(tmp_path / "nan.h5", content), first=1)
    assert f"{name} holds 1 values that are NaN" in message
    assert "slice 3, row 20, column 30" in message


def test_text_is_no_image(tmp_path: Path) -> None:
    content = {name: np.full((3, 64, 64), b"x") for name in NAMES}
    assert "expected uint8" in refuse(save(tmp_path / "text.h5", content))


@pytest.mark.parametrize("value", [2, "three", [3, 3]])
def test_a_senseless_group_is_refused(tmp_path: Path, value: Any) -> None:
    path = save(tmp_path / "group.h5", arrays())
    with h5py.File(path, "a") as file:
        file.attrs["slices_per_sample"] = value
    assert "slices_per_sample" in refuse(path)


def test_unknown_half_and_unequal_stacks(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="half is 'val'"):
        read_dataset(tmp_path / "x.h5", "val")
    small, large = (simulate_stack("foam", size, 0, angles=16, method="fbp") for size in (64, 72))
    with pytest.raises(FeedError, match="all of one shape"):
        write_dataset(tmp_path / "x.h5", [small], [large])
    with pytest.raises(FeedError, match="0 test stacks"):
        write_dataset(tmp_path / "x.h5", [small], [])
