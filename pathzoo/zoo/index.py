"""index.json and model.schema.json of a zoo folder, generated: `python -m pathzoo.zoo.index [ZOO]`. No torch."""

import os
import sys
import warnings
from pathlib import Path
from typing import Any

from pathzoo.errors import ZooError
from pathzoo.fileio import write_json
from pathzoo.paths import packaged_zoo
from pathzoo.zoo.find import folders_of
from pathzoo.zoo.manifest import write_schema
from pathzoo.zoo.manifest_file import read_manifest

INDEX_FILE, SCHEMA_FILE = "index.json", "model.schema.json"


def index_of(root: str | os.PathLike[str]) -> dict[str, Any]:
    """What index.json says of the models in a zoo folder; a damaged model.json is left out with a warning."""
    rows = []
    for folder in folders_of(Path(root)):
        try:
            manifest = read_manifest(folder)
        except ZooError as error:
            warnings.warn(f"left out of the index: {error}", stacklevel=2)
            continue
        rows.append(
            {
                "name": manifest.name,
                "version": manifest.version,
                "task": manifest.task,
                "organ": manifest.organ,
                "mpp": manifest.input.mpp,
                "licence": manifest.licence,
                "digest": manifest.digest,
                "summary": manifest.description,
            }
        )
    return {"format": 1, "models": rows}


def write_index(root: str | os.PathLike[str]) -> Path:
    """Writes `<root>/index.json` and returns its path."""
    path = Path(root) / INDEX_FILE
    write_json(path, index_of(root))
    return path


def main(arguments: list[str] | None = None) -> int:
    """Writes index and schema of the zoo folder given, or of the packaged one."""
    arguments = sys.argv[1:] if arguments is None else arguments
    root = Path(arguments[0]) if arguments else packaged_zoo()
    print(write_index(root))
    write_schema(root / SCHEMA_FILE)
    print(root / SCHEMA_FILE)
    return 0


if __name__ == "__main__":
    sys.exit(main())
