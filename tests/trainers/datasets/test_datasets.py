"""The photographs of scikit-image and folders of pictures: what is read, and what is refused."""

import io
import json
import os
import random
import shutil
import unittest

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from trainers.datasets.folder import read_folder, read_splits
from trainers.datasets.images import to_array
from trainers.datasets.photographs import PHOTOGRAPHS, Photographs, photographs, prepare

SPLITS = {
    "train": {
        "astronaut",
        "coffee",
        "coins",
        "ihc",
        "moon",
        "motorcycle_left",
        "motorcycle_right",
    },
    "validation": {"hubble_deep_field", "rocket"},
    "test": {"camera", "chelsea", "retina"},
}


def noise_image(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def save(path, array, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path, **options)


@pytest.fixture
def tiny_wheel(tmp_path, monkeypatch):
    """Tiny pictures under the names of the real ones."""
    folder = tmp_path / "wheel"
    for number, photo in enumerate(PHOTOGRAPHS.values()):
        save(folder / photo.file, noise_image(5 + number, 7, 3, seed=number))
    monkeypatch.setattr(photographs, "wheel_folder", lambda: photographs.epath.Path(folder))
    return folder


def test_builder_passes_the_test_of_tfds(tiny_wheel):
    pytest.importorskip("dill", reason="TFDS's DatasetBuilderTestCase imports dill")

    class PhotographsTest(tfds.testing.DatasetBuilderTestCase):
        DATASET_CLASS = Photographs
        SPLITS = {split: len(names) for split, names in SPLITS.items()}
        EXAMPLE_DIR = str(tiny_wheel)

    result = unittest.TestResult()
    unittest.defaultTestLoader.loadTestsFromTestCase(PhotographsTest).run(result)
    assert result.testsRun >= 5
    assert result.failures + result.errors == []


def test_builder_on_tiny_pictures(tiny_wheel, tmp_path):
    prepare(tmp_path / "data")
    builder = tfds.builder("photographs", data_dir=tmp_path / "data")  # registered, reloaded
    seen = {}
    for split, names in SPLITS.items():
        dataset = builder.as_dataset(split=split)
        assert dataset.element_spec == builder.info.features.get_tensor_spec()
        assert builder.info.splits[split].num_examples == len(names)
        for example in tfds.as_numpy(dataset):
            name = example["name"].decode()
            assert seen.setdefault(example["image"].tobytes(), name) == name
            if PHOTOGRAPHS[name].file.endswith("png"):
                number = list(PHOTOGRAPHS).index(name)
                expected = noise_image(5 + number, 7, 3, seed=number)
                np.testing.assert_array_equal(example["image"], expected)
    assert sorted(seen.values()) == sorted(PHOTOGRAPHS)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    return prepare(tmp_path_factory.mktemp("prepared"))


def test_splits_by_photograph(prepared):
    for split, names in SPLITS.items():
        examples = list(tfds.as_numpy(prepared.as_dataset(split=split)))
        assert {example["name"].decode() for example in examples} == names
        for example in examples:
            assert example["image"].dtype == np.uint8
            assert example["image"].ndim == 3
            assert example["image"].shape[-1] == 3
            assert min(example["image"].shape[:2]) >= 300


def test_pixels_are_those_of_the_wheel(prepared):
    for example in tfds.as_numpy(prepared.as_dataset(split="test")):
        file = photographs.wheel_folder() / PHOTOGRAPHS[example["name"].decode()].file
        with Image.open(io.BytesIO(file.read_bytes())) as image:
            np.testing.assert_array_equal(example["image"], np.asarray(image.convert("RGB")))


def test_metadata(prepared):
    assert str(prepared.version) in prepared.RELEASE_NOTES
    assert "10.7717/peerj.453" in prepared.info.citation
    assert prepared.info.homepage.startswith("https://scikit-image.org")
    for name in PHOTOGRAPHS:
        assert f"{name}: " in prepared.info.redistribution_info.license


def test_prepares_once_and_without_a_word(tiny_wheel, tmp_path, capfd):
    first = prepare(tmp_path / "new" / "folder")
    stamp = {f: f.stat().st_mtime_ns for f in (tmp_path / "new").rglob("*") if f.is_file()}
    second = prepare(tmp_path / "new" / "folder")
    assert capfd.readouterr() == ("", "")
    assert first.data_path == second.data_path
    assert {f: f.stat().st_mtime_ns for f in (tmp_path / "new").rglob("*") if f.is_file()} == stamp
    assert os.listdir(tmp_path / "new" / "folder") == ["photographs"]


def test_nothing_prepared_names_the_private_folder(prepared):
    for file in ("dataset_info.json", "features.json"):
        assert "preparing_" not in json.dumps(json.loads((prepared.data_path / file).read_text()))


def test_another_process_may_be_faster(tiny_wheel, tmp_path, monkeypatch):
    folder = tmp_path / "data"
    quietly = photographs._prepare_quietly
    others = []

    def overtaken(builder):
        if not others:
            others.append(str(builder.data_path))
            state = random.getstate()
            winner = prepare(folder)  # all of it, while the first has not begun
            others.append(str(winner.data_path))
            random.setstate(state)  # as in workers with equal seeds
        quietly(builder)

    monkeypatch.setattr(photographs, "_prepare_quietly", overtaken)
    builder = prepare(folder)
    assert others[0] != others[1] == str(builder.data_path)
    assert builder.info.splits["train"].num_examples == 7
    assert len(list(builder.as_dataset(split="test"))) == 3
    assert os.listdir(folder) == ["photographs"]


def test_what_was_prepared_and_is_damaged_is_prepared_anew(tiny_wheel, tmp_path):
    cache = tmp_path / "cache"
    expected = photographs.read_splits(cache_dir=cache)
    final = cache / "photographs" / "1.0.0"
    record = next(final.glob("*test.tfrecord*"))

    def flip():
        content = bytearray(record.read_bytes())
        content[len(content) // 2] ^= 0xFF
        record.write_bytes(content)

    def empty():
        shutil.rmtree(final)
        final.mkdir()

    for damage in (flip, record.unlink, (final / "dataset_info.json").unlink, empty):
        damage()
        found = photographs.read_splits(cache_dir=cache)
        for split, pictures in expected.items():
            for one, other in zip(pictures, found[split], strict=True):
                assert one.name == other.name
                np.testing.assert_array_equal(one.array, other.array)
        assert os.listdir(cache) == ["photographs"]
    mended = {file: file.stat().st_mtime_ns for file in final.iterdir()}
    photographs.read_splits(cache_dir=cache)
    assert {file: file.stat().st_mtime_ns for file in final.iterdir()} == mended


def test_a_failure_leaves_nothing_behind(tmp_path, monkeypatch):
    monkeypatch.setattr(
        photographs, "wheel_folder", lambda: photographs.epath.Path(tmp_path / "nothing")
    )
    with pytest.raises(FileNotFoundError, match="astronaut.png.*reinstall"):
        prepare(tmp_path / "data")
    assert os.listdir(tmp_path / "data") == []


def test_without_scikit_image(monkeypatch):
    monkeypatch.setattr(photographs.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match="pip install scikit-image"):
        photographs.wheel_folder()


def test_default_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("DEQ_KERAS_DATA", str(tmp_path))
    assert photographs.default_folder() == tmp_path
    monkeypatch.delenv("DEQ_KERAS_DATA")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert photographs.default_folder() == tmp_path / ".cache" / "deq_keras" / "datasets"


# One picture.


def test_grey_is_the_luma_of_bt601():
    colour = noise_image(31, 45, 3)
    grey = to_array(Image.fromarray(colour), 1)
    assert grey.shape == (31, 45, 1)
    luma = colour @ np.array([0.299, 0.587, 0.114])
    assert np.abs(grey[..., 0] - luma).max() <= 0.5 + 1e-2


def test_grey_to_colour_and_back_changes_nothing():
    grey = np.arange(256, dtype=np.uint8).reshape(8, 32)
    colour = to_array(Image.fromarray(grey), 3)
    np.testing.assert_array_equal(colour, np.repeat(grey[..., None], 3, axis=-1))
    np.testing.assert_array_equal(to_array(Image.fromarray(colour), 1)[..., 0], grey)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16", "CMYK"])
def test_every_mode_is_read(tmp_path, mode, channels):
    levels = np.where(noise_image(9, 13) > 127, 255, 0).astype(np.uint8)  # exact in all of them
    if mode == "I;16":
        image = Image.fromarray(levels.astype(np.uint16) * 257)
    else:
        image = Image.fromarray(levels).convert(mode)
    assert image.mode == mode
    ending = "jpg" if mode == "CMYK" else "png"
    image.save(tmp_path / f"a.{ending}", **({"quality": 100} if mode == "CMYK" else {}))
    [(name, array, _)] = read_folder(tmp_path, channels)
    assert name == f"a.{ending}"
    assert array.dtype == np.uint8
    assert array.shape == (9, 13, channels)
    error = np.abs(array.astype(int) - levels[..., None]).max()
    assert error <= (3 if mode == "CMYK" else 0)


def test_sixteen_bits_are_scaled_and_rounded(tmp_path):
    levels = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    save(tmp_path / "a.png", levels)
    [(_, array, _)] = read_folder(tmp_path, 1)
    assert np.abs(array[..., 0] - levels * (255 / 65535)).max() <= 0.5


def test_transparent_pixels_are_white(tmp_path):
    picture = np.zeros((4, 4, 4), np.uint8)
    picture[:2, :, 3] = 255
    save(tmp_path / "a.png", picture)
    [(_, array, _)] = read_folder(tmp_path, 1)
    np.testing.assert_array_equal(array[:2], 0)
    np.testing.assert_array_equal(array[2:], 255)


def test_orientation_tag_is_applied(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    save(tmp_path / "a.png", noise_image(4, 9), exif=exif)
    [(_, array, _)] = read_folder(tmp_path, 1)
    np.testing.assert_array_equal(array[..., 0], np.rot90(noise_image(4, 9), -1))


def test_shrinking_keeps_proportions_and_does_not_alias():
    stripes = np.tile(np.array([0, 255], np.uint8), (61, 60))
    array = to_array(Image.fromarray(stripes), 1, max_side=40)
    assert array.shape == (20, 40, 1)
    assert np.abs(array.astype(float) - 127.5).max() < 16
    np.testing.assert_array_equal(to_array(Image.fromarray(stripes), 1, 120)[..., 0], stripes)


# A folder.


def test_folder_is_read_recursively_and_sorted(tmp_path):
    for name in ("b.PNG", "a.jpeg", "sub/deep/c.JPG", "sub/B.png", ".hidden/x.png", "._a.png"):
        save(tmp_path / name, noise_image(8, 8), format="JPEG" if "j" in name.lower() else "PNG")
    (tmp_path / "notes.txt").write_text("not a picture")
    os.symlink(tmp_path, tmp_path / "sub" / "loop")
    names = [picture.name for picture in read_folder(tmp_path)]
    assert names == ["a.jpeg", "b.PNG", "sub/B.png", "sub/deep/c.JPG"]


def test_linked_folders_are_followed(tmp_path):
    save(tmp_path / "elsewhere" / "a.png", noise_image(8, 8))
    (tmp_path / "data").mkdir()
    os.symlink(tmp_path / "elsewhere", tmp_path / "data" / "link")
    assert [picture.name for picture in read_folder(tmp_path / "data")] == ["link/a.png"]


def test_missing_folder_and_file_for_a_folder(tmp_path):
    with pytest.raises(ValueError, match="does not exist"):
        read_folder(tmp_path / "nowhere")
    save(tmp_path / "a.png", noise_image(8, 8))
    with pytest.raises(ValueError, match="is a file"):
        read_folder(tmp_path / "a.png")


def test_empty_folder_says_what_was_looked_for(tmp_path):
    (tmp_path / "picture.gif").write_bytes(b"x")
    with pytest.raises(ValueError, match=r"\.png, \.jpg, \.jpeg.*formats there are 1 \.gif"):
        read_folder(tmp_path)


@pytest.mark.parametrize("kept", [0.0, 0.02, 0.3, 0.9])
@pytest.mark.parametrize("ending", ["png", "jpg"])
def test_truncated_pictures_are_refused_by_name(tmp_path, ending, kept):
    save(tmp_path / "good.png", noise_image(40, 40))
    save(tmp_path / f"bad.{ending}", noise_image(40, 40))
    whole = (tmp_path / f"bad.{ending}").read_bytes()
    (tmp_path / f"bad.{ending}").write_bytes(whole[: int(kept * len(whole))])
    with pytest.raises(ValueError, match=rf"1 of 2 pictures.*\n  bad\.{ending}"):
        read_folder(tmp_path)


def test_damaged_pixels_are_refused(tmp_path):
    save(tmp_path / "bad.png", noise_image(40, 40))
    whole = bytearray((tmp_path / "bad.png").read_bytes())
    whole[len(whole) // 2] ^= 0xFF
    (tmp_path / "bad.png").write_bytes(whole)
    with pytest.raises(ValueError, match="bad.png"):
        read_folder(tmp_path)


def test_all_problems_are_found_before_anything_starts(tmp_path):
    save(tmp_path / "fine.png", noise_image(16, 16))
    save(tmp_path / "narrow.png", noise_image(16, 15))
    (tmp_path / "broken.jpg").write_text("no picture")
    with pytest.raises(ValueError, match=r"(?s)2 of 3.*broken\.jpg.*narrow\.png: 16 x 15"):
        read_folder(tmp_path, min_side=16)
    with pytest.raises(ValueError, match=r"3 of 3"):
        read_folder(tmp_path, min_side=17)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"channels": 2}, "channels=2"), ({"max_side": 0}, "max_side=0"), ({"max_side": 9.5}, "9.5")],
)
def test_wrong_arguments(tmp_path, options, message):
    save(tmp_path / "a.png", noise_image(8, 8))
    with pytest.raises(ValueError, match=message):
        read_folder(tmp_path, **options)


# The splits of a folder.


def fill(folder, count):
    for number in range(count):
        save(folder / f"{number:02}.png", noise_image(6, 5, seed=number))


def names_of(splits):
    return {split: [picture.name for picture in part] for split, part in splits.items()}


@pytest.mark.parametrize(
    ("count", "sizes"), [(3, (1, 1, 1)), (4, (2, 1, 1)), (10, (7, 1, 2)), (25, (18, 2, 5))]
)
def test_seeded_split(tmp_path, count, sizes):
    fill(tmp_path, count)
    splits = names_of(read_splits(tmp_path, seed=3))
    assert tuple(len(splits[split]) for split in ("train", "validation", "test")) == sizes
    assert sorted(sum(splits.values(), [])) == [f"{number:02}.png" for number in range(count)]
    assert names_of(read_splits(tmp_path, seed=3)) == splits
    assert any(names_of(read_splits(tmp_path, seed=seed)) != splits for seed in (4, 5, 6))


def test_seeded_split_of_another_copy_of_the_folder_is_the_same(tmp_path):
    fill(tmp_path / "a", 12)
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    assert names_of(read_splits(tmp_path / "a")) == names_of(read_splits(tmp_path / "b"))


@pytest.mark.parametrize("seed", range(5))
def test_equal_pictures_stay_together(tmp_path, seed):
    fill(tmp_path, 6)
    for number in range(6):
        shutil.copy(tmp_path / f"{number:02}.png", tmp_path / f"copy_{number:02}.png")
    splits = names_of(read_splits(tmp_path, seed=seed))
    for names in splits.values():
        assert {n[-6:] for n in names if n.startswith("copy_")} == {
            n for n in names if not n.startswith("copy_")
        }


def test_too_few_pictures(tmp_path):
    fill(tmp_path, 2)
    shutil.copy(tmp_path / "00.png", tmp_path / "again.png")
    with pytest.raises(ValueError, match="At least three different pictures.*Received: 2"):
        read_splits(tmp_path)


@pytest.mark.parametrize("fractions", [(0.0, 0.2), (0.1, -0.1), (0.5, 0.5)])
def test_wrong_fractions(tmp_path, fractions):
    fill(tmp_path, 5)
    with pytest.raises(ValueError, match="leave something to train on"):
        read_splits(tmp_path, validation_fraction=fractions[0], test_fraction=fractions[1])


@pytest.mark.parametrize("validation", ["validation", "val", "valid", "Val"])
def test_sub_folders_are_the_splits(tmp_path, validation):
    for number, name in enumerate(["train/b.png", "train/x/a.png", f"{validation}/c.png"]):
        save(tmp_path / name, noise_image(6, 5, seed=number))
    save(tmp_path / "test" / "d.jpg", noise_image(6, 5, seed=9))
    assert names_of(read_splits(tmp_path)) == {
        "train": ["train/b.png", "train/x/a.png"],
        "validation": [f"{validation}/c.png"],
        "test": ["test/d.jpg"],
    }


def test_sub_folders_that_leave_a_doubt(tmp_path):
    save(tmp_path / "test" / "d.png", noise_image(6, 5, seed=9))
    with pytest.raises(ValueError, match="sub-folders for test only. Expected one for train"):
        read_splits(tmp_path)
    fill(tmp_path / "train", 3)
    (tmp_path / "val").mkdir()
    with pytest.raises(ValueError, match="for validation .* holds no file"):
        read_splits(tmp_path)
    save(tmp_path / "val" / "e.png", noise_image(6, 5, seed=2))
    with pytest.raises(ValueError, match=r"'train/02.png' and 'val/e.png'.*the same pixels"):
        read_splits(tmp_path)
    save(tmp_path / "val" / "e.png", noise_image(6, 5, seed=8))
    assert names_of(read_splits(tmp_path))["validation"] == ["val/e.png"]
    save(tmp_path / "stray.png", noise_image(6, 5, seed=7))
    with pytest.raises(ValueError, match=r"'stray.png'.*in none of the sub-folders"):
        read_splits(tmp_path)
