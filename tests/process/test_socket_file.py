from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tidegate.process.socket_file import SocketFile, obstacle

NOT_OURS = 65_000  # a group


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "node.sock")


@pytest.fixture
def files() -> Iterator[list[SocketFile]]:
    made: list[SocketFile] = []
    yield made
    for each in made:
        each.sock.close()


def listen(path: str, *, mode: str = "0660", group: str | None = None, backlog: int = 8) -> SocketFile:
    return SocketFile("server.socket", path, mode=mode, group=group, backlog=backlog)


def leave_behind(path: str) -> None:
    """As a process does that is killed."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(path)
        sock.listen()


@pytest.mark.parametrize("mode", ["0600", "0660", "0666"])
def test_it_has_the_mode_and_the_group_that_were_asked_for_whatever_the_umask(
    path: str, files: list[SocketFile], mode: str
) -> None:
    before = os.umask(0o777)
    try:
        files.append(listen(path, mode=mode, group=str(os.getgid())))
    finally:
        os.umask(before)
    found = os.stat(path)
    assert stat.S_IMODE(found.st_mode) == int(mode, 8)
    assert found.st_gid == os.getgid()
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(path)


def test_it_gets_its_name_when_everything_is_as_it_should_be(
    path: str, files: list[SocketFile], monkeypatch: pytest.MonkeyPatch
) -> None:
    leave_behind(path)
    before = os.stat(path).st_ino
    seen: list[tuple[int, int]] = []
    rename = os.rename

    def watch(unnamed: str, name: str) -> None:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(unnamed)
        seen.append((stat.S_IMODE(os.stat(unnamed).st_mode), os.stat(name).st_ino))
        rename(unnamed, name)

    monkeypatch.setattr(os, "rename", watch)
    files.append(listen(path, mode="0600"))
    assert seen == [(0o600, before)]
    assert os.listdir(os.path.dirname(path)) == ["node.sock"]


def test_a_file_that_a_killed_process_left_behind_is_replaced(path: str, files: list[SocketFile]) -> None:
    leave_behind(path)
    assert obstacle(path) == ""
    files.append(listen(path))
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(path)


def test_one_on_which_another_listens_stays_that_ones(path: str, files: list[SocketFile]) -> None:
    files.append(listen(path, backlog=0))
    with pytest.raises(
        OSError, match=r"^server\.socket: cannot listen on .*/node\.sock: another process listens there"
    ):
        listen(path)
    with socket.socket(socket.AF_UNIX) as sock:
        sock.setblocking(False)
        assert sock.connect_ex(path) == 11  # those who looked are still there: it is full
    assert obstacle(path).startswith("another process listens there")
    files[0].remove()
    assert not os.path.exists(path)


def test_of_many_who_want_it_at_once_one_gets_it(path: str) -> None:
    for _ in range(20):
        leave_behind(path)
        files: list[SocketFile] = []
        refused: list[str] = []

        def come(start: threading.Barrier, files: list[SocketFile] = files, refused: list[str] = refused) -> None:
            start.wait()
            try:
                files.append(listen(path))
            except OSError as exc:
                refused.append(str(exc))

        start = threading.Barrier(8)
        threads = [threading.Thread(target=come, args=(start,)) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for file in files:
            file.remove()
            file.sock.close()
        assert len(files) == 1
        assert len(refused) == 7
        assert all("another process listens there" in text for text in refused)


def test_what_is_no_socket_is_left_alone(path: str) -> None:
    Path(path).write_text("precious")
    with pytest.raises(OSError, match="what is there is no Unix socket"):
        listen(path)
    assert Path(path).read_text() == "precious"
    os.unlink(path)
    os.mkdir(path)
    with pytest.raises(OSError, match="what is there is no Unix socket"):
        listen(path)


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=f"server.socket: cannot listen on .*: there is no folder {tmp_path}/none$"):
        listen(str(tmp_path / "none" / "node.sock"))


def test_a_group_that_is_not_there_is_named_and_nothing_is_left(path: str) -> None:
    with pytest.raises(OSError, match=r"cannot listen on .*: there is no group no-such-group"):
        listen(path, group="no-such-group")
    assert not os.path.exists(path)


@pytest.mark.skipif(os.getuid() != 0, reason="becomes another user")
def test_a_group_that_the_service_is_not_in_is_refused_with_a_cure() -> None:
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o777)
        program = (
            "import os; from tidegate.process.socket_file import SocketFile\n"
            "os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
            f"SocketFile('server.socket', '{folder}/node.sock', mode='0660', group='{NOT_OURS}', backlog=8)"
        )
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
        assert f"group {NOT_OURS} cannot have it: the service must be in that group, or root" in done.stderr
        assert os.listdir(folder) == []


def test_at_the_end_only_its_own_file_is_taken_away(path: str, files: list[SocketFile]) -> None:
    files.append(first := listen(path))
    os.rename(path, path + ".old")
    files.append(listen(path))
    first.remove()
    assert os.path.exists(path)
    files[1].remove()
    assert not os.path.exists(path)
    files[1].remove()
