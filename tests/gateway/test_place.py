"""Ports, the master key, and the log."""

import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from rollout.gateway.place import BoundedLog, ensure_master_key, port_is_free


def test_a_port_is_free_until_somebody_listens_there(free_port: int) -> None:
    assert port_is_free("127.0.0.1", free_port)
    with socket.create_server(("127.0.0.1", free_port)):
        assert not port_is_free("127.0.0.1", free_port)
    assert port_is_free("127.0.0.1", free_port)


def test_a_port_taken_on_every_address_is_taken_on_loopback(free_port: int) -> None:
    with socket.create_server(("0.0.0.0", free_port)):
        assert not port_is_free("127.0.0.1", free_port)


@pytest.mark.parametrize("port", [0, -1, 65536])
def test_a_port_that_cannot_be_is_refused(port: int) -> None:
    with pytest.raises(ValueError, match="between 1 and 65535"):
        port_is_free("127.0.0.1", port)


def test_an_unknown_host_is_named(free_port: int) -> None:
    with pytest.raises(ValueError, match="nowhere"):
        port_is_free("nowhere.invalid", free_port)


def test_the_master_key_is_made_once_and_only_its_owner_can_read_it(tmp_path: Path) -> None:
    path = tmp_path / "data" / "litellm-master-key"
    key = ensure_master_key(path)
    assert key.startswith("sk-")
    assert len(key) > 30
    assert path.stat().st_mode & 0o777 == 0o600
    path.chmod(0o644)
    assert ensure_master_key(path) == key
    assert path.stat().st_mode & 0o777 == 0o600
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("broken", ["", "sk-", "not a key at all, only words", "sk-\N{SNOWMAN}" * 10])
def test_a_broken_master_key_is_made_anew(tmp_path: Path, broken: str) -> None:
    path = tmp_path / "key"
    path.write_text(broken, encoding="utf-8")
    key = ensure_master_key(path)
    assert key.startswith("sk-")
    assert path.read_text().strip() == key


def test_all_who_make_the_first_key_at_once_get_the_same_one(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        keys = set(pool.map(lambda _: ensure_master_key(tmp_path / "key"), range(32)))
    assert len(keys) == 1


def test_a_log_never_grows_past_its_limit_and_keeps_one_predecessor(tmp_path: Path) -> None:
    with BoundedLog(tmp_path / "log", limit=1000) as log:
        for number in range(200):
            log.write(f"line {number:03} of some words\n".encode())
    assert (tmp_path / "log").stat().st_size <= 1000
    assert (tmp_path / "log.1").stat().st_size <= 1000
    assert "line 199" in (tmp_path / "log").read_text()
    assert len(list(tmp_path.iterdir())) == 2


def test_only_its_owner_can_read_a_log_also_one_that_was_there_before(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text("from before\n")
    path.chmod(0o644)
    with BoundedLog(path, limit=30) as log:
        for _ in range(3):
            log.write(b"more than half of it\n")
    assert {file.name: file.stat().st_mode & 0o777 for file in tmp_path.iterdir()} == {"log": 0o600, "log.1": 0o600}


@pytest.mark.parametrize("step", [1, 7, 100_000])
@pytest.mark.parametrize("filler", [b"x", b"x" * 16_380, b"word\n"])
def test_a_secret_never_reaches_a_log_however_its_output_was_cut(tmp_path: Path, step: int, filler: bytes) -> None:
    secret = "sk-very-secret-0123456789"
    output = (filler * 3 + secret.encode() + filler) * 2
    with BoundedLog(tmp_path / "log", secret_values=[secret, ""]) as log:
        for start in range(0, len(output), step):
            log.write(output[start : start + step])
    written = (tmp_path / "log").read_bytes()
    assert b"secret" not in written
    assert b"***" in written
