"""What a result is worth: `functional` (arrays in, numbers out), `report` (the files), `metrics` (mmengine's shells).

Nothing is imported here, so that `pathzoo.evaluation.functional` loads without torch.
"""
