"""location.rules and index.skipped: which rules a location has, and what they hold back."""

from itertools import islice

import attrs
import trio

from index.model.change import ORIGIN_CALL
from index.model.entry import KIND_NAMES
from index.model.errors import Invalid, NotADirectory, NotFound
from index.scan.rules.builtin import BUILTIN
from index.scan.rules.ruleset import ACCEPT, ACCEPT_WITH, REJECT, REJECT_WITH, Ruleset
from index.store import entries, places, rulings
from index.store.rulings import Held
from vdfs.ops.context import Core
from vdfs.ops.paths import node_of, row_path
from vdfs.ops.registry import action, doc, query
from vdfs.space.nodes import Node

_LIMIT_MAX = 10_000


@attrs.frozen
class RulesAsked:
    name: bytes
    on: list[str] = attrs.field(factory=list, metadata=doc("rules to switch on, by name"))
    off: list[str] = attrs.field(factory=list, metadata=doc("rules to switch off"))
    accept: list[bytes] = attrs.field(factory=list, metadata=doc("patterns; files that match none are held back"))
    reject: list[bytes] = attrs.field(factory=list, metadata=doc("patterns; what matches one is held back"))
    accept_with: list[bytes] = attrs.field(
        factory=list, metadata=doc("names; files that lie below no directory which has one of these are held back")
    )
    reject_with: list[bytes] = attrs.field(
        factory=list, metadata=doc("names; a directory that has a directory of this name is held back")
    )
    clear: bool = attrs.field(default=False, metadata=doc("begin with the default rules"))


@attrs.frozen
class RuleFacts:
    name: str
    on: bool
    about: str


@attrs.frozen
class UserRuleFacts:
    kind: str = attrs.field(metadata=doc("accept, reject, accept-with or reject-with"))
    pattern: bytes


@attrs.frozen
class LocationRules:
    name: bytes
    rules: list[RuleFacts]
    own: list[UserRuleFacts]
    changed: bool = attrs.field(metadata=doc("whether what was asked for was not so before"))


@attrs.frozen
class SkippedAsked:
    path: bytes
    everything: bool = attrs.field(default=False, metadata=doc("also what lies in directories that are held back"))
    limit: int = 1000
    after: bytes | None = attrs.field(default=None, metadata=doc("`more` of the answer before"))


@attrs.frozen
class SkippedEntry:
    path: bytes
    kind: str
    rule: str
    below: int = attrs.field(metadata=doc("how many entries lie in it; 0 when everything is listed"))


@attrs.frozen
class RuleCount:
    rule: str
    entries: int


@attrs.frozen
class Skipped:
    skipped: list[SkippedEntry]
    counts: list[RuleCount] = attrs.field(metadata=doc("of all that is held back there, by rule"))
    more: bytes | None = attrs.field(metadata=doc("where to go on, when there is more"))
    judging: bool = attrs.field(metadata=doc("rules are being applied; the answer may change in a moment"))


@action("location.rules")
async def location_rules(core: Core, asked: RulesAsked) -> LocationRules:
    """Show the rules of a location, and change them; what is held back follows behind."""
    row = next((one for one in places.locations(core.library.store.db) if one.name == asked.name), None)
    if row is None:
        known = ", ".join(sorted(n.decode("utf-8", "replace") for n in core.tree.locations)) or "none"
        raise NotFound(f"there is no location {asked.name.decode('utf-8', 'replace')} (there are: {known})")
    before = core.rulers.of_location(row.id)
    after = (before.cleared() if asked.clear else before).switched(asked.on, asked.off)
    wanted = ((ACCEPT, asked.accept), (REJECT, asked.reject), (ACCEPT_WITH, asked.accept_with))
    for kind, patterns in (*wanted, (REJECT_WITH, asked.reject_with)):
        after = after.with_rules(kind, patterns)
    if after != before:
        with core.library.store.write(ORIGIN_CALL) as unit:
            core.rulers.change(unit, row.id, after, core.tree.of_location(asked.name))
        await core.library.store.make_durable()
    return LocationRules(
        asked.name,
        [RuleFacts(one.name, one.name in after.on, one.about) for one in BUILTIN],
        [UserRuleFacts(one.kind, one.pattern) for one in after.rules],
        after != before,
    )


@query("index.skipped")
async def skipped(core: Core, asked: SkippedAsked) -> Skipped:
    """What rules hold back below a directory: of a directory that is held only how much is in it, unless everything is
    asked for."""
    if asked.limit < 1:
        raise Invalid(f"a limit is a number from 1, not {asked.limit}")
    node, _ = await node_of(core, asked.path)
    if not node.is_dir:
        raise NotADirectory(f"{asked.path.decode('utf-8', 'replace')} is no directory; sd info tells a file's rule")
    limit = min(asked.limit, _LIMIT_MAX)
    begin = _cursor(asked.after)
    roots = _roots(core, node)
    rulesets = {branch_id: _ruleset(core, branch_id) for _, branch_id in roots}

    def find() -> tuple[list[tuple[int, int, list[bytes], Held]], dict[str, int]]:
        found: list[tuple[int, int, list[bytes], Held]] = []
        counts: dict[str, int] = {}
        with core.library.store.reader() as db:
            for entry_id, branch_id in roots:
                for rule, number in rulings.counts(db, entry_id).items():
                    name = rulesets[branch_id].name_of(rule)
                    counts[name] = counts.get(name, 0) + number
                if begin is not None and entry_id < begin[0]:
                    continue
                after = begin[1] if begin is not None and entry_id == begin[0] else ()
                above = entries.path_of(db, entry_id)
                rows = rulings.held(db, entry_id, after, everything=asked.everything)
                found.extend((entry_id, branch_id, above, one) for one in islice(rows, limit + 1 - len(found)))
        return found, counts

    found, counts = await trio.to_thread.run_sync(find)
    told = []
    for _, branch_id, above, one in found[:limit]:
        path = row_path(core, branch_id, [*above, *one.path])
        if path is not None:
            rule = rulesets[branch_id].name_of(one.rule)
            told.append(SkippedEntry(path, KIND_NAMES[one.kind], rule, one.below))
    more = None
    if len(found) > limit:
        entry_id, _, _, last = found[limit - 1]
        more = b"/".join([b"%d" % entry_id, *last.path])
    return Skipped(
        told, [RuleCount(name, number) for name, number in sorted(counts.items())], more, not core.ruling.is_idle()
    )


def _roots(core: Core, node: Node) -> list[tuple[int, int]]:
    """(row, branch) of every real directory that a directory of the union is made of."""
    found = {(ref.entry_id, ref.branch.id) for ref in node.parts if not ref.branch.is_remote}
    if node is core.tree.root:
        found |= {(branch.root_entry_id, branch.id) for branch in core.tree.branches.values()}
    return sorted(found)


def _ruleset(core: Core, branch_id: int) -> Ruleset:
    branch = core.tree.branches.get(branch_id)
    return Ruleset() if branch is None else core.rulers.ruleset(branch)


def _cursor(after: bytes | None) -> tuple[int, tuple[bytes, ...]] | None:
    if after is None:
        return None
    number, *path = after.split(b"/")
    if not number.isdigit() or not path:
        raise Invalid("`after` is what the answer before said under `more`")
    return int(number), tuple(path)
