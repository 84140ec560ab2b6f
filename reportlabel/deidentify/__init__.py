"""Personal information is taken out: of report texts, of DICOM files, of pictures."""
