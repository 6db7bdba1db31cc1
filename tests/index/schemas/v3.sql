-- The schema of a library of version 3, as sdmount wrote it then; what is newer is brought forward from here.

-- meta: single facts of this library. library_uuid (16 bytes), epoch (how often this device began anew
-- after a restore), created_ns.
CREATE TABLE meta(
    key   TEXT PRIMARY KEY,
    value ANY NOT NULL
) STRICT, WITHOUT ROWID;

-- counter: bounds of the numbers handed out, by name; never lowered, so that no inode number or id is given twice. They
-- are reserved ahead, so that not every unit writes them: after a crash a few numbers stay unused, none comes twice.
--   entry: ids of entry rows, and thereby the inode numbers of the mount. Numbers up to 64 are the kernel's and ours.
--   seq:   units committed by this device in this epoch; the cursor of those who follow us.
--   hlc:   the packed stamp of the last unit, or a little later.
CREATE TABLE counter(
    name  TEXT PRIMARY KEY,
    value INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
INSERT INTO counter VALUES ('entry', 64), ('seq', 0), ('hlc', 0);

-- outbox: changes of shared rows in the order we made them. (epoch, seq, part) is the transport cursor, hlc orders
-- them against other devices' changes. key and body are msgpack: the row's global key, and its changed columns.
CREATE TABLE outbox(
    epoch INTEGER NOT NULL,
    seq   INTEGER NOT NULL,
    part  INTEGER NOT NULL,
    hlc   INTEGER NOT NULL,
    model TEXT NOT NULL,
    op    TEXT NOT NULL,
    key   BLOB NOT NULL,
    body  BLOB NOT NULL,
    PRIMARY KEY (epoch, seq, part)
) STRICT, WITHOUT ROWID;

-- tombstone: entry rows of ours that other devices may have seen and that are gone (kind 'delete') or are held back
-- now (kind 'withdraw': nobody deletes anything for it). Only rows that had been told get one.
CREATE TABLE tombstone(
    uuid        BLOB NOT NULL,
    branch_uuid BLOB NOT NULL,
    seq         INTEGER NOT NULL,
    hlc         INTEGER NOT NULL,
    kind        TEXT NOT NULL,
    PRIMARY KEY (uuid, branch_uuid)
) STRICT, WITHOUT ROWID;
CREATE INDEX tombstone_seq ON tombstone(seq);

-- journal: a change of several replicas that has begun and must be completed if we die in between.
CREATE TABLE journal(
    id   INTEGER PRIMARY KEY,
    op   TEXT NOT NULL,
    body BLOB NOT NULL
) STRICT;

-- device: every device of the library, ours among them. public_key is Ed25519; slug is its name in paths.
CREATE TABLE device(
    uuid       BLOB PRIMARY KEY,
    name       TEXT NOT NULL,
    slug       TEXT NOT NULL UNIQUE,
    public_key BLOB NOT NULL,
    created_ns INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- location: a top-level name of the tree. name is last-writer-wins by (name_hlc, name_device); a removed location
-- keeps its row with removed_hlc, so that a late change elsewhere does not bring it back.
CREATE TABLE location(
    id          INTEGER PRIMARY KEY,
    uuid        BLOB NOT NULL UNIQUE,
    name        BLOB NOT NULL,
    name_hlc    INTEGER NOT NULL,
    name_device BLOB NOT NULL,
    removed_hlc INTEGER
) STRICT;

-- branch: a directory of one device. location_id NULL: the device's built-in store, mounted at the root.
--   root_path   absolute, bytes; where the branch was last seen
--   fs_id       identity of its file system: the file system's UUID, else its device number as text; with root_ino
--               it tells the branch from another directory that stands at the same path now
--   scan_state  pending | scanning | done | failed, with scan_error and the time of the last whole scan
CREATE TABLE branch(
    id            INTEGER PRIMARY KEY,
    uuid          BLOB NOT NULL UNIQUE,
    location_id   INTEGER REFERENCES location(id),
    device_uuid   BLOB NOT NULL REFERENCES device(uuid),
    label         TEXT NOT NULL,
    root_path     BLOB NOT NULL,
    fs_id         TEXT NOT NULL,
    root_ino      INTEGER NOT NULL,
    root_entry_id INTEGER,
    scan_state    TEXT NOT NULL DEFAULT 'pending',
    scan_error    TEXT,
    scanned_ns    INTEGER
) STRICT;

-- content: one row for each (sampled id, full hash). uuid is uuid5 of the sampled id, the same on every device and not
-- unique here, because two contents may share a sampled id. size_bytes is the size of one instance.
CREATE TABLE content(
    id         INTEGER PRIMARY KEY,
    uuid       BLOB NOT NULL,
    sampled    BLOB NOT NULL,
    full       BLOB,
    size_bytes INTEGER NOT NULL
) STRICT;
CREATE UNIQUE INDEX content_full ON content(full) WHERE full IS NOT NULL;
CREATE INDEX content_sampled ON content(sampled);

-- manifest: the block hashes of one content (docs/format/manifest-v1.md). Contents of a single block have none: their
-- full hash says it all.
CREATE TABLE manifest(
    content_id INTEGER PRIMARY KEY REFERENCES content(id),
    body       BLOB NOT NULL
) STRICT;

-- entry: one replica, a name on one branch, owned by the branch's device.
--   id         handed out by counter 'entry', never reused
--   parent_id  the directory's row; NULL for the root row of a branch, whose name is empty
--   name       bytes as the disk has them
--   node       the inode number in the mount: one for a union name whichever replica is shown, one for the hard
--              linked names of a real file; equal to the id of the row that got it first, hence never reused
--   uuid       names the logical file, shared by its replicas and its hard links. Directories and symlinks have it at
--              once, files when they are identified or annotated; until then it is NULL and no other device hears of it
--   kind       0 file, 1 directory, 2 symlink, 3 fifo, socket or device
--   mode … gid what lstat said last; times in nanoseconds; for a directory nlink and size are what they were then
--   content_id the bytes, once known; hash_state 0 nothing, 1 sampled, 2 full, 3 could not be read, 4 left
--   version    packed version vector; NULL stands for {this branch: 1}, the vector of a file that never changed
--   seq        the unit that wrote the row last: the owner's version, by which other devices page
--   scanned_ns, scanned_mtime_ns  directories only: wall clock at the last whole listing, and the directory's mtime
--              then; NULL = never listed
CREATE TABLE entry(
    id               INTEGER PRIMARY KEY,
    branch_id        INTEGER NOT NULL REFERENCES branch(id),
    parent_id        INTEGER REFERENCES entry(id),
    name             BLOB NOT NULL,
    node             INTEGER NOT NULL,
    uuid             BLOB,
    kind             INTEGER NOT NULL,
    mode             INTEGER NOT NULL,
    size_bytes       INTEGER NOT NULL,
    mtime_ns         INTEGER NOT NULL,
    ctime_ns         INTEGER NOT NULL,
    st_ino           INTEGER NOT NULL,
    nlink            INTEGER NOT NULL,
    uid              INTEGER NOT NULL,
    gid              INTEGER NOT NULL,
    content_id       INTEGER REFERENCES content(id),
    hash_state       INTEGER NOT NULL DEFAULT 0,
    version          BLOB,
    seq              INTEGER NOT NULL,
    scanned_ns       INTEGER,
    scanned_mtime_ns INTEGER
) STRICT;
-- child(), children(): every lookup and listing.
CREATE UNIQUE INDEX entry_name ON entry(parent_id, name);
-- subdirectories(), the walk of the scan, paths of a subtree.
CREATE INDEX entry_dirs ON entry(parent_id) WHERE kind = 1;
-- by_st_ino(): hard links and moves, found by the number the disk gave.
CREATE INDEX entry_ino ON entry(branch_id, st_ino);
-- by_node(): replicas and names of one inode. Most rows are the only one of their number, which is then their id.
CREATE INDEX entry_node ON entry(node) WHERE node <> id;
-- by_uuid(): from tags and attributes to names.
CREATE INDEX entry_uuid ON entry(uuid) WHERE uuid IS NOT NULL;
-- names.with_hash(), names.duplicate_hashes(): content/<hash>, duplicates.
CREATE INDEX entry_content ON entry(content_id) WHERE content_id IS NOT NULL;
-- unidentified(): the queue of the hasher.
CREATE INDEX entry_todo ON entry(hash_state, id) WHERE kind = 0 AND hash_state < 2 AND size_bytes > 0;

-- limbo: one row for a removed entry, by the inode it had. Local, never synced; given up after a day (tidy.py).
--   entry_id   the id it had; NULL when that row lives on with another inode
--   uuid       NULL when the row that lives on kept it
CREATE TABLE limbo(
    branch_id  INTEGER NOT NULL,
    st_ino     INTEGER NOT NULL,
    entry_id   INTEGER,
    kind       INTEGER NOT NULL,
    mtime_ns   INTEGER NOT NULL,
    size_bytes INTEGER NOT NULL,
    node       INTEGER NOT NULL,
    uuid       BLOB,
    content_id INTEGER,
    hash_state INTEGER NOT NULL,
    version    BLOB,
    removed_ns INTEGER NOT NULL,
    ctime_ns   INTEGER NOT NULL,
    PRIMARY KEY (branch_id, st_ino)
) STRICT, WITHOUT ROWID;
-- tidy.py: a content is kept for what waits here.
CREATE INDEX limbo_content ON limbo(content_id) WHERE content_id IS NOT NULL;

-- tag: a name; uuid is its key on the wire. Names compare exactly (a search may fold them).
CREATE TABLE tag(
    id   INTEGER PRIMARY KEY,
    uuid BLOB NOT NULL UNIQUE,
    name TEXT NOT NULL
) STRICT;
CREATE INDEX tag_name ON tag(name);

-- tagging: one row a dot. hlc is when it was added and orders the tags of an entry; part orders those of one unit.
CREATE TABLE tagging(
    entry_uuid BLOB NOT NULL,
    tag_id     INTEGER NOT NULL REFERENCES tag(id),
    dot_device BLOB NOT NULL,
    dot_seq    INTEGER NOT NULL,
    hlc        INTEGER NOT NULL,
    part       INTEGER NOT NULL,
    PRIMARY KEY (entry_uuid, tag_id, dot_device, dot_seq)
) STRICT, WITHOUT ROWID;
CREATE INDEX tagging_tag ON tagging(tag_id, entry_uuid);

-- attribute: one cell for each (entry, name), last-writer-wins by (hlc, device). value NULL = removed; the cell stays,
-- because its stamp must outlive late writes. user.xdg.tags is here too: the text as it was written, given back while
-- it still names exactly the live set of tags.
CREATE TABLE attribute(
    entry_uuid BLOB NOT NULL,
    name       BLOB NOT NULL,
    value      BLOB,
    hlc        INTEGER NOT NULL,
    device     BLOB NOT NULL,
    PRIMARY KEY (entry_uuid, name)
) STRICT, WITHOUT ROWID;

-- mirror: the real attributes of one real file as last seen or written (local, never synced). A real file is told by
-- its inode number in the mount and its branch, so its hard-linked names share what was seen, a move takes it along,
-- and another inode under the name starts with nothing.
CREATE TABLE mirror(
    node      INTEGER NOT NULL,
    branch_id INTEGER NOT NULL,
    name      BLOB NOT NULL,
    value     BLOB NOT NULL,
    PRIMARY KEY (node, branch_id, name)
) STRICT, WITHOUT ROWID;

-- mirror_state: the disk's inode and the ctime of a real file when its attributes were last compared with the library.
CREATE TABLE mirror_state(
    node      INTEGER NOT NULL,
    branch_id INTEGER NOT NULL,
    st_ino    INTEGER NOT NULL,
    ctime_ns  INTEGER NOT NULL,
    PRIMARY KEY (node, branch_id)
) STRICT, WITHOUT ROWID;

PRAGMA user_version = 3;
PRAGMA application_id = 1935961452;
