"""Nothing that identifies a patient, a user or a machine is published."""

import hashlib
import hmac
import json
import socket
from pathlib import Path

import pytest
from publishing import edit, publish, refused
from tiny_model import CARD


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("Trained on patient 22549.", "a patient id"),
        ("Trained on patient 9146.", "a patient id"),
        ("Trained on p-0007.", "a patient id"),
        ("See smith-john.", "a file name"),
        ("See slide_0815x.", "an id in a folder's name"),
        ("See SOB_M_DC-14-9146-40-002.png.", "BreakHis"),
        ("Holds " + "b" * 64, "an image's digest"),
        (f"In {Path.home()}/x/y.", "an absolute path"),
    ],
)
def test_identifiers_in_the_card_text(run, tmp_path, text, kind):
    refused(run, tmp_path / "out", kind, card=CARD | {"limits": text})


def test_short_ids_count_only_as_whole_values(run, tmp_path):
    refused(run, tmp_path / "a", "a patient id, '7', in stain", card=CARD | {"stain": "7"})
    assert publish(run, tmp_path / "b", card=CARD | {"limits": "7 of 10 images were blurred."})


def test_counts_that_equal_an_id_are_no_leak(run, tmp_path):
    edit(run / "train_run.json", lambda content: content["data"]["counts"]["train"].update(images=22549))
    assert publish(run, tmp_path / "out")


def test_user_and_host(run, tmp_path, monkeypatch):
    monkeypatch.setattr("getpass.getuser", lambda: "jdoe42")
    monkeypatch.setattr(socket, "gethostname", lambda: "gpu17.lab.example")
    refused(run, tmp_path / "a", "the user's name", card=CARD | {"limits": "Ask jdoe42."})
    refused(run, tmp_path / "b", "the host's name", card=CARD | {"limits": "Ran on gpu17."})


def test_the_work_folder(run, tmp_path):
    refused(run, tmp_path / "out", "an absolute path", card=CARD | {"limits": f"In {run}."})


def test_without_the_split_nothing_is_published(run, tmp_path):
    (run / "splits.json").unlink()
    refused(run, tmp_path / "out", r"splits\.json: no such file")


def test_keyed_hashes_of_patients(run, tmp_path):
    key = b"0123456789abcdef0123456789abcdef"
    (tmp_path / "key").write_bytes(key + b"\n")
    folder = publish(run, tmp_path / "out", hash_key=tmp_path / "key")
    hashes = json.loads((folder / "model.json").read_text())["training"]["patient_hashes"]
    assert hashes["val"] == [hmac.new(key, b"9146", hashlib.sha256).hexdigest()]
    assert len(hashes["train"]) == 3  # the group of unknown patients is no patient
    assert key not in b"".join(path.read_bytes() for path in folder.iterdir())
    (tmp_path / "short").write_bytes(b"secret")
    refused(run, tmp_path / "b", "can be guessed", hash_key=tmp_path / "short")
