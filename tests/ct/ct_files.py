"""Small CT volumes as files: KiTS19 case folders, DICOM series, 8-bit slices."""

import nibabel as nib
import numpy as np
import pydicom
from PIL import Image
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

#: (slice, row, column) mm, and the first voxel's place in RAS+ mm.
SPACING = (3.0, 0.8, 0.7)
ORIGIN = (31.0, 22.0, -140.0)
SHAPE = (4, 5, 6)
#: Display indices -> RAS+ mm: slices to the head, rows to the back, columns to the patient's left.
AFFINE = np.array([[0, 0, -0.7, 31.0], [0, -0.8, 0, 22.0], [3.0, 0, 0, -140.0], [0, 0, 0, 1]])


def volume(seed=0, shape=SHAPE, tumour=True):
    """Random HU and labels in display orientation, with kidney in the middle slices and by choice tumour."""
    rng = np.random.default_rng(seed)
    hu = rng.integers(-1000, 1500, shape).astype(np.int16)
    labels = np.zeros(shape, np.uint8)
    labels[1:-1, 1:3, 1:4] = 1
    if tumour:
        labels[1, 1, 1] = 2
    return hu, labels


def write_nifti(path, array, affine, dtype=np.int16, codes=(1, 1), zooms=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nib.Nifti1Image(array.astype(dtype), affine)
    image.set_sform(affine, codes[0])
    image.set_qform(affine, codes[1])
    if zooms is not None:
        image.header["pixdim"][1:4] = zooms
    nib.save(image, path)
    return path


def write_case(root, name, seed=0, affine=AFFINE, hu=None, labels=None, **options):
    """A case folder in display orientation; returns (hu, labels)."""
    drawn = volume(seed)
    hu, labels = drawn[0] if hu is None else hu, drawn[1] if labels is None else labels
    write_nifti(root / name / "imaging.nii.gz", hu, affine, **options)
    write_nifti(root / name / "segmentation.nii.gz", labels, affine, **{**options, "dtype": np.uint8})
    return hu, labels


def dicom_slice(path, pixels, place, series, number, patient="P 1", cosines=(1, 0, 0, 0, 1, 0), **tags):
    """One CT image file; `pixels` are stored values: HU = 2 * value - 1000."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = CTImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=[series, str(number)])
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    data.SOPClassUID, data.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    data.Modality, data.PatientID, data.SeriesInstanceUID = "CT", patient, series
    data.ImagePositionPatient = [float(value) for value in place]
    data.ImageOrientationPatient = [float(value) for value in cosines]
    data.PixelSpacing = [SPACING[1], SPACING[2]]
    data.Rows, data.Columns = pixels.shape
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.BitsAllocated = data.BitsStored = 16
    data.HighBit, data.PixelRepresentation = 15, 1
    data.RescaleSlope, data.RescaleIntercept, data.RescaleType = 2, -1000, "HU"
    data.PixelData = pixels.astype("<i2").tobytes()
    for name, value in tags.items():
        if value is None:
            delattr(data, name)
        else:
            setattr(data, name, value)
    path.parent.mkdir(parents=True, exist_ok=True)
    data.save_as(path, enforce_file_format=True)


def write_series(folder, seed=0, patient="P 1", series=None, places=None, labels=True, shape=SHAPE, **tags):
    """A supine series in scattered file order with its segmentation; returns (hu, labels) in display orientation."""
    series = series or generate_uid(entropy_srcs=[str(folder), str(seed)])
    hu, drawn = volume(seed, shape)
    stored = (hu.astype(int) + 1000) // 2
    hu = (2 * stored - 1000).astype(np.int16)
    heights = places if places is not None else [ORIGIN[2] + SPACING[0] * k for k in range(shape[0])]
    order = np.random.default_rng(seed).permutation(shape[0])
    for name, k in enumerate(order):
        place = (-ORIGIN[0], -ORIGIN[1], heights[k])  # DICOM's x and y run the other way than NIfTI's
        dicom_slice(folder / f"IM{name:04d}", stored[k], place, series, k, patient, **tags)
    if labels:
        write_nifti(folder / "segmentation.nii.gz", drawn, AFFINE, dtype=np.uint8)
    return hu, drawn


def write_pictures(root, case, numbers, seed=0, shape=SHAPE[1:], suffix=".png"):
    """8-bit slices and labels; returns {number: (picture, label)}."""
    rng, made = np.random.default_rng(seed), {}
    for folder in ("images", "labels"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for number in numbers:
        picture = rng.integers(0, 256, shape).astype(np.uint8)
        label = rng.integers(0, 3, shape).astype(np.uint8)
        stem = f"{case}_slice_{number:04d}"
        Image.fromarray(picture).save(root / "images" / f"{stem}{suffix}")
        Image.fromarray(label).save(root / "labels" / f"{stem}.png")
        made[number] = picture, label
    return made


def tags_of(path):
    return pydicom.dcmread(path)
