"""Computed tomography: from volumes in Hounsfield units to 2-D slices in a store. No torch here.

    store, store_writer     the slice store, read in place and written slice by slice (by subset_files)
    window                  Hounsfield units -> what a window shows of them
    volume, geometry        a volume with its labels and spacing; orientation, resampling, one size
    nifti, dicom, pictures  the three sources: case folders, DICOM series (of dicom_files), 8-bit slices
    cases                   what a source holds, and whose it is
    build                   sources -> split by patient -> store (tools/dataset_converters/ct_to_slices.py)

Slices are axial and lie as radiologists look at them: row 0 is anterior, column 0 the patient's right, slice 0 the most
inferior. Labels are 0 background, 1 kidney, 2 tumour.

NIfTI takes nibabel and DICOM pydicom: `pip install pathzoo[ct]`. A store is read without either.
"""
