"""What an entry is and what stands in it, put together from its name and from what is known of its content."""

import apsw

from index.model.entry import HASH_FULL, KIND_FILE, Entry
from index.model.filetype import UNKNOWN, FileType, by_name, settled
from index.store import extracts, filetypes
from index.store.extracts import Extracted, Value


def of_row(db: apsw.Connection, row: Entry) -> FileType | None:
    """The type of a file: by its bytes once they were read, before that by its name; None where that says nothing."""
    if row.kind != KIND_FILE:
        return None
    known = None if row.content_id is None else filetypes.of_content(db, row.content_id)
    found = by_name(row.name) if known is None else settled(row.name, *known)
    return None if found is UNKNOWN and known is None else found


def fields_of_row(db: apsw.Connection, row: Entry) -> dict[str, Value]:
    """The fields of a file's content, where that is known for certain; empty where there are none."""
    found = extracted_of_row(db, row)
    return {} if found is None else found.fields


def extracted_of_row(db: apsw.Connection, row: Entry) -> Extracted | None:
    """What was made of a file's content, where that is known for certain: its fields, or why it has none."""
    if row.kind != KIND_FILE or row.content_id is None or row.hash_state != HASH_FULL:
        return None
    return extracts.get(db, row.content_id)
