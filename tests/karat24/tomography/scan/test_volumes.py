"""Reading volumes: their order, what is refused, and equal values whatever the format."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from karat24.refimpl.errors import FeedError, KaratError, UsageError
from karat24.tomography.scan.volumes import Source, open_volume
from karat24.tomography.scan.volumes.series import in_order
from tests.support.scans import noisy_volume, write_folder

tifffile = pytest.importorskip("tifffile", reason="tifffile is not installed")
h5py = pytest.importorskip("h5py", reason="h5py is not installed")
zarr = pytest.importorskip("zarr", reason="zarr is not installed")


def read_all(path: Path, dataset: str | None = None, axis: int = 0) -> np.ndarray:
    volume = open_volume(Source(path, dataset, axis))
    return np.stack([volume.read(index) for index in range(volume.about.shape[0])])


def test_files_are_in_the_order_of_their_numbers() -> None:
    """As text, 1000 comes before 998; digits may grow within a series."""
    assert in_order("f", ["s_1000.tif", "s_998.tif", "s_999.tif"], False) == [
        "s_998.tif", "s_999.tif", "s_1000.tif",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["s_1.tif", "s_2.tif", "s_5.tif"], "2 of the slices 1 to 5 are missing: 3 to 4"),
        (["s_1.tif", "s_01.tif"], "s_01.tif and s_1.tif have the same number"),
        (["s_1.tif", "s_1-1.tif", "s_2.tif"], "2 series, 2 named s_#.tif and 1 named s_#-#.tif"),
        (["s_1.tif", "s_2.tiff"], "2 series"),
        (["a1_b1.tif", "a2_b2.tif"], "differ in 2 numbers"),
    ],
    ids=["gap", "equal numbers", "a repeated run's second set", "two suffixes", "two counters"],
)
def test_a_doubtful_order_is_refused(names: list[str], message: str) -> None:
    with pytest.raises(FeedError, match=re.escape(message)):
        in_order("folder", names, False)


def test_a_gap_may_be_allowed() -> None:
    assert in_order("folder", ["s_1.tif", "s_5.tif"], True) == ["s_1.tif", "s_5.tif"]


def formats(folder: Path, volume: np.ndarray) -> dict[str, tuple[Path, str | None, int]]:
    """The volume in every format that is read: path, array, axis."""
    write_folder(folder / "tiff", volume, 95)
    tifffile.imwrite(folder / "pages.tif", volume, photometric="minisblack")
    tifffile.imwrite(folder / "big.tif", volume, photometric="minisblack", bigtiff=True, byteorder=">")
    tifffile.imwrite(folder / "imagej.tif", volume, imagej=True, metadata={"axes": "ZYX"})
    np.save(folder / "v.npy", volume)
    with h5py.File(folder / "v.h5", "w") as file:
        file["exchange/data"] = volume
        file["exchange/theta_of_another"] = np.arange(3)
    with h5py.File(folder / "across.h5", "w") as file:
        file["data"] = volume.transpose(1, 0, 2)
        file["other"] = volume
    for version in (2, 3):
        array = zarr.create_array(
            folder / f"v{version}.zarr", shape=volume.shape, dtype=volume.dtype, chunks=(2, 64, 64),
            zarr_format=version,
        )  # fmt: skip
        array[:] = volume
    return {
        "TIFF folder": (folder / "tiff", None, 0),
        "pages": (folder / "pages.tif", None, 0),
        "BigTIFF, big-endian": (folder / "big.tif", None, 0),
        "ImageJ": (folder / "imagej.tif", None, 0),
        ".npy": (folder / "v.npy", None, 0),
        "HDF5": (folder / "v.h5", None, 0),
        "HDF5, slices along axis 1": (folder / "across.h5", "data", 1),
        "Zarr 2": (folder / "v2.zarr", None, 0),
        "Zarr 3": (folder / "v3.zarr", None, 0),
    }


def test_every_format_gives_equal_values(tmp_path: Path) -> None:
    volume = noisy_volume(6)
    for name, (path, dataset, axis) in formats(tmp_path, volume).items():
        found = read_all(path, dataset, axis)
        assert found.dtype == np.float32, name
        np.testing.assert_array_equal(found, volume, err_msg=name)


def test_mrc_gives_equal_values_and_its_voxel_size(tmp_path: Path) -> None:
    mrcfile = pytest.importorskip("mrcfile", reason="mrcfile is not installed")
    volume = noisy_volume(2)
    with mrcfile.new(tmp_path / "v.mrc") as file:
        file.set_data(volume)
        file.voxel_size = 5000.0  # ångström
    np.testing.assert_array_equal(read_all(tmp_path / "v.mrc"), volume)
    voxel = open_volume(Source(tmp_path / "v.mrc")).about.voxel
    assert voxel == pytest.approx((0.5, 0.5, 0.5))


def test_voxel_sizes_of_tiff_files(tmp_path: Path) -> None:
    volume = noisy_volume(2)
    options = {"resolution": (5000.0, 2500.0), "photometric": "minisblack"}  # pixels along x and y
    tifffile.imwrite(tmp_path / "cm.tif", volume, resolutionunit="CENTIMETER", **options)
    assert open_volume(Source(tmp_path / "cm.tif")).about.voxel == pytest.approx((0, 4.0, 2.0))
    imagej = {"axes": "ZYX", "spacing": 3.0, "unit": "um"}
    tifffile.imwrite(tmp_path / "ij.tif", volume, imagej=True, resolution=(0.5, 0.25), metadata=imagej)
    assert open_volume(Source(tmp_path / "ij.tif")).about.voxel == pytest.approx((3.0, 4.0, 2.0))


def refusal(path: Path, dataset: str | None = None, axis: int = 0) -> str:
    """The one line that says why a volume cannot be read."""
    with pytest.raises(KaratError) as caught:
        read_all(path, dataset, axis)
    return " ".join(str(caught.value).split())


def test_slices_that_are_not_alike(tmp_path: Path) -> None:
    volume = noisy_volume(3)
    folder = write_folder(tmp_path / "a", volume)
    tifffile.imwrite(folder / "recon_00001.tiff", volume[1, :-1])
    assert "recon_00001.tiff holds 63 × 64 pixels of float32 and" in refusal(folder)
    tifffile.imwrite(folder / "recon_00001.tiff", volume[1].astype(np.float16))
    assert "recon_00001.tiff holds 64 × 64 pixels of float16" in refusal(folder)
    tifffile.imwrite(folder / "recon_00001.tiff", np.zeros((64, 64, 3), np.uint8), photometric="rgb")
    assert "a slice is grey" in refusal(folder)


@pytest.mark.parametrize("kept", [0, 6, 60, 4000], ids=["nothing", "a header", "no pixels", "some pixels"])
def test_a_tiff_file_cut_short(tmp_path: Path, kept: int) -> None:
    folder = write_folder(tmp_path / "a", noisy_volume(2))
    path = folder / "recon_00001.tiff"
    path.write_bytes(path.read_bytes()[:kept])
    assert "recon_00001.tiff" in refusal(folder)


def test_hdf5_that_is_no_volume(tmp_path: Path) -> None:
    volume = noisy_volume(4)
    with h5py.File(tmp_path / "two.h5", "w") as file:
        file["a"], file["b"] = volume, volume
    assert "2 arrays of three dimensions; name one with --dataset: a (4, 64, 64)" in refusal(
        tmp_path / "two.h5"
    )
    assert "no array 'c'" in refusal(tmp_path / "two.h5", "c")
    content = (tmp_path / "two.h5").read_bytes()
    (tmp_path / "cut.h5").write_bytes(content[: len(content) // 2])
    assert "not a whole HDF5 file" in refusal(tmp_path / "cut.h5")
    with h5py.File(tmp_path / "complex.h5", "w") as file:
        file["a"] = volume.astype(np.complex64)
    assert "holds complex64" in refusal(tmp_path / "complex.h5", "a")


def test_a_virtual_array_whose_part_is_missing(tmp_path: Path) -> None:
    """HDF5 itself would give zeros in the place of a part that was not copied."""
    volume = noisy_volume(4)
    layout = h5py.VirtualLayout(volume.shape, np.float32)
    for part in (0, 2):
        with h5py.File(tmp_path / f"p{part}.h5", "w") as file:
            file["d"] = volume[part : part + 2]
        layout[part : part + 2] = h5py.VirtualSource(f"p{part}.h5", "d", (2, 64, 64))
    with h5py.File(tmp_path / "v.h5", "w") as file:
        file.create_virtual_dataset("exchange/data", layout)
    np.testing.assert_array_equal(read_all(tmp_path / "v.h5"), volume)
    (tmp_path / "p2.h5").unlink()
    assert "the part p2.h5 is missing" in refusal(tmp_path / "v.h5")


def test_raw_scans_are_refused_by_name(tmp_path: Path) -> None:
    """Restored slice by slice, projections would give pictures that look plausible and mean nothing."""
    volume = noisy_volume(4)
    with h5py.File(tmp_path / "dx.h5", "w") as file:
        file["exchange/data"] = volume
        file["exchange/data_white"] = volume
    assert "holds projections, not slices (DXchange" in refusal(tmp_path / "dx.h5", "exchange/data")
    with h5py.File(tmp_path / "axes.h5", "w") as file:
        file["exchange/data"] = volume
        file["exchange/data"].attrs["axes"] = "theta:y:x"
    assert "karat24 reconstruct" in refusal(tmp_path / "axes.h5")
    with h5py.File(tmp_path / "nx.nxs", "w") as file:
        file["entry/instrument/detector/data"] = volume
        file["entry/instrument/detector/image_key"] = np.zeros(4, int)
    assert "NXtomo" in refusal(tmp_path / "nx.nxs")


def test_what_is_no_volume(tmp_path: Path) -> None:
    assert "no such file" in refusal(tmp_path / "absent")
    (tmp_path / "empty").mkdir()
    assert "holds no TIFF file" in refusal(tmp_path / "empty")
    (tmp_path / "a.txt").write_text("x")
    assert "no known kind of volume" in refusal(tmp_path / "a.txt")
    np.save(tmp_path / "flat.npy", np.zeros((4, 4)))
    assert "three dimensions" in refusal(tmp_path / "flat.npy")
    np.save(tmp_path / "none.npy", np.zeros((4, 0, 4)))
    assert "at least one slice of one pixel" in refusal(tmp_path / "none.npy")
    (tmp_path / "bad.npy").write_bytes(b"\x93NUMPY\x01\x00")
    assert "not a whole .npy file" in refusal(tmp_path / "bad.npy")


def test_a_zarr_store_that_lies(tmp_path: Path) -> None:
    root = tmp_path / "v.zarr"
    root.mkdir()
    (root / "zarr.json").write_text("{")
    assert "not a readable Zarr store" in refusal(root)
    zarr.create_array(root / "0", shape=(1, 1 << 20, 1 << 20), dtype="f4", chunks=(1, 64, 64))
    assert "at most 268,435,456 pixels" in refusal(root / "0")


def test_chunks_that_are_absent_are_pointed_out(tmp_path: Path) -> None:
    array = zarr.create_array(tmp_path / "v.zarr", shape=(4, 8, 8), dtype="f4", chunks=(1, 8, 8))
    array[:2] = 1
    (remark,) = open_volume(Source(tmp_path / "v.zarr")).about.remarks
    assert remark.startswith("2 of 4 chunks are absent")


def test_options_that_do_not_go_with_a_format(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "a", noisy_volume(2))
    for source in (Source(folder, "data"), Source(folder, None, 1)):
        with pytest.raises(UsageError):
            open_volume(source)


@pytest.mark.parametrize(
    "attributes",
    [
        {"ome": []},
        {
            "ome": {
                "multiscales": [{"datasets": [{"path": "0", "coordinateTransformations": [[]]}], "axes": []}]
            }
        },
        {"ome": {"multiscales": [None]}},
        {"ome": {"multiscales": 7}},
    ],
)
def test_an_image_of_zarr_described_wrongly(tmp_path: Path, attributes: dict[str, object]) -> None:
    group = zarr.open_group(tmp_path / "v.zarr", mode="w")
    group.create_array("0", data=noisy_volume(2, 8))
    group.attrs.update(attributes)
    assert "not a readable Zarr store" in refusal(tmp_path / "v.zarr")


def test_the_voxel_of_a_level_that_is_named(tmp_path: Path) -> None:
    group = zarr.open_group(tmp_path / "v.zarr", mode="w")
    for name in ("0", "1"):
        group.create_array(name, data=noisy_volume(2, 8))
    axes = [{"name": name, "type": "space", "unit": "micrometer"} for name in "zyx"]
    level = {"path": "0", "coordinateTransformations": [{"type": "scale", "scale": [3.0, 2.0, 1.5]}]}
    group.attrs["ome"] = {"version": "0.5", "multiscales": [{"axes": axes, "datasets": [level]}]}
    for dataset in (None, "0", "/0"):
        assert open_volume(Source(tmp_path / "v.zarr", dataset)).about.voxel == (3.0, 2.0, 1.5)
    assert open_volume(Source(tmp_path / "v.zarr", "1")).about.voxel is None  # the scale is not that one's


def test_a_header_of_npy_that_python_cannot_read(tmp_path: Path) -> None:
    """It is read as an expression: an open bracket is an error of the tokenizer, which is no ValueError."""
    header = b"{'descr': ((('<f4', "
    header += b" " * (117 - len(header)) + b"\n"
    (tmp_path / "v.npy").write_bytes(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header)
    assert "not a whole .npy file" in refusal(tmp_path / "v.npy")
