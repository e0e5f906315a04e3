"""Finding transformers models: folders, the cache, what is missing, and what a revision is."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from tests.vlm_rewards.tiny_encoders import save_clip
from vlm_rewards.models import ModelError, local_model, model_type, quiet, revision_of
from vlm_rewards.registry import load_critic

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_clip(tmp_path_factory.mktemp("models") / "clip")


@pytest.fixture
def cache(tmp_path: Path, clip: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A Hugging Face cache, laid out as the hub's client does, with one model."""
    folder = tmp_path / "hub"
    repository = folder / "models--acme--clip-vit-tiny"
    shutil.copytree(clip, repository / "snapshots" / COMMIT)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(folder))
    return folder


@pytest.fixture
def hub(clip: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """A hub with one model, acme/new-clip; gives the paths that it was asked for."""
    asked: list[str] = []
    files = {path.name: path.read_bytes() for path in clip.iterdir()} | {"tf_model.h5": b"other format"}

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            asked.append(self.path)
            path = self.path.partition("?")[0]
            body, headers = b"", {"X-Error-Code": "RepoNotFound"}
            if "/acme/new-clip/tree/" in path:
                tree = [{"type": "file", "path": name, "size": len(data), "oid": name} for name, data in files.items()]
                body, headers = json.dumps(tree).encode(), {}
            elif "/acme/new-clip/revision/" in path or path.endswith("/acme/new-clip"):
                siblings = [{"rfilename": name} for name in files]
                body, headers = json.dumps({"id": "acme/new-clip", "sha": COMMIT, "siblings": siblings}).encode(), {}
            elif path.startswith("/acme/new-clip/resolve/"):
                name = path.rpartition("/")[2]
                body, headers = files[name], {"ETag": f'"{name}"', "X-Repo-Commit": COMMIT}
            self.send_response(200 if body else 404)
            for key, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(key, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        do_HEAD = do_GET

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", address)
    monkeypatch.setattr(
        "huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}"
    )
    monkeypatch.setattr("huggingface_hub.hf_api.api.endpoint", address)
    yield asked
    server.shutdown()
    server.server_close()


def said(what: object, **settings: object) -> str:
    with pytest.raises(ModelError) as caught:
        load_critic(what, **settings)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_folder_is_found_and_its_type_read(clip: Path) -> None:
    assert local_model(clip) == clip
    assert model_type(str(clip)) == "clip"


def test_a_cached_id_is_found_with_its_commit(cache: Path) -> None:
    found = local_model("acme/clip-vit-tiny")
    assert found == cache / "models--acme--clip-vit-tiny" / "snapshots" / COMMIT
    assert revision_of(found) == COMMIT
    assert local_model(f"acme/clip-vit-tiny@{COMMIT}") == found
    assert model_type("acme/clip-vit-tiny") == "clip"


def test_an_id_that_is_not_there_says_where_it_looked_and_how_to_fetch_it(cache: Path, hub: list[str]) -> None:
    message = said("acme/clip-vit-tniy")
    assert "'acme/clip-vit-tniy'" in message and str(cache) in message
    assert "did you mean 'acme/clip-vit-tiny'?" in message
    assert "hf download acme/clip-vit-tniy" in message and "download=true" in message
    assert "--revision v2" in said("acme/clip-vit-tiny@v2")
    assert hub == []


def test_a_misspelt_baseline_is_recognised(cache: Path) -> None:
    assert "did you mean 'elapsed_time'?" in said("elapsed_tme")


def test_what_is_no_id_is_said_to_be_none(cache: Path) -> None:
    assert "neither a folder nor a possible model id" in said("a model/of mine")


def test_the_network_is_asked_only_on_request(cache: Path, hub: list[str]) -> None:
    assert local_model("acme/clip-vit-tiny", download=True).is_dir()
    assert hub == []
    assert "cannot fetch model 'acme/other'" in said("acme/other", download=True)
    assert any("acme/other" in path for path in hub)


def test_a_model_is_fetched_on_request_in_one_format(cache: Path, hub: list[str]) -> None:
    folder = local_model("acme/new-clip", download=True)
    assert folder.is_relative_to(cache) and revision_of(folder) == COMMIT
    assert (folder / "model.safetensors").is_file() and not (folder / "tf_model.h5").exists()
    hub.clear()
    assert local_model("acme/new-clip") == folder
    assert hub == []


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "critics").mkdir()
    message = said(tmp_path / "critic")
    assert f"there is no folder {tmp_path / 'critic'}" in message and "did you mean 'critics'?" in message
    assert "there is no folder" in said("./nowhere")


def test_a_folder_without_a_model(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("")
    message = said(tmp_path)
    assert "config.json" in message and "notes.txt" in message
    assert "is a file" in said(tmp_path / "notes.txt")


@pytest.mark.parametrize("text", ["{", "[1]", '"clip"'])
def test_a_damaged_configuration(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_text(text)
    assert str(tmp_path / "config.json") in said(tmp_path)


def test_a_configuration_alone_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "clip"}))
    assert "without weights" in said(tmp_path)
    (tmp_path / "model.safetensors.index.json").write_text(
        json.dumps({"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}})
    )
    (tmp_path / "model-1.safetensors").write_bytes(b"")
    assert "1 weight files missing, such as model-2.safetensors" in said(tmp_path)


def test_a_model_of_another_type_names_those_that_judge(clip: Path, tmp_path: Path) -> None:
    shutil.copytree(clip, tmp_path / "m")
    (tmp_path / "m" / "config.json").write_text(json.dumps({"model_type": "clap"}))
    with pytest.raises(Exception, match="unknown model type 'clap'; did you mean 'clip'"):
        load_critic(tmp_path / "m")
    (tmp_path / "m" / "config.json").write_text(json.dumps({}))
    assert "names no model_type" in said(tmp_path / "m")


def test_a_revision_follows_from_what_decides_answers(clip: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(clip, tmp_path / "copy")
    assert revision_of(copy) == revision_of(clip)
    (copy / "card.json").write_text("{}")
    assert revision_of(copy) == revision_of(clip)
    weights = bytearray((copy / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (copy / "model.safetensors").write_bytes(bytes(weights))
    assert revision_of(copy) != revision_of(clip)
    other = save_clip(tmp_path / "other", seed=1)
    assert (other / "model.safetensors").stat().st_size == (clip / "model.safetensors").stat().st_size
    assert revision_of(other) != revision_of(clip)


def test_without_the_extra_one_line_says_what_to_install(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    assert "pip install 'robolearn[vlm]'" in said(clip)
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    message = said("elapsed_tme")
    assert "did you mean 'elapsed_time'?" in message and "pip install 'robolearn[vlm]'" in message


def test_quiet_leaves_the_level_of_notices_as_it_was() -> None:
    from transformers.utils import logging

    before = logging.get_verbosity()
    with quiet():
        assert logging.get_verbosity() == logging.ERROR and not logging.is_progress_bar_enabled()
    assert logging.get_verbosity() == before and logging.is_progress_bar_enabled()
