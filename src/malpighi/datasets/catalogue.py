"""All adapters by name, the one place where a new one is entered."""

from pathlib import Path

from malpighi.datasets.adapter import Adapter
from malpighi.datasets.captions import pathology_atlas
from malpighi.datasets.class_folders import crc_val_he_7k, herlev, lbc_cytology, lc25000
from malpighi.datasets.masks import dsb2018_he, ebhi_seg
from malpighi.datasets.voc import bccd
from malpighi.datasets.whole_slides.bcnb import bcnb
from malpighi.datasets.whole_slides.bracs import bracs
from malpighi.datasets.whole_slides.camelyon import camelyon
from malpighi.datasets.whole_slides.cptac_nsclc import cptac_nsclc
from malpighi.datasets.whole_slides.slidebench import slidebench
from malpighi.datasets.whole_slides.tcga_subtypes import TCGA_SUBTYPES
from malpighi.errors import ConfigError, DataError

ADAPTERS: dict[str, Adapter] = {
    adapter.name: adapter
    for adapter in (
        herlev,
        lbc_cytology,
        crc_val_he_7k,
        lc25000,
        bccd,
        dsb2018_he,
        ebhi_seg,
        pathology_atlas,
        *TCGA_SUBTYPES,
        bracs,
        camelyon,
        cptac_nsclc,
        bcnb,
        slidebench,
    )
}


def adapter_named(name: str) -> Adapter:
    """The adapter of that name.

    Raises:
        ConfigError: there is none; the message lists those known.
    """
    if name not in ADAPTERS:
        raise ConfigError(f"unknown data set {name!r}; known: {', '.join(ADAPTERS)}")
    return ADAPTERS[name]


def find_datasets(folder: str | Path) -> dict[str, Path]:
    """The known data sets in a folder, by the names of its subfolders; or the folder itself, if named so.

    Raises:
        DataError: none is there.
    """
    folder = Path(folder)
    found = {name: folder / name for name in ADAPTERS if (folder / name).is_dir()}
    if not found and folder.is_dir() and folder.resolve().name in ADAPTERS:
        found = {folder.resolve().name: folder}
    if not found:
        raise DataError(f"{folder} holds no known data set; expected folders named {', '.join(ADAPTERS)}")
    return found
