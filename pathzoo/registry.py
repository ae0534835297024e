"""The child registries of pathzoo (scope "pathzoo"), each with what it promises.

They are children of mmengine's roots, so a config may mix `pathzoo.TimmBackbone` with any host's component. Configs
name classes; strings (`scope.Name`) occur only in published models, where `pathzoo.zoo.allowlist` resolves them.
"""

from mmengine import registry as root
from mmengine.registry import Registry

# Yields `data_info` dicts with img_path, patient, mpp and gt_label (pathzoo.datasets.tiles), img alone
# (pathzoo.datasets.unlabelled), img and gt_seg_map (pathzoo.datasets.regions) or img and gt_bboxes
# (pathzoo.datasets.detection_tiles), where pictures are RGB uint8; or img in HU, int16 (H, W), and gt_seg_map
# (pathzoo.datasets.slices).
DATASETS = Registry(
    "dataset",
    parent=root.DATASETS,
    scope="pathzoo",
    locations=[
        "pathzoo.datasets.tiles",
        "pathzoo.datasets.breakhis",
        "pathzoo.datasets.regions",
        "pathzoo.datasets.breast_lesions",
        "pathzoo.datasets.pseudo_labelled",
        "pathzoo.datasets.unlabelled",
        "pathzoo.datasets.breast_tiles",
        "pathzoo.datasets.detection_tiles",
        "pathzoo.datasets.slices",
    ],
)
# Takes and returns one results dict; `img` is RGB uint8 (H, W, 3).
TRANSFORMS = Registry("transform", parent=root.TRANSFORMS, scope="pathzoo", locations=["pathzoo.datasets.transforms"])
# Decides which rank sees which item in which epoch.
DATA_SAMPLERS = Registry("data sampler", parent=root.DATA_SAMPLERS, scope="pathzoo", locations=["pathzoo.engine"])
# nn.Modules: backbones, heads, losses, whole models.
MODELS = Registry("model", parent=root.MODELS, scope="pathzoo", locations=["pathzoo.models"])
# Wraps a model for several processes.
MODEL_WRAPPERS = Registry("model_wrapper", parent=root.MODEL_WRAPPERS, scope="pathzoo", locations=["pathzoo.engine"])
# Chooses when something happens in a run; what happens stands elsewhere.
HOOKS = Registry("hook", parent=root.HOOKS, scope="pathzoo", locations=["pathzoo.engine.hooks"])
# A thin BaseMetric over pathzoo.evaluation.functional.
METRICS = Registry("metric", parent=root.METRICS, scope="pathzoo", locations=["pathzoo.evaluation.metrics"])
# Runs the loops; ours loads and saves checkpoints safely.
RUNNERS = Registry("runner", parent=root.RUNNERS, scope="pathzoo", locations=["pathzoo.engine"])

#: kind -> registry, in the order of the flow; what `pathzoo list --components` walks.
ALL = {
    "dataset": DATASETS,
    "transform": TRANSFORMS,
    "sampler": DATA_SAMPLERS,
    "model": MODELS,
    "model wrapper": MODEL_WRAPPERS,
    "hook": HOOKS,
    "metric": METRICS,
    "runner": RUNNERS,
}
