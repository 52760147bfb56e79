"""Finding, sorting and decoding image files, against Pillow and NumPy."""

import io
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from supreme.datasets.image_files import by_class, decode, is_grey, list_images, opener
from supreme.errors import DataError
from supreme.transforms import Preprocess

GOLDEN = Path(__file__).parents[1] / "golden" / "transforms"
RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (12, 10), dtype=np.uint8)
COLOUR = RNG.integers(0, 256, (12, 10, 3), dtype=np.uint8)
SIZE = (12, 10)


def encoded(image, kind="PNG", **options):
    buffer = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(buffer, kind, **options)
    return buffer.getvalue()


def fill(folder, names, array=COLOUR):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(encoded(array, "PNG"))


def layout(path):
    return by_class(list_images(path), str(path))


# Decoding ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "PPM", "TGA", "PCX", "SGI"])
def test_lossless_formats_in_colour_and_grey(kind):
    assert np.array_equal(decode(encoded(COLOUR, kind), "x", SIZE, 3), COLOUR.transpose(2, 0, 1))
    grey = encoded(GREY, kind)
    assert is_grey(grey, "x")
    assert np.array_equal(decode(grey, "x", SIZE, 1)[0], GREY)
    assert not is_grey(encoded(COLOUR, kind), "x")


@pytest.mark.parametrize("kind", ["JPEG", "WEBP"])
def test_lossy_formats_are_what_pillow_decodes(kind):
    data = encoded(COLOUR, kind)
    expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    assert np.array_equal(decode(data, "x", SIZE, 3), expected.transpose(2, 0, 1))


def test_grey_in_three_channels_is_repeated():
    assert np.array_equal(decode(encoded(GREY), "x", SIZE, 3), np.stack([GREY] * 3))


def test_sixteen_bits_are_scaled_to_eight():
    deep = RNG.integers(0, 65536, (12, 10)).astype(np.uint16)
    expected = np.floor(deep / 65535 * 255 + 0.5).astype(np.uint8)
    plain = b"P5 10 12 65535\n" + deep.astype(">u2").tobytes()
    for data in (encoded(Image.fromarray(deep)), encoded(Image.fromarray(deep), "TIFF"), plain):
        assert is_grey(data, "x")
        assert np.array_equal(decode(data, "x", SIZE, 1)[0], expected)


def test_black_and_white_palette_and_transparency():
    bits = Image.fromarray(GREY).convert("1")
    assert np.array_equal(decode(encoded(bits), "x", SIZE, 1)[0], np.asarray(bits).astype(np.uint8) * 255)
    palette = Image.fromarray(COLOUR).quantize(16)
    expected = np.asarray(palette.convert("RGB")).transpose(2, 0, 1)
    assert np.array_equal(decode(encoded(palette), "x", SIZE, 3), expected)
    assert np.array_equal(decode(encoded(palette, "GIF"), "x", SIZE, 3), expected)
    assert np.array_equal(decode(encoded(palette, transparency=b"\x00\x80"), "x", SIZE, 3), expected)
    alpha = np.dstack([COLOUR, GREY])
    assert np.array_equal(decode(encoded(alpha), "x", SIZE, 3), COLOUR.transpose(2, 0, 1))
    veiled = Image.merge("LA", [Image.fromarray(GREY), Image.fromarray(GREY[::-1].copy())])
    assert is_grey(encoded(veiled), "x")
    assert np.array_equal(decode(encoded(veiled), "x", SIZE, 1)[0], GREY)


def test_cmyk_becomes_rgb():
    picture = Image.fromarray(COLOUR).convert("CMYK")
    expected = np.asarray(picture.convert("RGB")).transpose(2, 0, 1)
    assert np.array_equal(decode(encoded(picture, "TIFF"), "x", SIZE, 3), expected)


def test_pictures_are_put_upright():
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise to view
    data = encoded(COLOUR, "PNG", exif=exif)
    assert np.array_equal(decode(data, "x", (10, 12), 3), np.rot90(COLOUR, -1).transpose(2, 0, 1))


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_damaged_exif_data_do_no_harm():
    data = encoded(COLOUR, "PNG", exif=b"Exif\x00\x00MM\x00*\x00\x00\xff\xff broken")
    assert np.array_equal(decode(data, "x", SIZE, 3), COLOUR.transpose(2, 0, 1))


def test_the_first_picture_of_an_animation():
    frames = [Image.fromarray(GREY), Image.fromarray(255 - GREY)]
    data = encoded(frames[0], "TIFF", save_all=True, append_images=frames[1:])
    assert np.array_equal(decode(data, "x", SIZE, 1)[0], GREY)


def test_resize_is_antialiased_and_height_comes_first():
    wide = RNG.integers(0, 256, (40, 90), dtype=np.uint8)
    got = decode(encoded(wide), "x", (8, 16), 1)[0]
    exact = torch.nn.functional.interpolate(
        torch.from_numpy(wide)[None, None].double(), (8, 16), mode="bilinear", antialias=True, align_corners=False
    )
    assert got.shape == (8, 16)
    assert np.abs(got - exact[0, 0].numpy()).max() < 1.01


@pytest.mark.parametrize(("name", "picture"), [("faces", "image_other_size"), ("caltech", "image_gray")])
def test_golden_published_pipeline_through_the_store_and_preprocess(name, picture):
    constants = json.loads((GOLDEN / "expected.json").read_text())["normalisation"][name]
    array = np.load(GOLDEN / "data.npz")[picture]
    stored = torch.from_numpy(decode(encoded(array), "x", (36, 36), 1 if array.ndim == 2 else 3).copy())
    got = Preprocess(tuple(constants["mean"]), tuple(constants["std"]), size=(32, 32))(stored[None])[0]
    expected = load_file(GOLDEN / "expected.safetensors")[f"{name}.{picture}"]
    torch.testing.assert_close(got, expected, rtol=0, atol=2e-6)


@pytest.mark.parametrize(
    "data",
    [b"", b"no picture", encoded(COLOUR)[:150], encoded(np.full((12, 10), 0.5, np.float32), "TIFF")],
    ids=["empty", "text", "cut", "floating point"],
)
def test_what_cannot_be_read_is_named(data):
    with pytest.raises(
        DataError, match=r"Cannot read the image some/cat.png \(\w.*\); repair or remove it\.$"
    ) as raised:
        decode(data, "some/cat.png", SIZE, 3)
    assert "<" not in str(raised.value)


def test_a_header_that_cannot_be_read_is_named():
    with pytest.raises(DataError) as raised:
        is_grey(b"GIF", "some/cat.png")
    text = "Cannot read the image some/cat.png (it is no image, or a damaged one); repair or remove it."
    assert str(raised.value) == text


# Finding ----------------------------------------------------------------------------------------


def test_only_visible_images_are_listed_in_name_order(tmp_path):
    wanted = ["a/1.png", "a/10.JPG", "a/2.pgm", "b/c/3.webp"]
    fill(tmp_path, [*wanted, "a/.4.png", ".git/5.png", "__MACOSX/6.png"])
    for name in ("README", "a/Thumbs.db", "a/notes.txt", "b/film.mpg", "b/page.eps"):
        (tmp_path / name).write_text("x")
    listing = list_images(tmp_path)
    assert [file.name for file in listing.files] == wanted
    assert listing.folders == {"a", "b", "b/c"}
    status = (tmp_path / "a" / "1.png").stat()
    assert listing.files[0][1:] == (status.st_size, status.st_mtime_ns)


def test_links_are_followed_and_circles_are_not(tmp_path):
    fill(tmp_path / "elsewhere", ["1.png"])
    fill(tmp_path / "data", ["a/1.png"])
    (tmp_path / "data" / "b").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "data" / "a" / "round").symlink_to(tmp_path / "data")
    assert [file.name for file in list_images(tmp_path / "data").files] == ["a/1.png", "b/1.png"]


def test_a_link_to_nothing_is_named(tmp_path):
    (tmp_path / "1.png").symlink_to(tmp_path / "gone.png")
    with pytest.raises(DataError, match=r"Cannot read the image .*1.png"):
        list_images(tmp_path)


def test_a_picture_that_cannot_be_fetched_is_named(tmp_path):
    path = archive(tmp_path / "x.zip", ["a/1.png"])
    data = bytearray(path.read_bytes())
    data[60] ^= 255
    path.write_bytes(bytes(data))
    with opener(path) as fetch, pytest.raises(DataError, match=r"Cannot read the image .*x.zip/a/1.png .*CRC"):
        fetch("a/1.png")
    with opener(tmp_path) as fetch, pytest.raises(DataError, match=r"Cannot read the image .*gone.png"):
        fetch("gone.png")


def archive(path, names, array=COLOUR):
    with zipfile.ZipFile(path, "w") as made:
        for name in names:
            made.writestr(name, b"" if name.endswith("/") else encoded(array))
    return path


def test_an_archive_is_listed_like_a_folder(tmp_path):
    names = ["train/a/1.png", "train/b/1.png", "test/a/1.png", "test/b/2.png", "__MACOSX/a/._1.png", "read me.txt"]
    path = archive(tmp_path / "x.zip", names)
    listing = list_images(path)
    assert [file.name for file in listing.files] == sorted(names[:4])
    assert listing.folders == {"train", "test", "train/a", "train/b", "test/a", "test/b"}
    with opener(path) as fetch:
        assert np.array_equal(decode(fetch("train/a/1.png"), "x", SIZE, 3), COLOUR.transpose(2, 0, 1))
    with zipfile.ZipFile(path) as opened:
        assert opened.getinfo("train/a/1.png").CRC in {file.stamp for file in listing.files}


@pytest.mark.parametrize("name", ["../out.png", "a/../../out.png", "/out.png", "C:/out.png", "a\\..\\out.png"])
def test_an_archive_that_points_outside_is_refused(tmp_path, name):
    path = archive(tmp_path / "x.zip", ["a/1.png", "b/1.png", "x" * len(name)])
    path.write_bytes(path.read_bytes().replace(b"x" * len(name), name.encode()))
    with pytest.raises(DataError, match="unsafe name"):
        list_images(path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["x.zip"]


@pytest.mark.parametrize(("make", "text"), [(None, "nothing is there"), ("no archive", "got the file")])
def test_neither_folder_nor_archive(tmp_path, make, text):
    if make:
        (tmp_path / "x.zip").write_text(make)
    with pytest.raises(DataError, match=text):
        list_images(tmp_path / "x.zip")


# Sorting ----------------------------------------------------------------------------------------


def test_classes_are_the_first_folders_in_byte_order(tmp_path):
    fill(tmp_path, ["s2/1.png", "s10/1.png", "s1/b/2.png", "s1/1.png", "Zoe/1.png", "loose.png"])
    classes, parts = layout(tmp_path)
    assert classes == ("Zoe", "s1", "s10", "s2")
    assert parts["all"].files == ["Zoe/1.png", "s1/1.png", "s1/b/2.png", "s10/1.png", "s2/1.png"]
    assert parts["all"].targets == [0, 1, 1, 2, 3]


def test_train_and_test_folders_share_their_classes(tmp_path):
    fill(tmp_path, ["train/a/1.png", "train/b/1.png", "train/c/1.png", "test/c/1.png", "test/a/1.png", "val/d/1.png"])
    classes, parts = layout(tmp_path)
    assert classes == ("a", "b", "c")
    assert parts["test"] == (["test/a/1.png", "test/c/1.png"], [0, 2])


@pytest.mark.parametrize("inner", ["", "train/"])
def test_a_single_outer_folder_is_stepped_into(tmp_path, inner):
    names = [f"pins/105 classes/{inner}{name}/1.png" for name in "ab"]
    names += [name.replace("train", "test") for name in names if inner]
    fill(tmp_path, names)
    classes, parts = layout(tmp_path)
    assert classes == ("a", "b")
    assert set(parts) == ({"train", "test"} if inner else {"all"})


@pytest.mark.parametrize(
    ("names", "empty", "text"),
    [
        ([], [], "found no image"),
        (["loose.png"], [], "found no image"),
        (["a/1.png"], [], "at least two class folders .*, got 1"),
        (["a/1.png", "b/1.png"], ["c"], "but 'c' has none"),
        (["train/a/1.png", "train/b/1.png"], [], "found only train.*point to train itself"),
        (["test/a/1.png", "b/1.png"], [], "found only test"),
        (["train/a/1.png", "train/b/1.png", "test/c/1.png"], [], "'c' is only in test"),
        (["train/a/1.png", "train/b/1.png"], ["test"], "found no image"),
        (["train/a/1.png", "train/b/1.png", "test/a/1.png"], ["test/b"], "'test/b' has none"),
        (["train/a/1.png", "test/a/1.png"], [], "at least two class folders"),
    ],
)
def test_folders_that_make_no_dataset_are_refused(tmp_path, names, empty, text):
    fill(tmp_path, names)
    for name in empty:
        (tmp_path / name).mkdir(parents=True)
    with pytest.raises(DataError, match=text):
        layout(tmp_path)


def test_messages_use_the_path_of_the_user(tmp_path):
    (tmp_path / "x").mkdir()
    with pytest.raises(DataError, match="per class in my/path, found no image"):
        by_class(list_images(tmp_path), "my/path")
