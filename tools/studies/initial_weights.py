"""Initial weights of a study's arms: the files that `--weights` names, and what an arm without its file reads."""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from pathzoo.errors import ConfigError
from pathzoo.fileio import sha256_file


def weights_files(words: Collection[str]) -> dict[str, Path]:
    """`--weights NETWORK=FILE ...` as network -> file.

    Raises:
        ConfigError: A word of another form, or a file that does not exist.
    """
    files = {}
    for word in words:
        network, _, name = word.partition("=")
        if not name or not Path(name).is_file():
            raise ConfigError(f"--weights {word!r}: expected NETWORK=FILE with a file that exists")
        files[network] = Path(name)
    return files


def refuse_unused(files: Mapping[str, Path], networks: Collection[str], kind: str = "ImageNet") -> None:
    """Raises ConfigError for a file of `--weights` that no arm begins with."""
    for network in files:
        if network not in networks:
            begins = f"they begin with those of {', '.join(sorted(networks))}" if networks else "they begin with none"
            raise ConfigError(
                f"--weights {network}=...: no arm that was asked for begins with {kind} weights of {network} at this "
                f"scale; {begins}"
            )


def network_of(config: Any) -> str | None:
    """timm's name of the network whose ImageNet weights a resolved config begins with; None where it does not."""
    backbone = config.to_dict()["model"]["backbone"]
    return str(backbone["name"]) if backbone.get("pretrained") == "imagenet" else None


def digest_of(network: str | None, files: Mapping[str, Path]) -> str:
    """What the weights add to the text that a config's digest is taken of; "" where there are none."""
    return sha256_file(files[network]) if network in files else ""


def not_run(network: str, kind: str = "ImageNet") -> dict[str, str]:
    """The columns of an arm whose weights are not at hand."""
    return {"status": "not run", "note": f"no {kind} weights of {network} at hand"}
