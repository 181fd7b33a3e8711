"""Readers for the papers' own data sets, on tiny files in the published layouts."""

from __future__ import annotations

import io
import pickle
import wave
from pathlib import Path

import numpy as np
import pytest

from karat24.refimpl.errors import UsageError
from training.data_sets import read_cifar100, read_glands, read_imagenet, read_timit
from training.data_sets.imagenet import MEANS

RANDOM = np.random.default_rng(5)


@pytest.mark.parametrize(
    ("read", "name", "source"),
    [
        (lambda folder: read_cifar100(folder, "train"), "CIFAR-100", "cs.toronto.edu"),
        (lambda folder: read_glands(folder, "train"), "MICCAI glands", "warwick.ac.uk"),
        (read_imagenet, "ImageNet", "image-net.org"),
        (lambda folder: read_timit(folder, "TRAIN"), "TIMIT", "LDC93S1"),
    ],
)
def test_a_missing_data_set_is_one_line(read, name: str, source: str, tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(UsageError) as caught:
            read(folder)
        text = str(caught.value)
        assert text.startswith(f"{name}: {folder} holds no ")
        assert source in text
        assert "\n" not in text


# ---- CIFAR-100 ----


def cifar_records(number: int = 3) -> tuple[np.ndarray, list[int]]:
    return RANDOM.integers(0, 256, (number, 3072), np.uint8), [99, 0, 41][:number]


def test_cifar_in_its_binary_form(tmp_path: Path) -> None:
    pixels, labels = cifar_records()
    place = tmp_path / "cifar-100-binary"
    place.mkdir()
    records = [bytes([7, label]) + row.tobytes() for label, row in zip(labels, pixels, strict=True)]
    (place / "train.bin").write_bytes(b"".join(records))
    for folder in (tmp_path, place):
        images, found = read_cifar100(folder, "train")
        assert found.tolist() == labels
        assert (images.shape, images.dtype) == ((3, 32, 32, 3), np.float32)
        # The second row, third pixel: red, 1024 bytes on green, then blue.
        assert np.array_equal(images[1, 1, 2] * 255, pixels[1, [34, 34 + 1024, 34 + 2048]].astype(np.float32))


def test_cifar_as_a_pickle_equals_the_binary_form(tmp_path: Path) -> None:
    pixels, labels = cifar_records()
    content = {b"data": pixels, b"fine_labels": labels, b"coarse_labels": [1, 2, 3]}
    (tmp_path / "test").write_bytes(pickle.dumps(content, 2))  # as published, by Python 2
    images, found = read_cifar100(tmp_path, "test")
    assert found.tolist() == labels
    assert np.array_equal(images[2, 0, 0] * 255, pixels[2, [0, 1024, 2048]].astype(np.float32))


class Hostile:
    def __reduce__(self):
        return exec, ("raise SystemExit",)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (pickle.dumps(Hostile()), "it asks for builtins.exec"),
        (pickle.dumps({b"data": np.zeros((1, 9), np.uint8), b"fine_labels": [0]}), r"uint8 \[1, 9\] for 1"),
        (pickle.dumps({b"data": 1}), "not a pickle of CIFAR-100: KeyError"),
        (b"nonsense", "not a pickle of CIFAR-100"),
        (pickle.dumps({b"data": np.zeros((1, 3072), np.uint8), b"fine_labels": [0.5]}), "labels are float64"),
        (pickle.dumps({b"data": np.zeros((1, 3072), np.uint8), b"fine_labels": [[1]]}), r"int64 \[1, 1\]"),
        (pickle.dumps({b"data": np.zeros((1, 3072), np.uint8), b"fine_labels": [100]}), "from 100 to 100"),
    ],
)
def test_a_forged_pickle_runs_no_code(content: bytes, said: str, tmp_path: Path) -> None:
    (tmp_path / "train").write_bytes(content)
    with pytest.raises(UsageError, match=said):
        read_cifar100(tmp_path, "train")


def test_a_torn_binary_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "train.bin").write_bytes(bytes(3074 + 5))
    with pytest.raises(UsageError, match="3079 bytes are not a whole number of records of 3074"):
        read_cifar100(tmp_path, "train")


# ---- glands ----


def bmp(path: Path, values: np.ndarray) -> None:
    pytest.importorskip("PIL", reason="Pillow is not installed")
    from PIL import Image

    path.parent.mkdir(exist_ok=True)
    Image.fromarray(values).save(path)


@pytest.mark.parametrize("inner", ["", "Warwick QU Dataset (Released 2016_07_08)"])
def test_glands_in_the_order_of_their_numbers(inner: str, tmp_path: Path) -> None:
    place = tmp_path / inner
    pictures = {number: RANDOM.integers(0, 256, (4, 6, 3), np.uint8) for number in (10, 2)}
    for number, picture in pictures.items():
        bmp(place / f"train_{number}.bmp", picture)
        mask = np.zeros((4, 6), np.uint8)
        mask[0, :number] = number  # glands are numbered: 2 is one, too
        bmp(place / f"train_{number}_anno.bmp", mask)
    bmp(place / "testA_1.bmp", pictures[2])
    found = read_glands(tmp_path, "train")
    assert [int(mask.sum()) for _, mask in found] == [2, 6]
    assert np.array_equal(found[0][0] * 255, pictures[2].astype(np.float32))
    with pytest.raises(UsageError, match=r"testA_1\.bmp: has no mask testA_1_anno\.bmp"):
        read_glands(tmp_path, "testA")
    bmp(place / "testA_1_anno.bmp", np.zeros((4, 5), np.uint8))
    with pytest.raises(UsageError, match=r"\(4, 6\), and its mask \(4, 5\)"):
        read_glands(tmp_path, "testA")
    (place / "train_2.bmp").write_bytes(b"no picture")
    with pytest.raises(UsageError, match=r"train_2\.bmp: not a readable picture"):
        read_glands(tmp_path, "train")


def test_glands_in_colours_of_a_palette(tmp_path: Path) -> None:
    """A gland's number counts, not how bright the palette paints it: 1 may be as black as 0."""
    image = pytest.importorskip("PIL.Image", reason="Pillow is not installed")
    bmp(tmp_path / "train_1.bmp", np.zeros((2, 3, 3), np.uint8))
    numbers = np.array([[0, 1, 2], [0, 0, 1]], np.uint8)
    mask = image.fromarray(numbers).convert("P")
    mask.putpalette([0, 0, 0, 0, 0, 0, 255, 0, 0] + [9] * 759)
    mask.putdata(numbers.reshape(-1).tolist())
    mask.save(tmp_path / "train_1_anno.bmp")
    ((_, found),) = read_glands(tmp_path, "train")
    assert np.array_equal(found, numbers > 0)


# ---- ImageNet ----


def test_imagenet_as_released(tmp_path: Path) -> None:
    grey = np.full((300, 400, 3), (10, 20, 30), np.uint8)
    for number in (1, 3):
        bmp(tmp_path / "val" / f"ILSVRC2012_val_{number:08}.JPEG", grey)
    with pytest.raises(UsageError, match="development kit"):
        read_imagenet(tmp_path)
    truth = tmp_path / "ILSVRC2012_validation_ground_truth.txt"
    truth.write_text("490\n361\n1000\n")
    found = read_imagenet(tmp_path)
    assert found.labels == (490, 1000)  # the second image is not there, the third keeps its own label
    assert found.kit_numbers
    (first, label), _ = found.vgg_inputs()
    assert (first.shape, label) == ((1, 224, 224, 3), 490)
    assert np.abs(first[0, 100, 100] - (np.array([30, 20, 10]) - MEANS)).max() <= 2  # JPEG
    truth.write_text("490\n361\n")
    with pytest.raises(UsageError, match=r"2 labels, and ILSVRC2012_val_00000003\.JPEG has none"):
        read_imagenet(tmp_path)
    truth.write_text("490\n1001\n7\n")
    with pytest.raises(UsageError, match="other words than numbers from 1 to 1000"):
        read_imagenet(tmp_path)


def test_imagenet_sorted_into_classes(tmp_path: Path) -> None:
    names = [f"n{number:08}" for number in range(1000, 2000)]
    for name in names:
        (tmp_path / name).mkdir()
    for name in (names[7], names[3]):
        bmp(tmp_path / name / "ILSVRC2012_val_00000293.JPEG", np.zeros((8, 8, 3), np.uint8))
    found = read_imagenet(tmp_path)
    assert [path.parent.name for path in found.paths] == [names[3], names[7]]
    assert found.labels == (3, 7)
    assert not found.kit_numbers
    # A part of the classes would be counted from 0 as well, and every label be wrong.
    (tmp_path / names[0]).rmdir()
    with pytest.raises(UsageError, match="holds 999 folders of classes, and ImageNet has 1000"):
        read_imagenet(tmp_path)


def test_imagenet_twice_or_with_other_names(tmp_path: Path) -> None:
    (tmp_path / "ILSVRC2012_validation_ground_truth.txt").write_text("490\n361\n")
    for name in ("a", "b"):
        bmp(tmp_path / name / "ILSVRC2012_val_00000002.JPEG", np.zeros((8, 8, 3), np.uint8))
    with pytest.raises(UsageError, match="holds image 2 2 times"):
        read_imagenet(tmp_path)
    (tmp_path / "b" / "ILSVRC2012_val_00000002.JPEG").rename(tmp_path / "b" / "ILSVRC2012_val_copy.JPEG")
    assert read_imagenet(tmp_path).labels == (361,)
    bmp(tmp_path / "b" / "ILSVRC2012_val_00000000.JPEG", np.zeros((8, 8, 3), np.uint8))
    with pytest.raises(UsageError, match="counted from 1"):  # not the last label
        read_imagenet(tmp_path)
    (tmp_path / "ILSVRC2012_validation_ground_truth.txt").write_text("490\n²\n", encoding="utf-8")
    with pytest.raises(UsageError, match="other words than numbers"):  # a digit that int() refuses
        read_imagenet(tmp_path)


# ---- TIMIT ----


def sphere(samples: np.ndarray, **changes: str) -> bytes:
    fields = {
        "channel_count": "-i 1", "sample_count": f"-i {len(samples)}", "sample_rate": "-i 16000",
        "sample_n_bytes": "-i 2", "sample_byte_format": "-s2 01", "speaker_id": "-s4 cjf0",
    } | changes  # fmt: skip
    lines = "".join(f"{name} {value}\n" for name, value in fields.items())
    return (
        f"NIST_1A\n   1024\n{lines}end_head\n".encode("latin-1").ljust(1024) + samples.astype("<i2").tobytes()
    )


def riff(samples: np.ndarray) -> bytes:
    stream = io.BytesIO()
    with wave.open(stream, "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(16000)
        sound.writeframes(samples.astype("<i2").tobytes())
    return stream.getvalue()


SAMPLES = RANDOM.integers(-3000, 3000, 100).astype(np.int16)


def sentence(folder: Path, suffixes: tuple[str, str, str] = (".WAV", ".PHN", ".WRD")) -> Path:
    place = folder / "TIMIT" / "TRAIN" / "DR1" / "FCJF0"
    place.mkdir(parents=True)
    (place / f"SA1{suffixes[0]}").write_bytes(sphere(SAMPLES))
    (place / f"SA1{suffixes[1]}").write_text("0 40 h#\n40 101 sh\n")
    (place / f"SA1{suffixes[2]}").write_text("40 90 she had\n")
    return place


def test_timit_with_sphere_headers(tmp_path: Path) -> None:
    sentence(tmp_path)
    (found,) = read_timit(tmp_path, "TRAIN")
    assert (found.dialect, found.speaker, found.sentence) == ("DR1", "FCJF0", "SA1")
    assert np.array_equal(found.samples, SAMPLES)
    assert found.phonemes == ((0, 40, "h#"), (40, 100, "sh"))  # the last one is cut at the end of the sound
    assert found.words == ((40, 90, "she had"),)
    with pytest.raises(UsageError, match=r"TIMIT: .* holds no folder TEST"):
        read_timit(tmp_path, "TEST")


def test_timit_converted_to_riff_and_in_small_letters(tmp_path: Path) -> None:
    place = sentence(tmp_path, (".wav.x", ".phn", ".wrd"))
    with pytest.raises(UsageError, match=r"SA1\.phn: no SA1\.WAV beside it"):
        read_timit(tmp_path, "TRAIN")
    (place / "SA1.WAV.wav").write_bytes(riff(SAMPLES))
    (found,) = read_timit(tmp_path, "TRAIN")
    assert np.array_equal(found.samples, SAMPLES)


def test_big_endian_sound(tmp_path: Path) -> None:
    place = sentence(tmp_path)
    content = sphere(SAMPLES, sample_byte_format="-s2 10")[:1024] + SAMPLES.astype(">i2").tobytes()
    (place / "SA1.WAV").write_bytes(content)
    assert np.array_equal(read_timit(tmp_path, "TRAIN")[0].samples, SAMPLES)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"OggS", "neither a NIST nor a RIFF header"),
        (b"NIST_1A\n    xyz\n", "does not say how long"),
        (sphere(SAMPLES, sample_coding="-s26 pcm,embedded-shorten-v2.00"), "decompress with NIST's w_decode"),
        (sphere(SAMPLES, sample_rate="-i 8000"), "'sample_rate': '8000'"),
        (sphere(SAMPLES)[:-2], "198 bytes of sound, and the header says 100 samples"),
        (b"RIFF\0\0\0\0", "SA1.WAV"),
        (riff(SAMPLES)[:-2], "198 bytes of sound, and the header says 100 samples"),
        (riff(SAMPLES)[:-1], "199 bytes of sound, and the header says 100 samples"),
        (sphere(SAMPLES, sample_count="-i ²"), "the header says ² samples"),
    ],
)
def test_other_sound_is_refused(content: bytes, said: str, tmp_path: Path) -> None:
    place = sentence(tmp_path)
    (place / "SA1.WAV").write_bytes(content)
    with pytest.raises(UsageError, match=said):
        read_timit(tmp_path, "TRAIN")


@pytest.mark.parametrize("line", ["0 40", "a 40 sh", "40 40 sh", "200 300 sh", "0 ² sh"])
def test_damaged_marks_are_refused(line: str, tmp_path: Path) -> None:
    (sentence(tmp_path) / "SA1.PHN").write_text(line + "\n", encoding="utf-8")
    with pytest.raises(UsageError, match=r"SA1\.PHN"):
        read_timit(tmp_path, "TRAIN")
