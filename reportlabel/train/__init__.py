"""Training of sentence classifiers: examples, augmentation, fitting, export. Needs the extra ``train``."""
