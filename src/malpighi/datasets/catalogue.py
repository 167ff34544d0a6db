"""All adapters by name, the one place where a new one is entered."""

from pathlib import Path

from malpighi.datasets.adapter import Adapter
from malpighi.datasets.captions import pathology_atlas
from malpighi.datasets.cells.bmt import bmt
from malpighi.datasets.cells.cytocell_bench import cytocell_bench
from malpighi.datasets.cells.morphopercept_bench import morphopercept_bench
from malpighi.datasets.cells.singpath_cytotext import singpath_cytotext
from malpighi.datasets.class_folders import crc_val_he_7k, herlev, lbc_cytology, lc25000
from malpighi.datasets.masks import dsb2018_he, ebhi_seg
from malpighi.datasets.objects.bcss import bcss
from malpighi.datasets.objects.cocahis import cocahis
from malpighi.datasets.objects.conic import conic2022
from malpighi.datasets.objects.crag import crag
from malpighi.datasets.objects.digestpath import digestpath_cell, digestpath_tissue
from malpighi.datasets.objects.glas import glas
from malpighi.datasets.objects.midog import midog_breast, midog_neuroendocrine
from malpighi.datasets.objects.nucls import nucls
from malpighi.datasets.objects.rings import rings
from malpighi.datasets.objects.sicapv2 import sicapv2
from malpighi.datasets.objects.tnbc import tnbc
from malpighi.datasets.objects.wsss4luad import wsss4luad
from malpighi.datasets.questions.arch import arch
from malpighi.datasets.questions.medxpertqa import medxpertqa_mm
from malpighi.datasets.questions.omnimedvqa import omnimedvqa
from malpighi.datasets.questions.pathcap import pathcap, pathinstruct
from malpighi.datasets.questions.pathmmu import pathmmu
from malpighi.datasets.questions.pathvqa import pathvqa
from malpighi.datasets.questions.quilt1m import quilt1m
from malpighi.datasets.questions.quilt_vqa import quilt_vqa
from malpighi.datasets.regions.bracs_roi import bracs_roi
from malpighi.datasets.regions.breakhis import breakhis
from malpighi.datasets.regions.ccrcc import ccrcc
from malpighi.datasets.regions.chaoyang import chaoyang
from malpighi.datasets.regions.crc_msi import crc_msi
from malpighi.datasets.regions.esca import esca
from malpighi.datasets.regions.pancancer_tcga import pancancer_tcga
from malpighi.datasets.regions.pancancer_til import pancancer_til
from malpighi.datasets.regions.sicapv2_classes import sicapv2_patches
from malpighi.datasets.regions.unitopatho import unitopatho
from malpighi.datasets.regions.wsss4luad_classes import wsss4luad_patches
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
        ccrcc,
        chaoyang,
        crc_msi,
        esca,
        pancancer_til,
        unitopatho,
        breakhis,
        pancancer_tcga,
        bracs_roi,
        sicapv2_patches,
        wsss4luad_patches,
        bmt,
        morphopercept_bench,
        cytocell_bench,
        singpath_cytotext,
        pathmmu,
        pathvqa,
        quilt_vqa,
        medxpertqa_mm,
        omnimedvqa,
        arch,
        pathcap,
        pathinstruct,
        quilt1m,
        bcss,
        cocahis,
        conic2022,
        crag,
        digestpath_cell,
        digestpath_tissue,
        midog_breast,
        midog_neuroendocrine,
        rings,
        sicapv2,
        tnbc,
        wsss4luad,
        glas,
        nucls,
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
