"""Two gloo processes make the files that one makes, and hear of each other's errors."""

from pathlib import Path

import processes
import pytest
from self_training_fakes import SILENT, FakePseudoLabelled, TinySegmentor, contents, plan_of

from pathzoo.engine.self_training import checked_policy, make_round
from pathzoo.engine.self_training.sharing import on_main, share_out
from pathzoo.errors import DataError

_HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def out(tmp_path_factory) -> Path:
    """What two processes left behind."""
    folder = tmp_path_factory.mktemp("processes")
    FakePseudoLabelled(folder / "data")
    code = (_HERE / "label_round_process.py").read_text()
    processes.run(code, folder / "data", folder, paths=[_HERE])
    return folder


def test_two_processes_write_what_one_does(out, tmp_path):
    dataset = FakePseudoLabelled(out / "data")
    policy = checked_policy({"type": "quantile", "keep": 0.5})
    make_round(plan_of(tmp_path, dataset, policy=policy), TinySegmentor(seed=0).eval(), SILENT)
    assert contents(out / "whole") == contents(tmp_path)
    shares = [(out / f"reads_{rank}").read_text().split() for rank in range(2)]
    assert sorted(sum(shares, [])) == list("01234")  # noqa: RUF017  # none twice
    assert min(map(len, shares)) == 2


def test_error_of_one_process_reaches_both_and_the_round_goes_on(out):
    assert [(out / f"error_{rank}").read_text() for rank in range(2)] == ["region 3 is broken"] * 2
    again = [(out / f"again_{rank}").read_text().split() for rank in range(2)]
    assert "3" in sum(again, [])  # noqa: RUF017
    assert len(sum(again, [])) < 5  # noqa: RUF017
    assert contents(out / "broken" / "pseudo_labels") == contents(out / "whole" / "pseudo_labels")


def test_another_runs_folder_is_refused_by_both(out):
    texts = {(out / f"refused_{rank}").read_text() for rank in range(2)}
    assert len(texts) == 1 and "another run" in texts.pop()


def test_one_process_is_a_plain_call():
    assert on_main(lambda: 5) == 5
    assert share_out([3, 1, 2], lambda item: item * 2) == [6, 2, 4]
    assert share_out([], lambda item: item) == []
    with pytest.raises(DataError, match="no"):
        on_main(lambda: (_ for _ in ()).throw(DataError("no")))
    with pytest.raises(ZeroDivisionError):
        share_out([0], lambda item: 1 / item)
