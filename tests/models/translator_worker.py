"""What each of two gloo processes does for test_label_to_image.py; spawned ones import it by its name."""

from pathlib import Path

import torch
import torch.distributed as dist
from mmengine import MessageHub
from mmengine.optim import OptimWrapper, OptimWrapperDict
from mmengine.structures import BaseDataElement, PixelData

SIDE = 32


def translator(
    n_channels: int = 1, *, num_down: int = 5, base: int = 4, dropout: bool = False, discriminator: bool = True
):
    """A tiny one of three classes."""
    from pathzoo.models import LabelToImage, PairPreprocessor, PatchDiscriminator, UnetGenerator

    norm = {"type": "IN"}
    torch.manual_seed(3)
    model = LabelToImage(
        generator={
            "type": UnetGenerator,
            "in_channels": 3,
            "out_channels": n_channels,
            "num_down": num_down,
            "base_channels": base,
            "norm_cfg": norm,
            "use_dropout": dropout,
        },
        discriminator={
            "type": PatchDiscriminator,
            "in_channels": 3 + n_channels,
            "base_channels": base,
            "norm_cfg": norm,
        }
        if discriminator
        else None,
        data_preprocessor={
            "type": PairPreprocessor,
            "n_classes": 3,
            "mean": [127.5] * n_channels,
            "std": [127.5] * n_channels,
        },
    )
    model.init_weights()
    return model


def pairs(n: int, n_channels: int = 1, seed: int = 0) -> dict:
    """A batch as PackSegInputs gives it: discs in squares; each class has its grey value, plus noise."""
    generator = torch.Generator().manual_seed(seed)
    rows, columns = torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="ij")
    inputs, samples = [], []
    for _ in range(n):
        x, y = (float(v) for v in torch.rand(2, generator=generator) * 10 + 11)
        distance = ((rows - y) ** 2 + (columns - x) ** 2).sqrt()
        label = (distance < 9).long() + (distance < 4).long()
        picture = torch.tensor([40.0, 130.0, 220.0])[label] + 5 * torch.randn(SIDE, SIDE, generator=generator)
        inputs.append(picture.clamp(0, 255)[None].repeat(n_channels, 1, 1))
        samples.append(BaseDataElement(gt_sem_seg=PixelData(data=label[None])))
    return {"inputs": inputs, "data_samples": samples}


def optimizers(model, rate: float = 0.01) -> OptimWrapperDict:
    """Plain SGD: Adam would turn rounding in a gradient near 0 into a whole step."""
    return OptimWrapperDict(
        **{
            name: OptimWrapper(torch.optim.SGD(getattr(model, name).parameters(), lr=rate))
            for name in ("generators", "discriminators")
        }
    )


def steps(model, batches, bare) -> list[dict]:
    """Losses of one step on each batch."""
    wrappers, hub, losses = optimizers(bare), MessageHub.get_instance("translator"), []
    for index, batch in enumerate(batches):
        hub.update_info("iter", index)
        found = model.train_step(batch, optim_wrapper=wrappers)
        losses.append({name: float(value) for name, value in found.items()})
    return losses


def work(rank: int, folder: str, n_steps: int) -> None:
    """Leaves this process's losses and the weights that it reached; each has its half of the batches."""
    from pathzoo.engine.distributed import AveragedGradients

    dist.init_process_group("gloo", init_method=Path(folder, "store").as_uri(), rank=rank, world_size=2)
    model = translator()
    if rank:
        torch.nn.init.ones_(next(model.parameters()))  # begins elsewhere; the first process's weights are taken
    batches = [pairs(4, seed=index) for index in range(n_steps)]
    halves = [{key: value[rank::2] for key, value in batch.items()} for batch in batches]
    losses = steps(AveragedGradients(model), halves, model)
    torch.save({"losses": losses, "state": model.state_dict()}, Path(folder, f"{rank}.pt"))
    dist.barrier()
    dist.destroy_process_group()
