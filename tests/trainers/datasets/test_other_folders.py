"""Folders as other people have them: published splits, machine-made files, other formats."""

import os
import warnings

import numpy as np
import pytest
from PIL import Image

from trainers.datasets import load, pipeline
from trainers.datasets.folder import DataWarning, named_splits, read_folder, read_splits


def noise(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape or (9, 8), dtype=np.uint8)


def blobs(height, width, seed):
    """Something with structure, as photographs have it."""
    coarse = Image.fromarray(noise(7, 9, seed=seed))
    return np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC))


def save(path, array=None, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    seed = sum(os.fsencode(path.name))
    Image.fromarray(noise(seed=seed) if array is None else array).save(path, **options)


def names_of(splits):
    return {split: [picture.name for picture in part] for split, part in splits.items()}


def test_published_splits_are_taken(tmp_path):
    """As BSDS500 is unpacked: the ground truth beside the pictures names splits as well."""
    for split in ("train", "val", "test"):
        save(tmp_path / f"BSDS500/data/images/{split}/{split}.jpg")
        truth = tmp_path / f"BSDS500/data/groundTruth/{split}"
        truth.mkdir(parents=True)
        (truth / "1.mat").write_bytes(b"")
    names = {split: f"images/{split[:5]}" for split in ("train", "test")} | {
        "validation": "images/val"
    }
    for folder, above in ((tmp_path, "BSDS500/data/"), (tmp_path / "BSDS500" / "data", "")):
        found = names_of(read_splits(folder))
        assert found == {
            split: [f"{above}{name}/{name.split('/')[1]}.jpg"] for split, name in names.items()
        }


def test_a_split_that_was_not_published_is_cut_from_the_training_pictures(tmp_path):
    for number in range(5):
        save(tmp_path / f"DIV2K_train_HR/{number}.png")
        save(tmp_path / f"DIV2K_valid_HR/v{number}.png")
    with pytest.warns(DataWarning, match="train and validation only: 1 for test are cut at random"):
        splits = names_of(read_splits(tmp_path))
    assert splits["validation"] == [f"DIV2K_valid_HR/v{number}.png" for number in range(5)]
    assert len(splits["test"]) == 1
    expected = [f"DIV2K_train_HR/{number}.png" for number in range(5)]
    assert sorted(splits["train"] + splits["test"]) == expected
    save(tmp_path / "DIV2K_train_LR" / "0.png")
    with pytest.raises(ValueError, match="'DIV2K_train_HR' and 'DIV2K_train_LR' .* for train"):
        read_splits(tmp_path)


@pytest.mark.parametrize(
    ("train", "test"),
    [("TrainingSet", "TestSet"), ("trainset", "testset"), ("TrainImages", "TEST")],
)
def test_splits_whose_names_are_written_as_one_word(tmp_path, train, test):
    for number in range(3):
        save(tmp_path / f"{train}/{number}.png")
        save(tmp_path / f"{test}/t{number}.png")
    with pytest.warns(DataWarning, match="1 for validation are cut at random"):
        splits = names_of(read_splits(tmp_path))
    assert splits["test"] == [f"{test}/t{number}.png" for number in range(3)]


def test_a_word_in_a_name_of_an_album_makes_no_split(tmp_path):
    for name in ("train trip/a.png", "lake/b.png", "lake/test.png"):
        save(tmp_path / name)
    assert named_splits(tmp_path) == {}
    assert sum(len(part) for part in read_splits(tmp_path).values()) == 3


def test_what_machines_put_beside_pictures_is_passed_over(tmp_path):
    save(tmp_path / "p0.jpg")
    for other in (
        "@eaDir/p0.jpg/SYNOPHOTO_THUMB_XL.jpg",
        "#recycle/p1.jpg",
        "$RECYCLE.BIN/p1.jpg",
        "__MACOSX/p0.jpg",
        ".thumbnails/p0.jpg",
    ):
        save(tmp_path / other)
    (tmp_path / "._p0.jpg").write_bytes(b"AppleDouble")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert [picture.name for picture in read_folder(tmp_path)] == ["p0.jpg"]


def test_pictures_that_look_alike_in_two_splits_are_named(tmp_path):
    for split in ("train", "val", "test"):
        for number in range(4):
            seed = number + 10 * len(split)
            save(tmp_path / split / f"{number}.png", blobs(120, 160, seed))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read_splits(tmp_path)
    save(tmp_path / "train" / "thumb.jpg", blobs(120, 160, 42)[::2, ::2], quality=50)
    with pytest.warns(DataWarning, match=r"1 pairs.*'train/thumb\.jpg' of train and 'test/2\.png'"):
        read_splits(tmp_path)


def test_a_name_that_is_not_utf8_is_read_and_can_be_printed(tmp_path):
    for number in range(3):
        save(tmp_path / f"{number}.png")
    odd = os.fsencode(tmp_path) + b"/caf\xe9.png"
    try:
        os.rename(os.fsencode(tmp_path / "0.png"), odd)
    except OSError:
        pytest.skip("this file system has UTF-8 names only")
    splits = names_of(read_splits(tmp_path))
    assert "caf\\xe9.png" in sum(splits.values(), [])
    with open(odd, "wb") as file:
        file.write(b"no picture")
    with pytest.raises(ValueError, match=r"caf\\xe9\.png: cannot be read"):
        read_splits(tmp_path)


@pytest.mark.parametrize("ending", ["tif", "TIFF", "bmp", "jfif", "webp", "pgm"])
def test_other_formats_are_read(tmp_path, ending):
    values = blobs(24, 32, seed=1)
    options = {"quality": 95} if ending in ("jfif", "webp") else {}
    save(tmp_path / f"a.{ending}", values, **options)
    [picture] = read_folder(tmp_path)
    error = np.abs(picture.array[..., 0].astype(int) - values).max()
    assert error <= (8 if options else 0)


def test_formats_that_are_not_read_are_counted_and_named(tmp_path):
    save(tmp_path / "a.png")
    for name in ("b.heic", "c.HEIC", "d.gif", "notes.txt"):
        (tmp_path / name).write_bytes(b"")
    with pytest.warns(DataWarning, match=r"2 \.heic \(b\.heic\), 1 \.gif \(d\.gif\)\. The 1 other"):
        read_folder(tmp_path)


def test_floating_point_pictures_are_read_right_or_refused_by_name(tmp_path):
    values = np.random.default_rng(0).uniform(size=(9, 8)).astype(np.float32)
    save(tmp_path / "a.png", values, format="TIFF")
    [picture] = read_folder(tmp_path)
    np.testing.assert_array_equal(picture.array[..., 0], np.rint(255 * values))
    save(tmp_path / "counts.tif", 300 * values)
    save(tmp_path / "holes.tif", np.where(values > 0.1, values, np.nan))
    save(tmp_path / "wide.tif", (1e6 * values).astype(np.int32))
    message = r"(?s)counts\.tif: holds float.*holes\.tif: .*nan.*wide\.tif: holds integers .*of 32"
    with pytest.raises(ValueError, match=message):
        read_folder(tmp_path)


def test_a_file_of_several_pictures_is_refused(tmp_path):
    pages = [Image.fromarray(noise(seed=seed)) for seed in (1, 2)]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:])
    with pytest.raises(ValueError, match=r"a\.tif: holds 2 pictures"):
        read_folder(tmp_path)


def test_a_picture_with_very_many_pixels(tmp_path):
    """Not called corrupt; and Pillow's own limit is not in the way of ours."""
    save(tmp_path / "large.png", noise(40, 50))
    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, 500
    try:
        with pytest.raises(ValueError, match=r"large\.png: has 40 x 50.*`max_pixels` to 2000"):
            read_folder(tmp_path, max_pixels=1999)
        assert read_folder(tmp_path, max_pixels=2000)[0].array.shape == (40, 50, 1)
        assert Image.MAX_IMAGE_PIXELS == 500
    finally:
        Image.MAX_IMAGE_PIXELS = limit


def test_the_size_before_a_picture_was_shrunk_is_said(tmp_path):
    for number in range(3):
        save(tmp_path / f"{number}.png", noise(24, 400, seed=number))
    images = load("folder", data_dir=str(tmp_path), max_side=64)["train"]
    assert images.images[0].shape == (4, 64, 1)
    message = r"\(4 x 64, 24 x 400 before `max_side` shrank it\).*a larger `max_side`"
    with pytest.raises(ValueError, match=message):
        pipeline.training_batches(
            images, lambda truth, seed, index: truth, patch_size=16, batch_size=1, seed=0
        )
