"""Publishing the toy run of tests/zoo, and being refused."""

import json

import pytest
from tiny_model import CARD

from pathzoo.errors import ZooError
from pathzoo.zoo.publish import publish_model


def edit(path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def publish(run, out, **options):
    options = {"name": "tiny", "version": "1.0.0", "card": CARD} | options
    return publish_model(run / "epoch_5.pth", out=out, **options)


def refused(run, out, match, **options):
    with pytest.raises(ZooError, match=match) as caught:
        publish(run, out, **options)
    assert "\n" not in str(caught.value)
    assert not out.exists() or not [path for path in out.rglob("*") if path.is_file()], "something was left behind"
