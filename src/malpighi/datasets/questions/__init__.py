"""Questions and captions: PathMMU, PathVQA, Quilt-VQA, MedXpertQA, OmniMedVQA, ARCH and training sets."""
