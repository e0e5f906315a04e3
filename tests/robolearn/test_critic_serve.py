"""`robolearn critic serve` as a process of its own: it says where it is, answers, and ends when told to."""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request

import pytest
import torch

from robolearn import critic_serve
from robolearn.errors import RobolearnError
from vlm_rewards.frames import Frames
from vlm_rewards.registry import load_critic

RUN = """
import argparse, sys
from robolearn import critic_serve
parser = argparse.ArgumentParser()
critic_serve.add_arguments(parser)
sys.exit(critic_serve.main(parser.parse_args(sys.argv[1:])))
"""


def arguments(*given: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    critic_serve.add_arguments(parser)
    return parser.parse_args(list(given))


def test_it_serves_until_ctrl_c():
    command = [sys.executable, "-c", RUN, "critic=random_init", "port=0", "settings.seed=3"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    line = process.stdout.readline()
    try:
        assert line.startswith("critic random_init (") and line.endswith("about any cameras\n")
        local = load_critic("random_init", seed=3)
        critic = load_critic(line.split(" at ")[1].split()[0])
        frames = Frames.now(torch.randint(0, 255, (2, 1, 24, 24, 3), dtype=torch.uint8), ("front",))
        got, expected = (c.value(frames, frames, ["go", "on"]) for c in (critic, local))
        assert got.valid.all() and critic.revision == local.revision
        torch.testing.assert_close(got.values, expected.values)
    finally:
        process.send_signal(signal.SIGINT)
        out, told = process.communicate(timeout=30)
    assert process.returncode == 0, told
    assert told.strip() == "stopped after 2 moments in 1 batches" and out == ""


def test_it_tells_its_address_as_json_and_ends_with_sigterm(capsys: pytest.CaptureFixture[str]):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    def end_once_it_answers() -> None:
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5.0).close()
                break
            except OSError:
                time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=end_once_it_answers, daemon=True)
    thread.start()
    assert critic_serve.main(arguments("critic=random_init", f"port={port}", "--json")) == 0
    thread.join()
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (told["url"], told["name"]) == (f"http://127.0.0.1:{port}", "random_init")
    assert "value" in told["capabilities"]
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (["port=0"], "critic=... must be given"),
        (["critic=nowhere/at/all"], "there is no folder nowhere/at/all"),
        (["critic=random_init", "prt=1"], "unknown setting 'prt'; did you mean 'port'"),
        (["critic=random_init", "max_batch=0"], "max_batch is at least 1"),
        (["critic=random_init", "max_wait_ms=-1"], "max_wait_ms is 0 or more"),
        (["critic=random_init", "settings.sed=4"], "unknown setting 'sed'; did you mean 'seed'"),
        (["critic=random_init", "api_key_env=NOT_SET_HERE"], "NOT_SET_HERE .* is not set"),
        (["critic=random_init", "host=256.1.1.1", "port=0"], "cannot listen on 256.1.1.1:0"),
        (["critic=random_init", "port=70000"], "cannot listen on 127.0.0.1:70000"),
    ],
)
def test_what_cannot_be_served_is_said_in_one_line(given: list[str], told: str):
    with pytest.raises(RobolearnError, match=told) as error:
        critic_serve.main(arguments(*given))
    assert "\n" not in str(error.value)
