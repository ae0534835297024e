"""Each way in which a folder can be untrustworthy is refused with its reason, by verify and by loading alike."""

import io
import json
import pickle
import subprocess
import sys

import pytest
import safetensors.torch

from pathzoo.errors import ZooError
from pathzoo.zoo.load import get_model
from pathzoo.zoo.verify import require_verified, verify_model
from pathzoo.zoo.weights import read_header


def assert_refused(folder, file, *words):
    """verify reports `words` for `file`; loading raises a ZooError for the same folder."""
    reasons = [problem.reason for problem in verify_model(folder).problems if problem.file == file]
    assert any(all(word in reason for word in words) for reason in reasons), reasons
    with pytest.raises(ZooError, match="not loaded"):
        get_model(folder)


def flip(path, position):
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(bytes(data))


def test_a_sound_folder_passes(published):
    report = verify_model(published, golden=True)
    assert report.ok, report.problems
    assert report.golden_checked
    assert (report.name, report.version) == ("tiny", "1.0.0")
    assert json.dumps(report.to_json())


@pytest.mark.parametrize("place", ["first byte of the header", "last byte of the tensors"])
def test_flipped_byte_in_the_weights(published, place):
    path = published / "model.safetensors"
    flip(path, 20 if place.startswith("first") else path.stat().st_size - 1)
    assert_refused(published, "model.safetensors", "SHA-256")


def test_flipped_byte_in_the_card(published):
    flip(published / "README.md", 40)
    assert_refused(published, "README.md", "SHA-256")


def test_any_flipped_byte_in_the_manifest(published):
    path = published / "model.json"
    sound = path.read_bytes()
    for position in range(0, len(sound), 7):
        flip(path, position)
        report = verify_model(published)
        assert any(problem.file == "model.json" for problem in report.problems), f"byte {position} of model.json"
        path.write_bytes(sound)
    assert verify_model(published).ok


def test_manifest_formatted_anew_is_a_change(published):
    path = published / "model.json"
    path.write_text(json.dumps(json.loads(path.read_text())))
    assert_refused(published, "model.json", "not written as pathzoo writes it")


@pytest.mark.parametrize("name", ["model.safetensors", "README.md"])
def test_missing_file(published, name):
    (published / name).unlink()
    assert_refused(published, name, "missing")


def test_missing_manifest(published):
    (published / "model.json").unlink()
    assert "missing" in verify_model(published).problems[0].reason
    with pytest.raises(ZooError, match="no published model"):
        get_model(published)


@pytest.mark.parametrize("name", ["model.pth", "patients.csv", "model.bin"])
def test_extra_file(published, name):
    (published / name).write_bytes(b"whatever")
    assert_refused(published, name, "not listed")


def test_truncated_weights_even_when_the_manifest_is_made_to_fit(published, reseal):
    path = published / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-8])
    reseal(published, lambda content: None)
    assert_refused(published, "model.safetensors", "truncated")


class Bomb:
    """Unpickling it would write a file."""

    def __reduce__(self):
        return (exec, ("import pathlib; pathlib.Path('BOMB').write_text('boom')",))


@pytest.mark.parametrize(("length", "start"), [(0x180, b"\x80"), (0x14B50, b"PK")])
def test_a_header_whose_length_looks_like_a_pickle_is_read(tmp_path, length, start):
    """Its length comes first, little-endian: of every 32 files one or so begins with the byte of a pickle."""
    header = json.dumps({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode().ljust(length)
    path = tmp_path / "model.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))
    assert path.read_bytes().startswith(start)
    assert read_header(path).tensors == {"a": ("F32", (1,))}
    assert safetensors.torch.load_file(path)["a"].tolist() == [0]


@pytest.mark.parametrize("kind", ["pickle", "torch.save"])
def test_pickle_in_place_of_safetensors(published, reseal, kind, monkeypatch):
    import torch

    monkeypatch.chdir(published.parent)
    if kind == "pickle":
        data = pickle.dumps(Bomb())
    else:
        buffer = io.BytesIO()
        torch.save({"bomb": Bomb()}, buffer)
        data = buffer.getvalue()
    (published / "model.safetensors").write_bytes(data)
    reseal(published, lambda content: None)
    assert_refused(published, "model.safetensors", "pickle", "never opened")
    assert not (published.parent / "BOMB").exists()


def _set(content, path, value):
    *parents, last = path
    for key in parents:
        content = content[key]
    content[last] = value


CONFIG_ATTACKS = {
    "unknown type": (("backbone", "type"), "mmpretrain.Nonsense", "'mmpretrain.Nonsense' is not a component"),
    "dotted type": (("type",), "os.system", "'os.system' is not a component"),
    "dotted type at depth": (("head", "loss", "type"), "os.system", "model.head.loss.type"),
    "dotted type in lists": (("neck", "layers"), [[{"type": "builtins.exec"}]], "model.neck.layers[0][0].type"),
    "type without scope": (("backbone", "type"), "TimmBackbone", "is not a component"),
    "type that is no text": (("backbone", "type"), ["os.system"], "is no component name"),
    "init_cfg": (("backbone", "init_cfg"), {"type": "Pretrained", "checkpoint": "x"}, "init_cfg"),
    "init_cfg at depth": (("head", "loss", "init_cfg"), None, "model.head.loss.init_cfg"),
    "pretrained": (("backbone", "pretrained"), "imagenet", "'pretrained'"),
    "pretrained_cfg": (("backbone", "pretrained_cfg"), {}, "'pretrained_cfg'"),
    "checkpoint_path": (("backbone", "checkpoint_path"), "x", "'checkpoint_path'"),
    "custom_imports": (("custom_imports",), {"imports": ["evil"]}, "'custom_imports'"),
    "backend_args": (("neck", "backend_args"), {}, "'backend_args'"),
    "_scope_": (("_scope_",), "mmdet", "'_scope_'"),
    "address": (("head", "loss", "note"), "https://example.org/x", "is an address"),
    "address in a list": (("neck", "notes"), [["s3://bucket/x"]], "model.neck.notes[0][0]"),
    "absolute path": (("neck", "note"), "/etc/passwd", "absolute path"),
    "windows path": (("neck", "note"), "C:\\weights", "absolute path"),
    "home": (("neck", "note"), "~/weights", "is a path"),
    "parent folder": (("neck", "note"), "a/../b", "is a path"),
    "hf-hub name": (("backbone", "name"), "hf-hub:timm/resnet18", "hub"),
    "local-dir name": (("backbone", "name"), "local-dir:x", "hub"),
    "odd timm name": (("backbone", "name"), "resnet18 ", "no plain timm name"),
}


@pytest.mark.parametrize("attack", CONFIG_ATTACKS)
def test_forbidden_config(published, reseal, attack):
    path, value, reason = CONFIG_ATTACKS[attack]
    reseal(published, lambda content: _set(content["model"], path, value))
    assert_refused(published, "model.json", reason)


def test_too_new_schema(published, reseal):
    reseal(published, lambda content: content.update(schema_version=2))
    assert_refused(published, "model.json", "newer", "update pathzoo")


def test_unknown_field(published, reseal):
    reseal(published, lambda content: content.update(post_install="x"))
    assert_refused(published, "model.json", "post_install")


def test_two_keys_of_one_name(published):
    path = published / "model.json"
    path.write_text(path.read_text().replace('"name": "tiny"', '"name": "tiny",\n  "name": "other"', 1))
    assert_refused(published, "model.json", "stands twice")


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("seen in SOB_B_A-14-22549AB-40-001", "BreakHis file name"),
        ("slide 14-22549AB", "slide id"),
        ("case DC-14-2523", "BreakHis slide id"),
        ("TCGA-A1-A0SK", "TCGA barcode"),
        ("ask jane.doe@hospital.example", "e-mail"),
        ("from /home/jane/slides", "absolute path"),
        ("from ~/slides", "absolute path"),
        ("from D:\\slides", "absolute path"),
    ],
)
def test_identifier_in_the_manifest(published, reseal, text, kind):
    reseal(published, lambda content: content.update(limits=text))
    assert_refused(published, "model.json", kind, "limits")


def test_identifier_in_the_card(published, reseal):
    with (published / "README.md").open("a") as card:
        card.write("\nTrained on 14-22549AB.\n")
    reseal(published, lambda content: None)
    assert_refused(published, "README.md", "14-22549AB")


def test_identifier_in_the_weights_header(published, reseal):
    from safetensors.torch import load_file, save_file

    tensors = load_file(published / "model.safetensors")
    save_file(tensors, published / "model.safetensors", metadata={"origin": "/mnt/scans/4711"})
    reseal(published, lambda content: None)
    assert_refused(published, "model.safetensors", "absolute path", "metadata.origin")


def test_given_patient_id_is_found_as_a_whole_token_only(published, reseal):
    reseal(published, lambda content: content.update(limits="Patient AB12 was hard, AB123 was not."))
    assert not verify_model(published, identifiers=["AB1", "B12"]).problems
    found = verify_model(published, identifiers=["ab12"]).problems
    assert [problem.file for problem in found] == ["model.json"]
    assert "limits" in found[0].reason


def test_mean_that_the_preprocessor_does_not_use(published, reseal):
    reseal(published, lambda content: _set(content["input"], ("mean",), [0.0, 0.0, 0.0]))
    assert_refused(published, "model.json", "input.mean")


def test_number_of_outputs_against_classes(published, reseal):
    reseal(published, lambda content: content.update(classes=["benign", "malignant", "other"]))
    assert_refused(published, "model.json", "num_classes")


def test_declared_dtype_against_the_weights(published, reseal):
    reseal(published, lambda content: _set(content["weights"], ("dtype",), "float16"))
    assert_refused(published, "model.safetensors", "F32", "float16")


def test_golden_outputs_that_the_model_does_not_give(published, reseal):
    def swap(content):
        content["golden"]["outputs"] = [row[::-1] for row in content["golden"]["outputs"]]

    reseal(published, swap)
    assert verify_model(published).ok
    assert "golden: outputs differ" in verify_model(published, golden=True).problems[0].reason


def test_a_plug_in_that_is_not_loaded_is_named_and_never_imported(published, reseal, monkeypatch):
    def ask(content):
        content["plugins"] = [{"name": "evil-lab", "version": "1.2.0"}]
        content["model"]["backbone"]["type"] = "pathzoo.EvilBackbone"

    reseal(published, ask)
    imported = []
    monkeypatch.setattr("builtins.__import__", _spy(imported))
    report = verify_model(published)
    assert [problem.reason for problem in report.problems if "pip install 'evil-lab>=1.2.0'" in problem.reason]
    assert not [name for name in imported if "evil" in name]


def _spy(names, original=__import__):
    def spy(name, *args, **kwargs):
        names.append(name)
        return original(name, *args, **kwargs)

    return spy


def test_plug_in_of_another_major_version(published, reseal, monkeypatch):
    reseal(published, lambda content: content.update(plugins=[{"name": "lab", "version": "2.0.0"}]))
    monkeypatch.setattr("pathzoo.plugins._loaded", {"lab": "1.9.0"})
    assert "but 1.9.0 is loaded" in verify_model(published).problems[0].reason
    monkeypatch.setattr("pathzoo.plugins._loaded", {"lab": "2.1.0"})
    assert verify_model(published).ok


def test_require_verified_gives_the_first_reason(published):
    assert require_verified(published).name == "tiny"
    (published / "README.md").unlink()
    with pytest.raises(ZooError, match=r"README\.md: is missing"):
        require_verified(published)


def test_manifest_and_verify_load_without_torch():
    code = "import sys, pathzoo.zoo.manifest, pathzoo.zoo.verify, pathzoo.zoo.load, pathzoo.zoo.publish\n"
    code += "print([m for m in sys.modules if m.split('.')[0] in ('torch', 'mmengine', 'mmpretrain', 'timm')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_verifying_loads_no_torch(published):
    code = "import sys; from pathzoo.zoo.verify import verify_model; r = verify_model(sys.argv[1])\n"
    code += "print(r.ok, 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code, str(published)], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "False"]


@pytest.mark.parametrize("missing", ["mean", "std", "data_preprocessor"])
def test_normalisation_that_the_config_lacks(published, reseal, missing):
    def drop(content):
        (content["model"] if missing == "data_preprocessor" else content["model"]["data_preprocessor"]).pop(missing)

    reseal(published, drop)
    assert_refused(published, "model.json", f"input.{'mean' if missing == 'data_preprocessor' else missing}")


def test_a_plug_in_that_the_manifest_does_not_list(published, reseal, monkeypatch):
    from pathzoo.zoo import allowlist

    monkeypatch.setattr(allowlist, "_from_plugins", {})
    monkeypatch.setattr("pathzoo.plugins._loaded", {"lab": "2.1.0"})
    allowlist.register_allowed("pathzoo.LabNeck", object, "lab", "2.1.0")
    reseal(published, lambda content: _set(content["model"], ("neck", "type"), "pathzoo.LabNeck"))
    assert "does not list lab 2.1.0" in verify_model(published).problems[0].reason
    reseal(published, lambda content: content.update(plugins=[{"name": "lab", "version": "2.1.0"}]))
    assert verify_model(published).ok


def test_a_part_is_no_model(published, reseal):
    reseal(published, lambda content: _set(content["model"], ("type",), "mmpretrain.LinearClsHead"))
    assert_refused(published, "model.json", "'mmpretrain.LinearClsHead' is no whole classification model")


def test_an_unknown_key_stays_on_one_line(published, reseal):
    reseal(published, lambda content: content.update({"x\nok: all is well\x1b[2J": 1}))
    for problem in verify_model(published).problems:
        assert str(problem).isprintable()
