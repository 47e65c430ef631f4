"""Which folders captures are kept in, and what of them is removed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pageowner import Snapshot
from pageowner.errors import PageownerError
from pageowner.storage import series
from pageowner.storage.recording import Recorder, owned_folder

NOBODY = 65534
BEGAN = 1_700_000_000.0
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can make files of another user")


def refusal(folder: Path) -> str:
    with pytest.raises(PageownerError) as said, owned_folder(folder):
        pass
    assert "\n" not in str(said.value)
    return str(said.value)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    folder = tmp_path / "above" / "captures"
    folder.mkdir(parents=True)
    return folder


@as_root
def test_a_folder_of_another_user_is_refused(place: Path) -> None:
    os.chown(place, NOBODY, NOBODY)
    assert f"uid {NOBODY}" in refusal(place)


def test_a_folder_that_others_may_write_to_is_refused(place: Path) -> None:
    for mode in (0o777, 0o1777, 0o702):
        place.chmod(mode)
        assert f"others (mode {mode:04o})" in refusal(place)
    place.chmod(0o755)
    with owned_folder(place):
        pass


@as_root
def test_a_folder_that_a_group_may_write_to_is_refused_but_for_roots(place: Path) -> None:
    place.chmod(0o775)
    with owned_folder(place):
        pass
    os.chown(place, 0, NOBODY)
    assert "others (mode 0775)" in refusal(place)


@as_root
def test_so_is_one_below_a_folder_of_another_user(place: Path) -> None:
    os.chown(place.parent, NOBODY, NOBODY)
    for folder in (place, place / "new", place / "new" / "newer"):
        assert f"{place.parent} belongs to" in refusal(folder)
    assert os.listdir(place) == []


def test_so_is_one_below_a_folder_that_others_may_write_to_unless_it_is_sticky(
        place: Path) -> None:
    place.parent.chmod(0o777)
    assert f"{place.parent} is writable by others" in refusal(place)
    place.parent.chmod(0o1777)
    with owned_folder(place):
        pass


@as_root
def test_a_link_of_another_user_on_the_way_is_refused_and_one_of_roots_followed(
        place: Path) -> None:
    shared = place.parent
    shared.chmod(0o1777)
    link = shared / "link"
    link.symlink_to(place)
    with owned_folder(link / "below"):
        assert (place / "below").is_dir()
    os.lchown(link, NOBODY, NOBODY)
    for folder in (link, link / "new"):
        assert f"link is a symbolic link of nobody (uid {NOBODY})" in refusal(folder)
    assert os.listdir(place) == ["below"]


def test_folders_on_the_way_are_made_and_the_last_for_its_owner_alone(tmp_path: Path) -> None:
    with owned_folder(tmp_path / "a" / "b" / "c"):
        pass
    assert (tmp_path / "a" / "b" / "c").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "a" / "b").stat().st_mode & 0o022 == 0


def test_a_link_laid_under_the_name_of_a_capture_is_not_followed(
        place: Path, sample61: Snapshot) -> None:
    victim = place.parent / "victim"
    victim.write_bytes(b"root's")
    with owned_folder(place) as handle:
        (place / series.file_name(BEGAN)).symlink_to(victim)
        recorder = Recorder(place, 600, 86400, handle)
        with pytest.raises(PageownerError, match="cannot write"):
            recorder.add(sample61, BEGAN)
        assert recorder.add(sample61, BEGAN + 600).is_file()
    assert victim.read_bytes() == b"root's"


def test_captures_stay_in_the_folder_whatever_its_name_becomes(
        place: Path, sample61: Snapshot) -> None:
    with owned_folder(place) as handle:
        recorder = Recorder(place, 86400, 86400, handle)  # all whole
        place.rename(place.parent / "moved")
        victim = place
        victim.mkdir()
        (victim / series.file_name(BEGAN)).write_bytes(b"PAR1 not a capture")
        before = os.listdir(victim)
        path = recorder.add(sample61, BEGAN + 1)
        recorder.add(sample61, BEGAN + 100 * 86400)
        assert path in recorder.forget(BEGAN + 200 * 86400)
    assert os.listdir(victim) == before
    assert os.listdir(place.parent / "moved") == [series.file_name(BEGAN + 100 * 86400)]


def test_only_captures_of_the_users_own_are_removed(place: Path, sample61: Snapshot) -> None:
    others = {series.file_name(BEGAN + 10), series.file_name(BEGAN + 20)}
    with owned_folder(place) as handle:
        recorder = Recorder(place, 86400, 86400, handle)
        old = recorder.add(sample61, BEGAN)
        recorder.add(sample61, BEGAN + 100 * 86400)
        (place / series.file_name(BEGAN + 10)).write_bytes(b"notes that have such a name")
        (place / series.file_name(BEGAN + 20)).mkdir()
        if os.geteuid() == 0:
            theirs = place / series.file_name(BEGAN + 30)
            sample61.save(theirs)
            os.chown(theirs, NOBODY, NOBODY)
            others.add(theirs.name)
        with pytest.raises(PageownerError, match="of a capture, but is damaged or"):
            recorder.forget(BEGAN + 200 * 86400)
    assert not old.exists()
    assert set(os.listdir(place)) == others | {series.file_name(BEGAN + 100 * 86400)}
