"""`sd search`: entries by a query, and queries that are kept."""

import argparse
import os
import sys
from typing import Final

from index.model.errors import Invalid
from vdfs.commands.arguments import Commands, as_count, as_text
from vdfs.commands.door import Door, Json
from vdfs.commands.output import complain, print_result
from vdfs.commands.words import human_bytes, human_time, name_of, shown, table
from vdfs.wire.jsonrpc import encode_name

LIMIT: Final = 100
PAGE: Final = 10_000  # hits of one call when all are wanted
SEARCH_EPILOG: Final = """\
a QUERY is words, which the name contains, and terms:
  "two words"  -not  tag:holiday  kind:image  type:dir  ext:jpg,png
  size:>10MB  size:1kB..5MB  modified:<7d  modified:2019-07..2019-09  in:Photos/2019
  sd search 'beach -draft kind:image modified:2019'
  sd search -- '-draft'                        a QUERY that starts with a dash stands behind --"""


def add(commands: Commands) -> None:
    shape = "search QUERY [--limit N] [--all] [--save NAME]"
    search = commands.add(shape, _search, "find files by name, tag, kind, size, time, place")
    search.formatter_class = argparse.RawDescriptionHelpFormatter
    search.epilog = SEARCH_EPILOG
    search.add_argument("query", metavar="QUERY", type=as_text, nargs="?", help="words and terms; all must hold")
    what = search.add_mutually_exclusive_group()
    what.add_argument("--limit", type=as_count, default=LIMIT, metavar="N", help=f"at most N (default: {LIMIT})")
    what.add_argument("--all", action="store_true", help="all of them")
    what.add_argument("--save", type=as_text, metavar="NAME", help="keep QUERY as `.vdfs/search/saved/NAME`")
    what.add_argument("--saved", action="store_true", help="list the saved searches")
    what.add_argument("--forget", type=as_text, metavar="NAME", help="remove a saved search")


def _search(door: Door, args: argparse.Namespace) -> int:
    """Print what is found, page by page; or keep, list, forget searches."""
    if args.saved:
        return print_result(args, door.call("query:search.saved"), saved_searches)
    if args.forget is not None:
        params = encode_name(os.fsencode(args.forget))
        return print_result(args, door.call("action:search.forget", params), search_forgotten)
    if args.query is None:
        raise Invalid("give a QUERY, or --saved, or --forget NAME (see `sd search --help`)")
    if args.save is not None:
        params = {**encode_name(os.fsencode(args.save)), "query": args.query}
        return print_result(args, door.call("action:search.save", params), search_saved)
    wanted = sys.maxsize if args.all else args.limit
    result = door.call("query:search.names", {"query": args.query, "limit": min(PAGE, wanted)})
    told = len(result["hits"])
    while told < wanted and result.get("cursor") is not None:
        behind: Json = {"query": args.query, "limit": min(PAGE, wanted - told), "cursor": result["cursor"]}
        if args.json:
            more = door.call("query:search.names", behind)
            result = {**more, "hits": result["hits"] + more["hits"], "took": result["took"] + more["took"]}
        else:
            print_result(args, result, search_hits)
            more = result = door.call("query:search.names", behind)
        told += len(more["hits"])
    print_result(args, result, search_hits)
    if result.get("truncated") and not args.json:
        complain(f"more than {args.limit} entries match; raise --limit, or see all with --all")
    return 0


def search_hits(result: Json) -> list[str]:
    rows = []
    for hit in result["hits"]:
        is_directory = hit["kind"] == "directory"
        size = "-" if is_directory else human_bytes(hit["size_bytes"])
        rows.append([size, human_time(hit["mtime_ns"]), shown(name_of(hit, "path") + "/" * is_directory)])
    return table(rows, right=(0,))


def saved_searches(result: Json) -> list[str]:
    rows = [[shown(name_of(search, "name")), shown(str(search["query"]))] for search in result["searches"]]
    return table(rows) if rows else ["no saved searches; `sd search --save NAME QUERY` keeps one"]


def search_saved(result: Json) -> list[str]:
    return [f"{shown(name_of(result, 'name'))}: saved, {shown(str(result['query']))}"]


def search_forgotten(result: Json) -> list[str]:
    return [f"{shown(name_of(result, 'name'))}: is no saved search any more; no file is touched"]
