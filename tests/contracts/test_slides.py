"""One suite for every reader of slides: direct TIFF, OpenSlide, DICOM, picture."""

import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import simplejpeg
import tifffile
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import UID, generate_uid

from malpighi.errors import ConfigError, DataError
from malpighi.geometry import Region
from malpighi.slides import dicom_slide
from malpighi.slides.dicom_slide import DicomSlide
from malpighi.slides.opening import open_slide
from malpighi.slides.openslide_slide import OpenSlideSlide
from malpighi.slides.picture_slide import PictureSlide
from malpighi.slides.tiff_slide import TiffSlide

SIZE = (700, 460)
TILE = 128
WSI = UID("1.2.840.10008.5.1.4.1.1.77.1.6")


def coloured_noise():
    """Smooth colours, so that JPEG keeps them well."""
    coarse = np.random.default_rng(5).integers(130, 235, (8, 12, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize(SIZE, Image.Resampling.BICUBIC))


def write_tiff(path, rgb):
    with tifffile.TiffWriter(path) as writer:
        for factor in (1, 2, 4):
            writer.write(
                np.asarray(Image.fromarray(rgb).reduce(factor)),
                tile=(TILE, TILE),
                photometric="rgb",
                compression="jpeg",
                compressionargs={"level": 92},
                subfiletype=int(factor > 1),
                metadata=None,
            )


def write_dicom(folder, rgb, *, named="YBR_FULL_422", broken=()):
    """Levels of a DICOM slide, 0.5 um a pixel; some frames of level 0 may be cut short."""
    folder.mkdir(exist_ok=True)
    uids = [generate_uid() for _ in range(3)]
    for factor in (1, 2):
        head, frames = level_of(np.asarray(Image.fromarray(rgb).reduce(factor)), factor, named, uids)
        for index in broken if factor == 1 else ():
            frames[index] = frames[index][:300]
        head.PixelData = encapsulate(frames)
        head["PixelData"].is_undefined_length = True
        head.save_as(folder / f"level-{factor}.dcm", enforce_file_format=True)
    return folder


def level_of(rgb, factor, named, uids):
    high, wide = rgb.shape[:2]
    padded = np.zeros((-(-high // TILE) * TILE, -(-wide // TILE) * TILE, 3), np.uint8)
    padded[:high, :wide] = rgb
    places = [(y, x) for y in range(0, high, TILE) for x in range(0, wide, TILE)]
    frames = [
        simplejpeg.encode_jpeg(np.ascontiguousarray(padded[y : y + TILE, x : x + TILE]), 92, "RGB", "420")
        for y, x in places
    ]
    head, meta, shared, measures, path = Dataset(), FileMetaDataset(), Dataset(), Dataset(), Dataset()
    meta.TransferSyntaxUID, meta.MediaStorageSOPClassUID = UID("1.2.840.10008.1.2.4.50"), WSI
    meta.MediaStorageSOPInstanceUID = head.SOPInstanceUID = generate_uid()
    head.file_meta, head.SOPClassUID = meta, WSI
    head.StudyInstanceUID, head.SeriesInstanceUID, head.FrameOfReferenceUID = uids
    head.ImageType = ["ORIGINAL", "PRIMARY", "VOLUME", "NONE" if factor == 1 else "RESAMPLED"]
    head.Modality, head.DimensionOrganizationType = "SM", "TILED_FULL"
    head.TotalPixelMatrixColumns, head.TotalPixelMatrixRows = wide, high
    head.Columns = head.Rows = TILE
    head.NumberOfFrames, head.SamplesPerPixel, head.PlanarConfiguration = len(frames), 3, 0
    head.BitsAllocated = head.BitsStored = 8
    head.ImagedVolumeWidth, head.ImagedVolumeHeight = 0.0005 * factor * wide, 0.0005 * factor * high
    head.ImagedVolumeDepth = 0.001
    head.HighBit, head.PixelRepresentation, head.PhotometricInterpretation = 7, 0, named
    measures.PixelSpacing, measures.SliceThickness = [0.0005 * factor] * 2, 0.001
    shared.PixelMeasuresSequence, head.SharedFunctionalGroupsSequence = [measures], [shared]
    path.OpticalPathIdentifier, head.OpticalPathSequence = "0", [path]
    head.TotalPixelMatrixFocalPlanes = head.NumberOfOpticalPaths = 1
    return head, frames


@pytest.fixture(scope="module")
def truth():
    return coloured_noise()


@pytest.fixture(scope="module")
def paths(truth, tmp_path_factory):
    folder = tmp_path_factory.mktemp("readers")
    write_tiff(folder / "slide.tiff", truth)
    Image.fromarray(truth).save(folder / "slide.png")
    return {
        "tiff": folder / "slide.tiff",
        "openslide": folder / "slide.tiff",
        "dicom": write_dicom(folder / "dicom", truth),
        "picture": folder / "slide.png",
    }


READERS = {"tiff": TiffSlide, "openslide": OpenSlideSlide, "dicom": DicomSlide, "picture": PictureSlide}


@pytest.fixture(params=READERS)
def slide(request, paths):
    with READERS[request.param](paths[request.param], 0.5) as opened:
        yield opened


def test_facts_are_whole(slide):
    assert slide.size == SIZE == slide.levels[0].size
    assert slide.levels[0].downsample == 1
    factors = [level.downsample for level in slide.levels]
    assert factors == sorted(set(factors))
    assert (slide.mpp, slide.facts.mpp_source) == (0.5, "given")
    assert READERS[slide.facts.reader] is type(slide)


def test_every_level_shows_the_same_picture(slide, truth):
    for level in range(len(slide.levels)):
        wide, high = slide.levels[level].size
        found = slide.read_level(level, (0, 0), (wide, high))
        wanted = np.asarray(Image.fromarray(truth).resize((wide, high), Image.Resampling.BOX))
        assert found.shape == (high, wide, 3)
        assert np.abs(found.astype(int) - wanted).mean() < 4
    assert len(slide.damage) == 0


def test_outside_is_white_and_nothing_else_is(slide):
    for level in range(len(slide.levels)):
        wide, high = slide.levels[level].size
        found = slide.read_level(level, (-30, -20), (wide + 77, high + 55))
        inner = found[20 : 20 + high, 30 : 30 + wide]
        assert (inner == slide.read_level(level, (0, 0), (wide, high))).all()
        outer = found.copy()
        outer[20 : 20 + high, 30 : 30 + wide] = 255
        assert (outer == 255).all()
    assert (slide.read_level(0, (5000, 5000), (40, 30)) == 255).all()


def test_a_region_comes_at_the_size_asked_for(slide):
    for region, size in (
        (Region(0, 0, *SIZE), (64, 42)),
        (Region(10.5, 3.25, 333.3, 222.2), (97, 61)),
        (Region(-100, -100, 2000, 1500), (130, 90)),
        (Region(600.2, 400.1, 20, 15), (200, 150)),
        (Region(699.5, 459.5, 0.4, 0.4), (1, 1)),
    ):
        found = slide.read(region, size)
        assert (found.shape, found.dtype) == ((size[1], size[0], 3), np.uint8)


def test_a_reduced_read_is_the_mean_over_areas(slide, truth):
    found = slide.read(Region(0, 0, *SIZE), (70, 46)).astype(float)
    assert np.abs(found - truth.reshape(46, 10, 70, 10, 3).mean(axis=(1, 3))).mean() < 2.5


def test_many_reads_come_once_each_and_are_those_of_single_reads(slide):
    corners = np.random.default_rng(0).integers(-20, SIZE, (40, 2))
    found = dict(slide.read_many(corners, (33, 21)))
    assert sorted(found) == list(range(40))
    for index, (x, y) in enumerate(corners.tolist()):
        assert (found[index] == slide.read_level(0, (x, y), (33, 21))).all()


def test_pixels_belong_to_the_caller(slide):
    tile = slide.levels[0].tile or (TILE, TILE)
    for corner in ((0, 0), (5, 7)):
        first = slide.read_level(0, corner, tile)
        kept = first.copy()
        first[:] = 7
        assert (slide.read_level(0, corner, tile) == kept).all()


def test_it_travels_between_processes(slide):
    with pickle.loads(pickle.dumps(slide)) as other:
        assert other.facts == slide.facts
        assert (other.read(other.whole, (50, 40)) == slide.read(slide.whole, (50, 40))).all()


def test_threads_read_what_one_thread_reads(slide):
    rng = np.random.default_rng(1)
    asked = [
        (Region(*rng.uniform(-20, 500, 2), *rng.uniform(20, 400, 2)), (int(rng.integers(5, 90)), 30))
        for _ in range(60)
    ]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda one: slide.read(*one), asked))
    for one, pixels in zip(asked, found, strict=True):
        assert (slide.read(*one) == pixels).all()


def test_stored_jpegs_are_the_tiles(slide):
    jpeg = slide.tile_jpeg(0, 1, 1)
    if slide.facts.reader in ("openslide", "picture"):
        assert jpeg is None
        return
    decoded = simplejpeg.decode_jpeg(jpeg, "RGB")
    assert (decoded == slide.read_level(0, (TILE, TILE), (TILE, TILE))).all()


def test_closed_means_closed(slide):
    slide.close()
    slide.close()
    with pytest.raises(DataError, match="closed"):
        slide.read_level(0, (0, 0), (10, 10))


def test_a_folder_of_dicom_and_one_of_its_files_are_the_same_slide(paths):
    with open_slide(paths["dicom"]) as folder, open_slide(paths["dicom"] / "level-2.dcm") as file:
        assert folder.levels == file.levels
        assert (file.mpp, file.facts.mpp_source) == (0.5, "dicom.PixelSpacing")
        assert (folder.read(folder.whole, (40, 30)) == file.read(file.whole, (40, 30))).all()


def test_dicom_frames_named_rgb_are_believed_to_be_what_they_say(tmp_path, truth):
    with open_slide(write_dicom(tmp_path / "wrong", truth, named="RGB")) as slide:
        found = slide.read_level(0, (0, 0), SIZE)
        assert any("JFIF" in note for note in slide.facts.notes)
    assert np.abs(found.astype(int) - truth).mean() < 4


def test_a_broken_dicom_frame_is_white_and_marked(tmp_path, truth):
    with open_slide(write_dicom(tmp_path / "broken", truth, broken=(0, 7))) as slide:
        found = slide.read_level(0, (0, 0), SIZE)
        assert [place for place, _ in slide.damage] == [(0, 0, 0), (0, 1, 1)]
        assert (found[:TILE, :TILE] == 255).all()
        assert np.abs(found[:TILE, TILE:].astype(int) - truth[:TILE, TILE:]).mean() < 4


def test_dicom_without_its_extra_says_what_to_install(paths, monkeypatch):
    monkeypatch.setattr(dicom_slide, "wsidicom", None)
    with pytest.raises(ConfigError, match=r"malpighi\[dicom\]"):
        open_slide(paths["dicom"])


def test_a_folder_without_slides_is_refused(tmp_path):
    with pytest.raises(DataError, match="folder"):
        open_slide(tmp_path)


def test_a_dicom_file_of_something_else_is_refused(tmp_path):
    (tmp_path / "x.dcm").write_bytes(bytes(128) + b"DICM" + bytes(200))
    with pytest.raises(DataError, match=r"x\.dcm"):
        open_slide(tmp_path / "x.dcm")
