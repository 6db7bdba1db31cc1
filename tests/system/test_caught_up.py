"""What happens while nobody watches yet: during the walk of a start, of a new location, in the first seconds.

Whatever was done, the index says what the disk says once it is quiet, and nobody had to look at it.
"""

import os
import random
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import apsw

from tests.system.harness import Mounted, eventually
from tests.system.storm import opened


def grown(top: Path, directories: int) -> list[Path]:
    """A tree of directories with a file in each."""
    made = [top / f"t{number % 20}" / f"d{number}" for number in range(directories)]
    for directory in made:
        directory.mkdir(parents=True)
        (directory / "file").write_bytes(b"x" * 10)
    return made


@contextmanager
def meanwhile(step: Callable[[], object]) -> Iterator[None]:
    """Something is done over and over beside the test."""
    ended = threading.Event()

    def go_on() -> None:
        while not ended.is_set():
            step()
            time.sleep(0.002)

    doer = threading.Thread(target=go_on)
    doer.start()
    try:
        yield
    finally:
        ended.set()
        doer.join()


def settled(library: Mounted) -> None:
    """All that was done is taken in, in its own time, and hashed."""
    library.settle()
    library.verify("--content")


def test_files_that_are_written_in_the_first_seconds(library):
    top = library.folder("D")
    directories = grown(top, 600)
    library.mount(top)
    settled(library)
    library.unmount()
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    dice = random.Random(seed)

    def append() -> None:
        with open(dice.choice(directories) / "file", "ab") as file:
            file.write(b"y")

    library.mount()
    with meanwhile(append):
        time.sleep(2)
    settled(library)


def test_a_tree_that_is_renamed_while_it_is_walked(library):
    """What changed in it while nothing ran is found, wherever it hangs by then."""
    top = library.folder("D")
    grown(top / "tree 0", 1000)
    library.mount(top)
    settled(library)
    library.unmount()
    for path in top.rglob("file"):
        path.write_bytes(b"changed while nothing ran")
    names = [f"tree {number}" for number in range(1000)]
    library.mount()

    def rename() -> None:
        (top / names[0]).rename(top / names[1])
        names.pop(0)
        time.sleep(0.05)

    with meanwhile(rename):
        time.sleep(2)
    settled(library)


def test_files_that_are_filled_while_a_new_location_is_walked(library):
    """They are empty when they are listed, and no hash is ever asked of an empty file."""
    other, top = library.folder("Other"), library.folder("D")
    directories = grown(top, 400)
    library.mount(other)
    made: list[Path] = []

    def make() -> None:
        made.append(directories[len(made) % len(directories)] / f"new {len(made)}")
        made[-1].touch()
        if len(made) > 60:
            made[-60].write_bytes(b"filled")

    with meanwhile(make):
        time.sleep(0.5)
        library.sd("location", "add", top)
        time.sleep(2.5)
    settled(library)


def test_a_file_that_is_rewritten_after_a_start_that_found_something_new(library):
    """Writes are heard of as soon as what was new has been walked again."""
    top = library.folder("D")
    grown(top, 5)
    (top / "f").write_bytes(b"first")
    os.utime(top / "f", (10**9, 10**9))
    library.mount(top)
    settled(library)
    library.unmount()
    (top / "made while nothing ran").mkdir()
    library.mount()
    library.wait_idle()
    (top / "f").write_bytes(b"other")
    os.utime(top / "f", (10**9, 10**9))
    (top / "f").rename(top / "g")
    settled(library)


def test_a_directory_that_somebody_looks_into_while_it_is_walked(library):
    """Its watch is set by who looks, after the files in it were read and before they changed."""
    top = library.folder("D")
    grown(top, 3)
    library.mount(top)
    settled(library)
    library.unmount()
    files = [top / "big" / f"f{number:06}" for number in range(20000)]
    (top / "big").mkdir()
    for file in files:
        file.touch()
    library.mount()
    database = apsw.Connection(str(library.library_dir / "library.db"), flags=apsw.SQLITE_OPEN_READONLY)
    eventually(lambda: next(database.execute("SELECT count(*) FROM entry"))[0] > 300, "it is walked", 30)
    for number, file in enumerate(files[-100:]):
        file.chmod(0o600)
        if number % 2:
            file.write_bytes(b"written")
    assert (library.mnt / "D" / "big" / files[0].name).stat().st_size == 0
    database.close()
    settled(library)


def test_a_directory_that_is_there_twice_is_not_walked_for_ever(library, root_only):
    top = library.folder("D")
    (top / "sub" / "below").mkdir(parents=True)
    (top / "twice").mkdir()
    os.setxattr(top / "sub", "user.comment", b"seen on every walk")
    subprocess.run(["mount", "--bind", top / "sub", top / "twice"], check=True)
    try:
        library.mount(top)
        time.sleep(1)
        library.sd("status", "--wait-idle", "--timeout", "10")
    finally:
        subprocess.run(["umount", "-l", top / "twice"], check=True)


def test_a_small_file_is_not_kept_waiting_by_large_ones(library):
    """Who has read for long goes on at once."""
    top = library.folder("D")
    for number in range(3):
        (top / f"large {number}").touch()
        os.truncate(top / f"large {number}", 200 << 20)
    library.mount(top)
    library.sd("status", "--wait-idle", "--timeout", "60")
    began_s = time.monotonic()
    (top / "small").write_bytes(b"small")
    time.sleep(0.2)
    library.wait_idle()
    assert time.monotonic() - began_s < 10


def test_a_volume_that_comes_back_is_watched(library):
    """All of it, also what nobody has looked into since."""
    top = library.folder("D")
    directories = grown(top, 100)
    library.mount(top)
    settled(library)
    aside = top.with_name("aside")
    top.rename(aside)
    time.sleep(3)
    assert library.sd_json("location", "list")["locations"][0]["branches"][0]["state"] == "missing"
    aside.rename(top)
    time.sleep(3)
    library.wait_idle()
    for directory in directories:
        with open(directory / "file", "ab") as file:
            file.write(b"y")
        os.utime(directory / "file", (10**9, 10**9))
    settled(library)


def test_tags_of_files_whose_change_was_noted_when_it_was_killed(library):
    """The row says that the file changed; that its attributes were not read yet is not forgotten with the process."""
    top = library.folder("D")
    files = [top / f"d{number % 10}" / f"f{number}" for number in range(400)]
    for file in files:
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(b"x")
    library.mount(top)
    settled(library)
    for number in range(8):
        said = b"round%d" % number
        for file in files:
            os.setxattr(file, "user.xdg.tags", said)
        time.sleep(0.02 * number)
        library.kill()
        library.mount()
        settled(library)
        with opened(library) as db:
            sql = "SELECT t.name, count(*) FROM tagging g JOIN tag t ON t.id = g.tag_id GROUP BY t.name"
            assert db.execute(sql).fetchall() == [(said.decode(), len(files))]
