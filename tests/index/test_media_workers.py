"""Media workers: what kills a decoder costs one content its fields, and nobody else anything.

Through real processes over a real directory. The files that misbehave are read by an extractor of these tests, which
does what they say.
"""

import os
import random
from pathlib import Path

import pytest
import trio
import trio.testing

from index.media import driving, pipeline, sandbox, workermain
from index.media import sidecars as files
from index.media.registry import EXTRACTORS, Extractor
from index.scan.workers import WorkerDied, WorkerError, WorkerPool
from index.store import extracts, sidecars
from index.store.extracts import DONE, FAILED
from tests.index import media_library as media
from tests.index.media_library import MediaLibrary, taking, with_workers

TABLE = "media_probes:OPERATIONS"
#: Reads files called *.gsm, and does what stands in them.
PROBE = Extractor("probe", 1, frozenset(["gsm"]), "media_probes:obey")
READERS = (*EXTRACTORS, PROBE)

PROBES = """
import ctypes, os, socket, subprocess, sys, time
from index.media import sandbox, workermain
from index.media.registry import EXTRACTORS, Extractor

def obey(file, kind):
    words = file.read().decode().split()
    return {"snippet": str(globals()[words[1]](*words[2:]))}

def fine(*_):
    return "fine"

def crash(*_):
    ctypes.string_at(0)

def leave(*_):
    os._exit(3)

def object(*_):
    raise ValueError(str(type(None).__mro__[1]()))

def eat(*_):
    return len(bytearray(8 << 30))

def spin(*_):
    while True:
        pass

def sleep(*_):
    time.sleep(3600)

def tried(what, *args):
    try:
        return what(*args) and "done"
    except OSError as error:
        return type(error).__name__

def network(*_):
    return tried(socket.socket)

def program(*_):
    return tried(subprocess.run, ["/bin/true"])

def write(path):
    return tried(open, path, "w")

def wait(begun, until):
    open(begun, "w").close()
    while not os.path.exists(until):
        time.sleep(0.001)
    return "read"

def limits(*_):
    import resource
    names = ("AS", "FSIZE", "NOFILE", "CORE")
    return [resource.getrlimit(getattr(resource, "RLIMIT_" + name))[0] for name in names]

cpu_s, wall_s = os.environ["PROBE_LIMITS"].split()
workermain.sandbox.time_limit.__wrapped__.__defaults__ = (float(cpu_s), float(wall_s))
OPERATIONS = workermain.operations((*EXTRACTORS, Extractor("probe", 1, frozenset(["gsm"]), "media_probes:obey")))
"""


@pytest.fixture
def lib(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "media_probes.py").write_text(PROBES)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    monkeypatch.setenv("PROBE_LIMITS", "30 30")
    made = MediaLibrary(tmp_path)
    yield made
    made.store.close()


def put_orders(lib: MediaLibrary, orders: dict[str, str]) -> None:
    """Files that have the extractor do something; no two of the same content, and none is text."""
    for name, order in orders.items():
        lib.put(name, f"\x00{name} {order}".encode())


def extracted(lib: MediaLibrary, name: str) -> extracts.Extracted:
    found = extracts.get(lib.store.db, lib.content_of(name))
    assert found is not None, name
    return found


def run(lib: MediaLibrary, tmp_path: Path) -> int:
    results = 0

    async def body(pool: WorkerPool) -> None:
        nonlocal results
        results += await lib.extract(pool, READERS)

    with_workers(tmp_path, body, table=TABLE)
    return results


@pytest.mark.parametrize(
    ("order", "limits", "reason"),
    [
        ("crash", "30 30", "its decoder ended by SIGSEGV"),
        ("leave", "30 30", "its decoder ended with status 3"),
        ("eat", "30 30", "needs more than 1536 MiB of memory"),
        ("spin", "0.5 30", "took too much CPU time to decode"),
        ("sleep", "30 0.5", "took too long to decode"),
    ],
)
def test_what_kills_its_decoder_is_one_failed_content(lib, tmp_path, monkeypatch, order, limits, reason):
    """The reason is with it, all others are read, and it is not tried again."""
    monkeypatch.setenv("PROBE_LIMITS", limits)
    put_orders(lib, {"a.gsm": "fine", "b.gsm": order, "c.gsm": "fine", "d.gsm": "fine"})
    lib.put("e.md", b"# text\n")
    lib.learn()
    assert run(lib, tmp_path) == 5
    bad = extracted(lib, "b.gsm")
    assert (bad.state, bad.error, bad.fields) == (FAILED, reason, {})
    for name in ("a.gsm", "c.gsm", "d.gsm"):
        assert extracted(lib, name).fields == {"snippet": "fine"}
    assert extracted(lib, "e.md").fields["snippet"] == "# text"
    assert run(lib, tmp_path) == 0


def test_why_a_file_failed_is_said_alike_in_every_process(lib, tmp_path):
    """What a decoder says of the open file, by its descriptor, or of an object, by its address, is left out."""
    lib.put("broken.png", b"\x89PNG\r\n\x1a\n" + bytes(100))
    put_orders(lib, {"address.gsm": "object"})
    lib.learn()
    run(lib, tmp_path)
    assert extracted(lib, "broken.png").error == "UnidentifiedImageError: cannot identify image file"
    assert extracted(lib, "address.gsm").error == "ValueError: <object object>"


def test_several_that_kill_are_each_found(lib, tmp_path):
    """Also next to each other, first and last."""
    orders = {f"{i:02}.gsm": "crash" if i in (0, 3, 4, 9) else "fine" for i in range(10)}
    put_orders(lib, orders)
    lib.learn()
    run(lib, tmp_path)
    states = {name: extracted(lib, name).state for name in orders}
    assert states == {name: FAILED if order == "crash" else DONE for name, order in orders.items()}


def test_what_failed_is_tried_again_by_another_version_only(lib, tmp_path):
    """The queue asks for (extractor, version)."""
    put_orders(lib, {"a.gsm": "crash", "b.gsm": "fine"})
    lib.learn()
    run(lib, tmp_path)
    db, branches = lib.store.db, [lib.branch]
    assert pipeline.lacking_fields(db, branches, 0, READERS).sources == []
    newer = (*EXTRACTORS, Extractor("probe", 2, PROBE.types, PROBE.function))
    assert len(pipeline.lacking_fields(db, branches, 0, newer).sources) == 2


def test_a_worker_that_somebody_else_killed_costs_nobody_anything(lib, tmp_path, monkeypatch):
    """Its file is asked for again, and read."""
    monkeypatch.setenv("PROBE_LIMITS", "30 0.5")
    put_orders(lib, {"a.gsm": "fine", "b.gsm": "sleep", "c.gsm": "fine"})
    lib.learn()
    killed: list[int] = []

    async def body(pool: WorkerPool) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(kill_first, pool)
            await lib.extract(pool, READERS)

    async def kill_first(pool: WorkerPool) -> None:
        while not killed:
            for pid in pool.pids():
                os.kill(pid, 9)
                killed.append(pid)
            await trio.sleep(0.001)

    with_workers(tmp_path, body, table=TABLE)
    assert killed
    assert extracted(lib, "a.gsm").state == DONE
    assert extracted(lib, "b.gsm").error == "took too long to decode"
    assert extracted(lib, "c.gsm").state == DONE


@pytest.mark.skipif(os.uname().machine not in ("x86_64", "aarch64"), reason="no list of system calls for this machine")
def test_a_decoder_reaches_neither_network_nor_programs(lib, tmp_path):
    """Whoever takes it over is alone with one file."""
    put_orders(lib, {"a.gsm": "network", "b.gsm": "program"})
    lib.learn()
    run(lib, tmp_path)
    assert extracted(lib, "a.gsm").fields == {"snippet": "PermissionError"}
    assert extracted(lib, "b.gsm").fields == {"snippet": "PermissionError"}


def has_landlock() -> bool:
    import ctypes

    return ctypes.CDLL(None, use_errno=True).syscall(444, None, ctypes.c_size_t(0), 1) > 0


@pytest.mark.skipif(not has_landlock(), reason="this kernel has no Landlock")
def test_a_decoder_writes_nothing_but_sidecars(lib, tmp_path):
    """Neither a user's file nor ours."""
    inside, outside = os.fsdecode(lib.sidecars), tmp_path / "tree"
    put_orders(lib, {"a.gsm": f"write {inside}/x", "b.gsm": f"write {outside}/x", "c.gsm": f"write {outside}/a.gsm"})
    lib.learn()
    run(lib, tmp_path)
    assert extracted(lib, "a.gsm").fields == {"snippet": "done"}
    assert extracted(lib, "b.gsm").fields == {"snippet": "PermissionError"}
    assert extracted(lib, "c.gsm").fields == {"snippet": "PermissionError"}
    assert b"write" in (outside / "a.gsm").read_bytes()


def test_a_media_worker_has_bounds(lib, tmp_path):
    """Memory, size of files, descriptors, no core dump."""
    put_orders(lib, {"a.gsm": "limits"})
    lib.learn()
    run(lib, tmp_path)
    wanted = [sandbox.MEMORY_MAX_BYTES, sandbox.FILE_MAX_BYTES, sandbox.DESCRIPTORS_MAX, 0]
    assert extracted(lib, "a.gsm").fields == {"snippet": str(wanted)}


def test_a_file_that_is_not_the_one_that_was_identified_is_not_read(lib, tmp_path):
    """Its fields would be those of other bytes: it is said again, and nothing is written."""
    for number, name in enumerate(("changed.jpg", "gone.jpg", "link.jpg", "dir.jpg", "fifo.jpg", "good.jpg")):
        lib.put(name, media.picture(400, 300 + number))
    lib.learn()
    tree = lib.tree
    (tree / "changed.jpg").write_bytes(media.picture(500, 100))
    (tree / "gone.jpg").unlink()
    (tree / "link.jpg").rename(tree / "elsewhere.jpg")
    (tree / "link.jpg").symlink_to("elsewhere.jpg")
    (tree / "dir.jpg").unlink()
    (tree / "dir.jpg").mkdir()
    (tree / "fifo.jpg").unlink()
    os.mkfifo(tree / "fifo.jpg")
    found: dict[int, list] = {}

    async def body(pool: WorkerPool) -> None:
        page = pipeline.lacking_fields(lib.store.db, [lib.branch])
        items = [source.item() for source in page.sources]
        await driving.work_off(pool, "extract", lib.args(), items, taking(found.update))

    with_workers(tmp_path, body)
    outcomes = {name: found[lib.content_of(name)] for name in ("changed.jpg", "gone.jpg", "link.jpg", "fifo.jpg")}
    assert outcomes == {
        "changed.jpg": ["again", "changed"], "gone.jpg": ["again", "gone"], "link.jpg": ["again", "gone"],
        "fifo.jpg": ["again", "not-regular"],
    }  # fmt: skip
    assert found[lib.content_of("dir.jpg")][0] == "again"
    assert found[lib.content_of("good.jpg")][0] == "done"
    with lib.store.write("test") as unit:
        again = pipeline.take_extracted(unit, list(found.items()))
    assert len(again) == 5
    assert lib.store.db.execute("SELECT count(*) FROM extracted").fetchone() == (1,)


def test_a_file_that_changed_while_it_was_read_is_not_taken(lib, tmp_path):
    """What was read is of no file that there is."""
    begun, until = Path(os.fsdecode(lib.sidecars)) / "begun", tmp_path / "until"
    put_orders(lib, {"a.gsm": f"wait {begun} {until}"})
    lib.learn()
    found: dict[int, list] = {}

    async def write() -> None:
        while not begun.exists():  # noqa: ASYNC110 (another process makes it true)
            await trio.sleep(0.001)
        (lib.tree / "a.gsm").write_bytes(b"other bytes")
        until.touch()

    async def body(pool: WorkerPool) -> None:
        items = [s.item() for s in pipeline.lacking_fields(lib.store.db, [lib.branch], 0, READERS).sources]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(write)
            await driving.work_off(pool, "extract", lib.args(), items, taking(found.update))

    with_workers(tmp_path, body, table=TABLE)
    assert found == {lib.content_of("a.gsm"): ["again", "changed"]}


def test_work_that_cannot_begin_is_an_error_of_the_caller(lib, tmp_path):
    """A branch that is away is no fault of its files; neither is a pool that does not run."""
    lib.put("a.jpg", media.picture())
    lib.learn()
    items = [source.item() for source in pipeline.lacking_fields(lib.store.db, [lib.branch]).sources]
    taken: list = []

    async def body(pool: WorkerPool) -> None:
        with pytest.raises(WorkerError, match="FileNotFoundError"):
            await driving.work_off(
                pool, "extract", {**lib.args(), "root": b"/nowhere/at/all"}, items, taking(taken.append)
            )

    with_workers(tmp_path, body)

    async def no_table() -> None:
        async with trio.open_nursery() as nursery:
            pool = WorkerPool(2, log_path=None, table="nowhere:OPERATIONS")
            await nursery.start(pool.run)
            with pytest.raises(WorkerDied):
                await driving.work_off(pool, "extract", lib.args(), items, taking(taken.append))
            nursery.cancel_scope.cancel()

    trio.run(no_table)
    assert taken == []


def test_hostile_images_cost_themselves_only(lib, tmp_path):
    """Bombs, halves and lies between good ones, through the whole of it."""
    lib.put("a.jpg", media.picture(600, 400))
    lib.put("bomb.png", media.png(60_000, 60_000))
    lib.put("half.jpg", media.picture(500, 400)[:3000])
    lib.put("lie.png", b"\x89PNG\r\n\x1a\n" + os.urandom(2000))
    lib.put("z.webp", media.picture(700, 400, "WEBP"))
    lib.learn()

    async def body(pool: WorkerPool) -> None:
        await lib.extract(pool)
        await lib.thumbnail(pool)

    with_workers(tmp_path, body)
    thumbs = {
        name: {row.state for row in sidecars.of_content(lib.store.db, lib.content_of(name), "thumb")}
        for name in ("a.jpg", "bomb.png", "half.jpg", "lie.png", "z.webp")
    }
    assert thumbs["bomb.png"] == thumbs["half.jpg"] == thumbs["lie.png"] == {sidecars.FAILED}
    assert sidecars.READY in thumbs["a.jpg"]
    assert sidecars.READY in thumbs["z.webp"]
    assert "pixels" in (extracted(lib, "bomb.png").error or "")
    assert extracted(lib, "half.jpg").fields["width"] == 500


def test_whatever_is_broken_in_a_file_its_content_has_an_answer(lib, tmp_path):
    """Bytes changed, doubled or cut out anywhere: there are fields or a reason, and the files that rows speak of."""
    seed = int.from_bytes(os.urandom(4))
    print("seed", seed)
    dice = random.Random(seed)
    wholes = {
        "jpg": media.picture(), "png": media.picture(file_format="PNG", mode="P"),
        "gif": media.picture(file_format="GIF"),
        "webp": media.picture(file_format="WEBP"), "tiff": media.picture(file_format="TIFF", compression="tiff_lzw"),
        "bmp": media.picture(90, 90, "BMP"), "avif": media.picture(file_format="AVIF"),
        "jp2": media.picture(90, 90, "JPEG2000"), "ico": media.picture(64, 64, "ICO", "RGBA"),
        "mp3": media.mp3({b"TIT2": "Song"}), "flac": media.flac({"TITLE": "T"}), "ogg": media.ogg({"TITLE": "O"}),
        "wav": media.wav(1, tags={b"INAM": b"Song"}),
    }  # fmt: skip
    for name, whole in wholes.items():
        for number in range(8):
            data = bytearray(whole)
            for _ in range(dice.choice((1, 4, 40))):
                at = dice.randrange(12, len(data)) if dice.random() < 0.5 else dice.randrange(12, min(len(data), 300))
                match dice.randrange(3):
                    case 0:
                        data[at] = dice.choice((0, 255, dice.randrange(256)))
                    case 1:
                        data[at:at] = data[at : at + dice.randrange(1, 40)]
                    case _:
                        del data[at : at + dice.randrange(1, 9)]
                if len(data) < 100:
                    break
            lib.put(f"{number}.{name}", bytes(data))
    lib.learn()

    async def body(pool: WorkerPool) -> None:
        await lib.extract(pool)
        await lib.thumbnail(pool)

    with_workers(tmp_path, body)
    assert pipeline.lacking_fields(lib.store.db, [lib.branch]).sources == []
    assert pipeline.lacking_thumbnails(lib.store.db, [lib.branch]).sources == []
    assert files.look_over(lib.store.db, lib.sidecars) == ([], [])


def test_workers_come_with_the_work_and_go_without(lib, tmp_path):
    """They take memory, and are there in some milliseconds."""
    lib.put("a.jpg", media.picture())
    lib.learn()
    items = [source.item() for source in pipeline.lacking_fields(lib.store.db, [lib.branch]).sources]
    pids: list[list[int]] = []

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            pool = WorkerPool(3, log_path=tmp_path / "log", table=workermain.TABLE, idle_s=0.1)
            await nursery.start(pool.run)
            with trio.fail_after(media.DEADLINE_S):
                await trio.testing.wait_all_tasks_blocked()
                assert pool.pids() == []
                for _ in range(2):
                    await driving.work_off(
                        pool, "extract", lib.args(), items, taking(lambda _: pids.append(pool.pids()))
                    )
                    while pool.pids():  # noqa: ASYNC110 (other processes make it true)
                        await trio.sleep(0.01)
            nursery.cancel_scope.cancel()

    trio.run(main)
    first, second = map(set, pids)
    assert first
    assert second
    assert not first & second
    for pid in first | second:
        assert not Path(f"/proc/{pid}").exists()
