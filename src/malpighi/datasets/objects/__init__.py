"""The 14 data sets of objects and regions that SmartPath-R1 (Table 12) detects and segments.

A sample is an image and a class. Per data set there is one exam over all its classes, as the paper reports:

    <data set>/detection              boxes, asked only for classes that the image shows, as the paper does
    <data set>/segmentation           a mask, likewise
    <data set>/segmentation-of-boxes  the paper's segmentation where the source has no masks: filled boxes
    <data set>/absent                 detection of classes that the image does not show: no box is right

The score with negatives is that over the samples of `detection` and `absent` together. Ids end with the exam
and the class, e.g. `conic2022/consep_1-0000:detection:plasma_cells`.
"""
