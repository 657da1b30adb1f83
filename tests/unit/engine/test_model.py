import hashlib
import os
import sys

import pytest

from relay.engine import model


@pytest.fixture(autouse=True)
def fresh_answer():
    model.unavailable.cache_clear()
    yield
    model.unavailable.cache_clear()


@pytest.fixture
def packages(tmp_path, monkeypatch):
    """A folder on the import path with an engine package and a model of known content."""
    (tmp_path / "engine_stub_xyz").mkdir()
    (tmp_path / "model_stub_xyz").mkdir()
    (tmp_path / "model_stub_xyz" / "__init__.py").write_text("raise ImportError('imported')")
    (tmp_path / "model_stub_xyz" / model.MODEL_FILE).write_bytes(b"weights")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(model, "ENGINE_PACKAGE", "engine_stub_xyz")
    monkeypatch.setattr(model, "MODEL_PACKAGE", "model_stub_xyz")
    return tmp_path


def test_the_model_is_found_without_importing_its_package(packages):
    assert model.find_model() == packages / "model_stub_xyz" / model.MODEL_FILE
    assert "model_stub_xyz" not in sys.modules


def test_without_its_package_the_model_is_found_in_the_users_cache(packages, monkeypatch):
    monkeypatch.setattr(model, "MODEL_PACKAGE", "no_such_model_xyz")
    assert model.lacks_model()
    kept = packages / "cache" / "chat-relay" / model.MODEL_FILE
    kept.parent.mkdir(parents=True)
    kept.write_bytes(b"weights")
    assert model.find_model() == kept
    assert not model.lacks_model()


@pytest.mark.parametrize("named", ["", "relative/folder"])
def test_the_cache_lies_in_the_home_where_the_environment_names_no_other(
    tmp_path, monkeypatch, named
):
    monkeypatch.setenv("XDG_CACHE_HOME", named)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert model.cache_folder() == tmp_path / ".cache" / "chat-relay"


def test_a_user_without_a_home_has_no_cache(monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    assert model.cache_folder() is None


def test_a_missing_engine_is_the_reason(packages, monkeypatch):
    monkeypatch.setattr(model, "ENGINE_PACKAGE", "no_such_engine_xyz")
    assert "no_such_engine_xyz is not installed" in model.unavailable()
    assert "pip install 'chat-relay[local]'" in model.unavailable()
    assert not model.lacks_model()


def test_a_missing_model_package_is_the_reason(packages, monkeypatch):
    monkeypatch.setattr(model, "MODEL_PACKAGE", "no_such_model_xyz")
    assert "model file is missing" in model.unavailable()
    assert "relay model fetch" in model.unavailable()


def test_a_package_without_the_file_is_the_reason(packages):
    (packages / "model_stub_xyz" / model.MODEL_FILE).unlink()
    assert "model file is missing" in model.unavailable()


def test_a_file_with_another_digest_is_the_reason(packages):
    assert "SHA-256" in model.unavailable()


def test_a_genuine_file_is_told_from_one_that_differs_in_a_byte(tmp_path):
    file = tmp_path / "model.gguf"
    file.write_bytes(b"weights")
    digest = hashlib.sha256(b"weights").hexdigest()
    assert model.is_genuine(file, digest)
    file.write_bytes(b"weightz")
    assert not model.is_genuine(file, digest)


def test_a_platform_without_unix_sockets_is_the_reason(packages, monkeypatch):
    monkeypatch.delattr("socket.AF_UNIX")
    assert "Unix sockets" in model.unavailable()


def test_the_installed_model_is_the_one_that_was_checked():
    assert model.unavailable() is None
