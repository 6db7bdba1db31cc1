"""From files to fields and thumbnails over a real library: the queues, what is written, how files and rows agree."""

import os
import time
from pathlib import Path

import pytest
from PIL import Image

from index.media import pipeline, registry, sidecars, types
from index.media.registry import EXTRACTORS
from index.model.filetype import BY_TYPE, Method
from index.store import contents, entries, extracts, filetypes, tidy
from index.store import sidecars as rows
from index.store.sidecars import FAILED, READY, SERVED, THUMB
from tests.index import media_library as media
from tests.index.media_library import MediaLibrary, with_workers


@pytest.fixture
def lib(tmp_path: Path):
    made = MediaLibrary(tmp_path)
    yield made
    made.store.close()


def work(lib: MediaLibrary, tmp_path: Path) -> tuple[int, int]:
    """(fields read, images made small)."""
    done = (0, 0)

    async def body(pool) -> None:
        nonlocal done
        done = (await lib.extract(pool), await lib.thumbnail(pool))

    with_workers(tmp_path, body)
    return done


def files_of(lib: MediaLibrary) -> set[str]:
    return {os.path.join(d, n) for d, _, names in os.walk(os.fsdecode(lib.sidecars)) for n in names}


def fields_of(lib: MediaLibrary, name: str) -> dict:
    row = entries.child(lib.store.db, lib.root_id, os.fsencode(name))
    return types.fields_of_row(lib.store.db, row)


def type_of(lib: MediaLibrary, name: str) -> str:
    row = entries.child(lib.store.db, lib.root_id, os.fsencode(name))
    return types.of_row(lib.store.db, row).name


# -- types -------------------------------------------------------------------------------------------------------------


def test_a_file_gets_its_type_with_its_hash(lib):
    """Nothing but the hasher has read it; the name has its say where the bytes leave it one."""
    lib.put("a.txt", media.picture())
    lib.put("b.py", b"import os\n")
    lib.put("b.txt", b"import os\n")
    lib.put("c.ts", (b"G" + bytes(187)) * 900)
    lib.put("d", media.wav(20))
    assert [name for (name,) in lib.store.db.execute("SELECT name FROM filetype")] == []
    lib.learn()
    found = {name: type_of(lib, name) for name in ("a.txt", "b.py", "b.txt", "c.ts", "d")}
    assert found == {"a.txt": "jpeg", "b.py": "python", "b.txt": "plain", "c.ts": "mpegts", "d": "wav"}
    assert lib.content_of("b.py") == lib.content_of("b.txt")
    assert filetypes.of_content(lib.store.db, lib.content_of("a.txt")) == (BY_TYPE["jpeg"], Method.MAGIC)


def test_before_it_is_read_the_name_says_what_a_file_is(lib):
    """And nothing is said where that says nothing."""
    lib.learn()
    row = entries.get(lib.store.db, lib.root_id)
    for name, wanted in ((b"a.jpg", BY_TYPE["jpeg"]), (b"whatever", None)):
        assert types.of_row(lib.store.db, row._replace(kind=0, name=name)) == wanted
    assert types.of_row(lib.store.db, row) is None


def test_a_weaker_means_does_not_take_back_what_a_stronger_one_said(lib):
    """A second name of the same bytes is no better witness."""
    lib.put("a.jpg", media.picture())
    lib.learn()
    content = lib.content_of("a.jpg")
    with lib.store.write("test") as unit:
        contents.set_type(unit.db, content, filetypes.intern(unit.db, BY_TYPE["plain"]), Method.NAME)
    assert filetypes.of_content(lib.store.db, content) == (BY_TYPE["jpeg"], Method.BOTH)


# -- the queues --------------------------------------------------------------------------------------------------------


def test_every_file_that_somebody_reads_is_read_once(lib, tmp_path):
    """Copies count as one content; the second round finds nothing to do."""
    lib.put("a.jpg", media.picture(1500, 900))
    lib.put("copy of a.jpg", media.picture(1500, 900))
    lib.put("b.mp3", media.mp3({b"TIT2": "Song"}))
    lib.put("c.md", b"# Title\n")
    lib.put("d.bin", b"\x00\x01\x02" * 99)
    lib.put("empty.jpg", b"")
    lib.learn()
    assert work(lib, tmp_path) == (3, 1)
    assert fields_of(lib, "copy of a.jpg")["width"] == 1500
    assert fields_of(lib, "b.mp3")["title"] == "Song"
    assert fields_of(lib, "c.md")["snippet"] == "# Title"
    assert fields_of(lib, "d.bin") == {}
    assert extracts.counts(lib.store.db) == (3, 0)
    assert work(lib, tmp_path) == (0, 0)


def test_a_queue_is_read_in_pages_and_goes_on_behind_the_last(lib, monkeypatch):
    """No content twice, none left out, however small the windows."""
    for number in range(23):
        lib.put(f"{number:02}.txt", b"text %d\n" % number)
        lib.put(f"{number:02}.bin", b"\x00%d" % number)
    lib.learn()
    monkeypatch.setattr(extracts, "WINDOW", 5)
    monkeypatch.setattr(pipeline, "PAGE", 3)
    seen: list[int] = []
    after: int | None = 0
    while after is not None:
        page = pipeline.lacking_fields(lib.store.db, [lib.branch], after)
        assert page.next_id is None or page.next_id > after
        seen += [source.content_id for source in page.sources]
        after = page.next_id
    assert seen == sorted(seen)
    assert set(seen) == {lib.content_of(f"{number:02}.txt") for number in range(23)}


def test_what_waits_is_counted_beforehand(lib, tmp_path):
    """By each branch its own, and each content once; what was done, or is held by a rule, does not wait."""
    lib.put("a.jpg", media.picture())
    lib.put("copy.jpg", media.picture())
    lib.put("b.md", b"# Title")
    lib.put("c.txt", b"held")
    lib.put("d.bin", b"\x00\x01\x02\x03" * 10)
    lib.learn()
    db = lib.store.db
    with lib.store.write("test") as unit:
        entries.set_rule(unit.db, entries.child(db, lib.root_id, b"c.txt").id, 1, unit.seq)
    assert pipeline.count_fields(db, lib.branch) == 2
    assert pipeline.count_thumbnails(db, lib.branch) == 1
    assert pipeline.count_fields(db, lib.branch + 1) == pipeline.count_thumbnails(db, lib.branch + 1) == 0
    assert work(lib, tmp_path) == (2, 1)
    assert pipeline.count_fields(db, lib.branch) == pipeline.count_thumbnails(db, lib.branch) == 0


def test_who_is_away_waits(lib):
    """A content on no branch that is there is passed over; so is a row that does not hold it for certain."""
    lib.put("a.jpg", media.picture())
    lib.learn()
    assert pipeline.lacking_fields(lib.store.db, []).sources == []
    assert pipeline.lacking_thumbnails(lib.store.db, []).sources == []
    found = pipeline.lacking_thumbnails(lib.store.db, [lib.branch]).sources
    assert [(source.path, source.type_name) for source in found] == [([b"a.jpg"], "jpeg")]
    with lib.store.write("test") as unit:
        unit.db.execute("UPDATE entry SET hash_state=0 WHERE content_id IS NOT NULL")
    assert pipeline.lacking_fields(lib.store.db, [lib.branch]).sources == []


def test_a_content_of_a_library_that_knew_no_types_gets_one(lib, tmp_path):
    """With the first pass; its fields come with the second."""
    lib.put("a.jpg", media.picture())
    lib.put("b.bin", b"\x00\x01")
    lib.learn()
    with lib.store.write("test") as unit:
        unit.db.execute("UPDATE content SET type_id=NULL, type_method=NULL")
    assert work(lib, tmp_path) == (3, 1)
    assert type_of(lib, "b.bin") == "binary"
    assert fields_of(lib, "a.jpg")["width"] == 400


def test_the_queues_use_no_table_scan(lib):
    """Each look is bounded by its window: by keys only."""
    lib.put("a.jpg", media.picture())
    lib.learn()
    asked: list[str] = []
    db = lib.store.db
    db.exec_trace = lambda _cursor, sql, bindings: asked.append((sql, bindings)) or True
    pipeline.lacking_fields(db, [lib.branch])
    pipeline.lacking_thumbnails(db, [lib.branch])
    db.exec_trace = None
    for sql, bindings in asked:
        plan = [row[3] for row in db.execute(f"EXPLAIN QUERY PLAN {sql}", bindings)]
        scans = [step for step in plan if step.startswith("SCAN") and "VALUES" not in step and step != "SCAN up"]
        assert scans == [] or sql == "SELECT id, name FROM filetype", sql  # a few hundred rows at most


# -- thumbnails --------------------------------------------------------------------------------------------------------


def test_thumbnails_lie_where_the_full_hash_says(lib, tmp_path):
    """Whole files, nothing beside them; a variant that the image is too small for is served by the next smaller."""
    lib.put("large.jpg", media.picture(1500, 900))
    lib.put("small.png", media.picture(300, 200, "PNG"))
    lib.learn()
    work(lib, tmp_path)
    for name, variant, size in (
        ("large.jpg", "grid@1x", (256, 154)), ("large.jpg", "grid@2x", (512, 307)),
        ("large.jpg", "detail@1x", (1024, 614)),
        ("small.png", "grid@1x", (256, 171)), ("small.png", "grid@2x", (300, 200)),
        ("small.png", "detail@1x", (300, 200)),
    ):  # fmt: skip
        path = lib.file_of(name, variant)
        assert path is not None
        with Image.open(path) as shown:
            assert (shown.format, shown.size) == ("WEBP", size)
        full = contents.get(lib.store.db, lib.content_of(name)).full.hex()
        assert str(path.parent).endswith(f"sidecars/content/{full[:2]}/{full[2:4]}/{full}/thumbs")
    states = {row.variant: row.state for row in rows.of_content(lib.store.db, lib.content_of("small.png"), THUMB)}
    assert states == {"grid@1x": READY, "grid@2x": READY, "detail@1x": SERVED}
    assert len(files_of(lib)) == 5
    assert lib.file_of("small.png", "icon@1x") is None


def test_a_picture_of_another_version_is_made_anew(lib, tmp_path, monkeypatch):
    """In the same place."""
    lib.put("a.jpg", media.picture())
    lib.learn()
    work(lib, tmp_path)
    before = files_of(lib)
    monkeypatch.setattr(registry, "THUMB_VERSION", 2)
    assert work(lib, tmp_path)[1] == 1
    assert files_of(lib) == before
    assert {row.version for row in rows.of_content(lib.store.db, lib.content_of("a.jpg"), THUMB)} == {2}


def test_a_variant_that_is_asked_for_later_is_made(lib, tmp_path):
    """Beside those that are there."""
    lib.put("a.jpg", media.picture(400, 400))
    lib.learn()
    work(lib, tmp_path)

    async def more(pool) -> None:
        assert await lib.thumbnail(pool, ["custom@100px"]) == 1

    with_workers(tmp_path, more)
    path = lib.file_of("a.jpg", "custom@100px")
    assert path is not None
    with Image.open(path) as shown:
        assert shown.size == (100, 100)
    assert lib.file_of("a.jpg", "grid@1x") is not None


def test_what_cannot_be_made_says_why_for_every_variant(lib, tmp_path):
    """And is not in the queue any more."""
    lib.put("a.jpg", media.picture()[:400])
    lib.learn()
    assert work(lib, tmp_path) == (1, 1)
    found = rows.of_content(lib.store.db, lib.content_of("a.jpg"), THUMB)
    assert {row.state for row in found} == {FAILED}
    assert all(row.error for row in found)
    assert sidecars.find(lib.store.db, lib.content_of("a.jpg"), "grid@1x") is None
    assert files_of(lib) == set()
    assert work(lib, tmp_path) == (0, 0)


# -- files and rows agree ----------------------------------------------------------------------------------------------


def mend(lib: MediaLibrary, now_s: float | None = None) -> sidecars.Disagreements:
    with lib.store.reader() as db:
        found = sidecars.look_over(db, lib.sidecars, now_s)
    with lib.store.write("test") as unit:
        sidecars.forget(unit.db, found)
    sidecars.remove(found, lib.sidecars)
    return found


LATER_S = 2 * sidecars.YOUNG_S


def test_a_picture_that_is_missing_or_cut_is_made_again(lib, tmp_path):
    """Its row is forgotten, so the queue has it again."""
    lib.put("a.jpg", media.picture(1500, 900))
    lib.put("b.jpg", media.picture(1400, 900))
    lib.learn()
    work(lib, tmp_path)
    assert mend(lib, time.time() + LATER_S) == ([], [])
    gone, cut = lib.file_of("a.jpg", "grid@1x"), lib.file_of("b.jpg", "grid@2x")
    gone.unlink()
    cut.write_bytes(b"")
    found = mend(lib)
    assert set(found.rows) == {
        (lib.content_of("a.jpg"), THUMB, "grid@1x"), (lib.content_of("b.jpg"), THUMB, "grid@2x"),
    }  # fmt: skip
    assert work(lib, tmp_path) == (0, 2)
    assert gone.stat().st_size
    assert cut.stat().st_size
    assert mend(lib, time.time() + LATER_S) == ([], [])


def test_a_file_that_no_row_speaks_of_is_removed_once_it_is_old(lib, tmp_path):
    """A young one may be a worker's that nobody took in yet. Directories go with their last file."""
    lib.put("a.jpg", media.picture(1500, 900))
    lib.learn()
    work(lib, tmp_path)
    wanted = files_of(lib)
    root = Path(os.fsdecode(lib.sidecars))
    strays = [
        root / "content/aa/bb" / ("aabb" + "0" * 60) / "thumbs/grid@1x.webp",
        root / "content/aa/bb/no-hash/thumbs/grid@1x.webp",
        lib.file_of("a.jpg", "grid@1x").with_name(".grid@1x.webp.77.tmp"),
        lib.file_of("a.jpg", "grid@1x").with_name("icon@1x.webp"),
    ]
    for path in strays:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    assert mend(lib) == ([], [])
    found = mend(lib, time.time() + LATER_S)
    assert {os.fsdecode(path) for path in found.files} == {str(path) for path in strays}
    assert files_of(lib) == wanted
    assert not (root / "content/aa").exists()


def test_what_is_known_of_a_content_goes_with_it(lib, tmp_path):
    """Its rows when no entry has it any more, its files when somebody looks."""
    lib.put("a.jpg", media.picture(1500, 900))
    lib.learn()
    work(lib, tmp_path)
    with lib.store.write("test") as unit:
        unit.db.execute("UPDATE entry SET content_id=NULL, hash_state=0")
    strays = tidy.find(lib.store.db, time.time_ns())
    with lib.store.write("test") as unit:
        tidy.drop(unit.db, strays, time.time_ns())
    for table in ("content", "extracted", "sidecar"):
        assert lib.store.db.execute(f"SELECT count(*) FROM {table}").fetchone() == (0,)
    mend(lib, time.time() + LATER_S)
    assert files_of(lib) == set()
    assert os.listdir(lib.sidecars) == []


def test_results_for_a_content_that_is_gone_are_dropped(lib, tmp_path):
    """It went while the worker was at it."""
    with lib.store.write("test") as unit:
        assert pipeline.take_extracted(unit, [(99, ["done", "image", 1, {}])]) == []
        assert pipeline.take_extracted(unit, [(99, ["failed", "why"])]) == []
        assert pipeline.take_thumbnails(unit, [(99, ["done", {"grid@1x": 3}])]) == []
    assert extracts.counts(lib.store.db) == (0, 0)


def test_the_queue_asks_for_each_extractor_that_there_is(lib):
    """Names and versions are what a row is compared with."""
    assert registry.present(EXTRACTORS) == [(one.name, one.version) for one in EXTRACTORS]
    assert len({one.name for one in EXTRACTORS}) == len(EXTRACTORS)
