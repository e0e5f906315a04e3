"""What ``device=`` means, and what is said where it cannot be had."""

from pathlib import Path

import pytest
import torch

from robolearn import cli
from robolearn.devices import DeviceError, learner_device

NO_GPU = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """A torch that reports two GPUs: none is used, only counted."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)


def torchrun(monkeypatch: pytest.MonkeyPatch, local_rank: int, processes: int) -> None:
    monkeypatch.setenv("LOCAL_RANK", str(local_rank))
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(processes))


def test_auto_follows_the_worlds() -> None:
    assert learner_device("auto", "cpu") == torch.device("cpu")
    assert learner_device("auto", torch.device("cuda:1")) == torch.device("cuda:1")
    assert learner_device("cpu", torch.device("cuda:1")) == torch.device("cpu")


@pytest.mark.parametrize("device", ["gpu", "cuda:", "cuda:-1", "cuda:x", "", "CPU"])
def test_other_names_are_refused(device: str) -> None:
    with pytest.raises(DeviceError, match="unknown device .*; devices: auto, cpu, cuda, cuda:<number>"):
        learner_device(device, "cpu")


@NO_GPU
@pytest.mark.parametrize("device", ["cuda", "cuda:1"])
def test_a_gpu_that_is_not_there_is_one_line(
    device: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was asked, what torch reports, what to do; before a world is made."""
    monkeypatch.chdir(tmp_path)
    assert cli.main(["train", f"device={device}", "budget.iterations=1"]) == cli.USER_ERROR
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert f"device={device}: torch {torch.__version__}" in err
    assert "use device=cpu" in err
    assert list(tmp_path.iterdir()) == []


def test_a_number_that_is_not_there(two_gpus: None) -> None:
    assert learner_device("cuda", "cpu") == torch.device("cuda:0")
    assert learner_device("cuda:1", "cpu") == torch.device("cuda:1")
    with pytest.raises(DeviceError, match=r"device=cuda:2: torch reports cuda:0, cuda:1; use one of these"):
        learner_device("cuda:2", "cpu")


def test_each_process_of_torchrun_takes_its_own(two_gpus: None, monkeypatch: pytest.MonkeyPatch) -> None:
    torchrun(monkeypatch, 1, 2)
    assert learner_device("cuda", "cpu") == torch.device("cuda:1")
    with pytest.raises(DeviceError, match="device=cuda:1 is one GPU for 2 processes; device=cuda gives each its own"):
        learner_device("cuda:1", "cpu")
    torchrun(monkeypatch, 2, 3)
    with pytest.raises(DeviceError, match="3 processes on this machine need a GPU each, torch reports cuda:0, cuda:1"):
        learner_device("cuda", "cpu")
