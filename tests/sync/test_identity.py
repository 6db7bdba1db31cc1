"""Who this device is: made once, the same for ever, and never half there."""

import json
import os
import stat
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nacl.signing import SigningKey, VerifyKey

from index.model.errors import StoreCorrupt
from index.model.ids import uuid_text
from index.store.devices import slug_of
from sync.wire import identity
from sync.wire.identity import load_or_create, write_atomically


def mode_of(path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


# -- the pair of files -------------------------------------------------------------------------------------------------


def test_a_device_is_made_once(tmp_path):
    """The second call finds what the first made, to the byte."""
    first = load_or_create(tmp_path)
    files = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert set(files) == {"device.json", "device_key"}
    assert load_or_create(tmp_path) == first
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == files


def test_two_devices_are_two(tmp_path):
    """However alike their machines are."""
    places = [tmp_path / "a", tmp_path / "b"]
    for place in places:
        place.mkdir()
    a, b = (load_or_create(place) for place in places)
    assert a.uuid != b.uuid
    assert a.public_key != b.public_key


def test_the_key_is_for_its_owner_only_and_the_facts_for_anybody(tmp_path):
    """Whatever the umask is."""
    old = os.umask(0)
    try:
        load_or_create(tmp_path)
    finally:
        os.umask(old)
    assert (mode_of(tmp_path / "device_key"), mode_of(tmp_path / "device.json")) == (0o600, 0o644)


def test_a_key_that_others_could_read_is_closed_again(tmp_path):
    """A copy or a restore opens it easily."""
    load_or_create(tmp_path)
    (tmp_path / "device_key").chmod(0o644)
    load_or_create(tmp_path)
    assert mode_of(tmp_path / "device_key") == 0o600


def test_id_and_key_prove_each_other(tmp_path):
    """The id is made of the public key, shaped as a uuid of version 8; the seed in the file signs for it."""
    device = load_or_create(tmp_path)
    assert device.uuid == identity.uuid_of(device.public_key)
    assert device.uuid[6] >> 4 == 8
    assert device.uuid[8] >> 6 == 0b10
    signing = SigningKey(bytes.fromhex((tmp_path / "device_key").read_text()))
    assert VerifyKey(device.public_key).verify(signing.sign(b"hello")) == b"hello"


def test_the_facts_are_for_people_and_programs(tmp_path):
    """JSON with the id as text; the seed is nowhere in it."""
    device = load_or_create(tmp_path)
    text = (tmp_path / "device.json").read_text()
    facts = json.loads(text)
    assert facts["version"] == 1
    assert (facts["id"], facts["name"], facts["slug"]) == (uuid_text(device.uuid), device.name, device.slug)
    assert facts["public_key"] == device.public_key.hex()
    assert facts["created_ns"] == device.created_ns
    assert (tmp_path / "device_key").read_text().strip() not in text


def test_a_name_that_was_edited_is_taken(tmp_path):
    """The file is a person's to edit; the id stays."""
    before = load_or_create(tmp_path)
    path = tmp_path / "device.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "name": "Küche", "more": 1}))
    after = load_or_create(tmp_path)
    assert (after.name, after.uuid) == ("Küche", before.uuid)


# -- what is damaged ---------------------------------------------------------------------------------------------------


def one_line(caught: "pytest.ExceptionInfo[StoreCorrupt]", *parts: object) -> None:
    text = str(caught.value)
    assert "\n" not in text
    for part in parts:
        assert str(part) in text


def test_a_lost_key_is_not_replaced(tmp_path):
    """A new one would be another device under the old name."""
    load_or_create(tmp_path)
    (tmp_path / "device_key").unlink()
    with pytest.raises(StoreCorrupt) as caught:
        load_or_create(tmp_path)
    one_line(caught, tmp_path / "device_key", "backup")
    assert not (tmp_path / "device_key").exists()


def test_a_start_that_was_cut_short_is_finished(tmp_path):
    """The key is written first: facts that are missing are made from it, for the same device."""
    before = load_or_create(tmp_path)
    (tmp_path / "device.json").unlink()
    assert load_or_create(tmp_path).uuid == before.uuid


@pytest.mark.parametrize("data", [b"", b"zz", b"00" * 31, b"00" * 33, b"\xff" * 64, "ä".encode() * 32])
def test_a_key_file_without_a_key_is_named_and_left_alone(tmp_path, data):
    """One line with the cure, never a new key over it."""
    load_or_create(tmp_path)
    (tmp_path / "device_key").write_bytes(data)
    with pytest.raises(StoreCorrupt) as caught:
        load_or_create(tmp_path)
    one_line(caught, tmp_path / "device_key", "backup")
    assert (tmp_path / "device_key").read_bytes() == data


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '"x"', "{}", '{"name": "x", "slug": "x"}', "\xff"])
def test_facts_that_make_no_sense_are_named_and_left_alone(tmp_path, text):
    """One line with the cure."""
    load_or_create(tmp_path)
    (tmp_path / "device.json").write_text(text, "latin-1")
    with pytest.raises(StoreCorrupt) as caught:
        load_or_create(tmp_path)
    one_line(caught, tmp_path / "device.json")
    assert (tmp_path / "device.json").read_text("latin-1") == text


@pytest.mark.parametrize(
    "facts",
    [
        '{"version": 1e999}',
        '{"version": ' + "[" * 100_000,
        '{"version": 1, "name": "x", "slug": "x", "created_ns": ' + "9" * 30 + "}",
        '{"version": 1, "name": "\\ud800x", "slug": "x", "created_ns": 1}',
        '{"version": 1, "name": "x", "slug": "../x", "created_ns": 1}',
    ],
    ids=["infinite", "deep", "late", "half a character", "a slug that is a path"],
)
def test_facts_beyond_all_bounds_are_named_too(tmp_path, facts):
    load_or_create(tmp_path)
    (tmp_path / "device.json").write_text(facts)
    with pytest.raises(StoreCorrupt) as caught:
        load_or_create(tmp_path)
    assert str(tmp_path / "device.json") in str(caught.value)


def test_files_of_two_devices_are_refused(tmp_path):
    """A key restored beside another's facts."""
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        load_or_create(tmp_path / name)
    (tmp_path / "a/device_key").write_bytes((tmp_path / "b/device_key").read_bytes())
    with pytest.raises(StoreCorrupt) as caught:
        load_or_create(tmp_path / "a")
    one_line(caught, "two different devices")


def test_two_first_starts_at_once_agree(tmp_path, monkeypatch):
    """Of two libraries of a new data directory: one device is made, and both use it ever after."""
    found = []
    other = threading.Thread(target=lambda: found.append(load_or_create(tmp_path)))
    real_generate = SigningKey.generate

    def overtaken() -> SigningKey:
        """Another start does all of it between our look at the files and our own key, unless it has to wait."""
        if other.ident is None:
            other.start()
            other.join(1)
        return real_generate()

    monkeypatch.setattr(identity.SigningKey, "generate", overtaken)
    try:
        ours = load_or_create(tmp_path)
    finally:
        other.join(10)
    assert found == [ours]
    assert load_or_create(tmp_path) == ours


# -- writing -----------------------------------------------------------------------------------------------------------


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path, monkeypatch):
    """What fails before the rename leaves the old bytes."""
    path = tmp_path / "facts"
    write_atomically(path, b"old")

    def fail(*args: object) -> None:
        raise OSError(28, "no space")

    for step in ("fsync", "replace"):
        with monkeypatch.context() as patched:
            patched.setattr(identity.os, step, fail)
            with pytest.raises(OSError):
                write_atomically(path, b"new")
        assert path.read_bytes() == b"old"
    write_atomically(path, b"new", 0o640)
    assert path.read_bytes() == b"new"
    assert mode_of(path) == 0o640
    assert [p.name for p in tmp_path.iterdir()] == ["facts"]


def test_it_is_on_disk_before_it_has_its_name(tmp_path, monkeypatch):
    """File synced, renamed, directory synced: the order that survives a loss of power."""
    done = []
    for step in ("write", "fsync", "replace"):
        real = getattr(os, step)

        def noted(*args, step=step, real=real):
            done.append(step)
            return real(*args)

        monkeypatch.setattr(identity.os, step, noted)
    write_atomically(tmp_path / "facts", b"new")
    assert done == ["write", "fsync", "replace", "fsync"]


def test_the_temporary_name_follows_no_link(tmp_path):
    """One that lies there leads nowhere."""
    precious = tmp_path / "precious"
    precious.write_text("data")
    (tmp_path / f".facts.{os.getpid()}.tmp").symlink_to(precious)
    with pytest.raises(OSError):
        write_atomically(tmp_path / "facts", b"new")
    assert precious.read_text() == "data"


# -- names -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "wanted"),
    [("desk", "desk"), ("Anna's MacBook Pro", "anna-s-macbook-pro"), ("--", "device"), ("", "device"), ("ä", "device")],
)
def test_a_slug_is_the_name_as_far_as_it_is_plain(name, wanted):
    """Letters, digits and single dashes."""
    assert wanted == slug_of(name)


@given(st.text())
def test_a_slug_is_one_component_of_a_path(name):
    """Of any name, and of itself it is itself."""
    slug = slug_of(name)
    assert slug
    assert slug.isascii()
    assert not set(slug) & set("/. \0\n()")
    assert slug == slug_of(slug)
