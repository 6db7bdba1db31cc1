"""Pairing as people do it: words here, typed there; what scripts see of it, and what is said when it comes to nothing.

Each device is a machine of a test network: it finds the others by multicast, and nobody else is there.
"""

import json
import os
import pty
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.netlab import Laboratory, laboratory
from tests.system.devices import Device, Offer, meet, pair
from tests.system.harness import PROGRAM_S, eventually, one_line

OTHER_WORDS = "legal winner thank year wave sausage worth useful legal winner thank yellow"

Make = Callable[[str], Device]


@pytest.fixture
def lab() -> Iterator[Laboratory]:
    with laboratory() as made:
        yield made


@pytest.fixture
def make(fuse: None, base: Path, lab: Laboratory) -> Iterator[Make]:
    """Makes devices, each mounted on a node of its own."""
    made: list[Device] = []

    def one(name: str) -> Device:
        device = Device(base / name, lab.node(name))
        made.append(device)
        device.mount()
        device.call_it(name)
        return device

    try:
        yield one
    finally:
        for device in made:
            device.close()


# -- what scripts see --------------------------------------------------------------------------------------------------


def test_words_are_shown_typed_and_both_are_one_library(make: Make) -> None:
    """One line at once; both end with 0; both hold the library of who offered."""
    alpha, beta = make("alpha"), make("beta")
    kept, given_up = alpha.library_id, beta.library_id
    assert kept != given_up
    with alpha.offering() as offer:
        assert len(offer.words.split()) == 12
        out = beta.sd_json("join", "--yes", *offer.words.split())
        assert (out["state"], out["name"], out["library"]) == ("done", "alpha", "Library")
        offer.finish()
    beta.wait_synced()
    alpha.wait_synced()
    assert alpha.library_id == beta.library_id == kept
    for here, there in ((alpha, beta), (beta, alpha)):
        status = json.loads((here.mnt / ".vdfs" / "status.json").read_text())
        assert status["library_id"] == kept
        other = here.device(there.name)
        assert (other["is_trusted"], other["is_online"], other["is_revoked"]) == (True, True, False)
        assert other["words"] == there.device(there.name)["words"]
        assert here.sync()["state"] == "ready"


def test_a_ticket_serves_as_well_as_words_and_need_not_be_an_argument(make: Make) -> None:
    """Who does not want others of the machine to see it in a list of processes gives it on standard input."""
    alpha, beta = make("alpha"), make("beta")
    with alpha.offering() as offer:
        done = beta.typed(f"{offer.ticket.upper()}\n", "join", "-")
        assert (done.returncode, done.stderr) == (0, "")
        offer.finish()
    meet(alpha, beta)


def test_a_place_can_be_named_where_nobody_is_heard(make: Make, lab: Laboratory) -> None:
    """`--at`: with words alone, on a network without multicast."""
    alpha, beta = make("alpha"), make("beta")
    for device in (alpha, beta):
        assert device.node is not None
        device.node.run("ip", "link", "set", "eth0", "multicast", "off")
    with alpha.offering() as offer:
        beta.join(offer, "--at", f"{alpha.node.address}:{alpha.port}")
    meet(alpha, beta)


def test_right_after_joining_synced_means_that_all_is_there(make: Make) -> None:
    """Though the first link is only just coming up."""
    alpha, beta = make("alpha"), make("beta")
    files = alpha.folder("Files")
    for number in range(300):
        (files / f"f{number}").write_text(f"{number}")
    alpha.add(files)
    alpha.settle()
    with alpha.offering() as offer:
        beta.sd("join", "--yes", *offer.words.split())
        beta.wait_synced()
        assert len(os.listdir(beta.mnt / "Files")) == 300
        offer.finish()


def test_synced_with_nobody_there_says_so_and_is_done(make: Make) -> None:
    """A device alone has nothing to wait for; nor has one whose others are away, once they were looked for."""
    alpha, beta = make("alpha"), make("beta")
    assert "alone" in alpha.sd("sync", "status", "--wait-synced")
    pair(alpha, beta)
    beta.unmount()
    assert "no other device can be reached" in alpha.sd("sync", "status", "--wait-synced", "--timeout", "50")


# -- people ------------------------------------------------------------------------------------------------------------


def on_a_terminal(device: Device, *arguments: str) -> tuple[int, int]:
    """An `sd` on a terminal of its own: its pid, and the terminal's other end."""
    pid, terminal = pty.fork()
    if not pid:
        try:
            words = [*device.inside, "python", "-m", "vdfs.cli", "--data-dir", str(device.data), *arguments]
            import sys

            words[words.index("python")] = sys.executable
            os.chdir("/")
            os.execvpe(words[0], words, device.environment())
        finally:
            os._exit(127)
    return pid, terminal


def read_until(terminal: int, wanted: str, seen: str = "") -> str:
    until_s = time.monotonic() + PROGRAM_S
    while wanted not in seen:
        assert time.monotonic() < until_s, f"{wanted!r} did not come: {seen!r}"
        try:
            seen += os.read(terminal, 4096).decode(errors="replace")
        except OSError:
            assert wanted in seen, f"it ended without {wanted!r}: {seen!r}"
    return seen


@pytest.mark.parametrize(("answer", "code"), [("y", 0), ("n", 1)])
def test_who_offers_is_asked_on_a_terminal(make: Make, answer: str, code: int) -> None:
    """He sees words and a code to scan, then the name and the four words of the device, and says yes or no."""
    alpha, beta = make("alpha"), make("beta")
    pid, terminal = on_a_terminal(alpha, "pair")
    try:
        shown = read_until(terminal, "Waiting (Ctrl-C")
        assert "\u2588" in shown, "a code to scan"
        words = shown.partition("sd join ")[2].partition("\r\n")[0]
        joining = beta.begin("join", *words.split())
        asked = read_until(terminal, "[y/N]")
        assert "beta" in asked
        assert " ".join(beta.device("beta")["words"]) in asked
        os.write(terminal, f"{answer}\n".encode())
        out, err = joining.communicate(timeout=PROGRAM_S)
        assert joining.returncode == code, out + err
        assert " ".join(alpha.device("alpha")["words"]) in out
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == code
    finally:
        os.close(terminal)
    assert len(alpha.devices()) == len(beta.devices()) == (2 if answer == "y" else 1)
    if answer == "n":
        assert "refused" in one_line(err, "sd: ")


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_words_serve_no_more_once_nobody_shows_them(make: Make, how: signal.Signals) -> None:
    """Ctrl-C ends the offer at once, and it ends by itself when the program was killed."""
    alpha, beta = make("alpha"), make("beta")
    with alpha.offering() as offer:
        os.kill(offer.process.pid, how)
        offer.process.wait(PROGRAM_S)
        assert offer.process.returncode == (130 if how == signal.SIGINT else -how)
        if how == signal.SIGKILL:
            eventually(
                lambda: alpha.sync()["port"] and alpha.offering().__enter__().close() is None, "it has ended", 30
            )
        said = beta.sd_fails("join", "--yes", offer.ticket)
        assert "these words do not serve there" in said or "nobody answers" in said
    assert len(alpha.devices()) == 1


# -- what is said when it comes to nothing -----------------------------------------------------------------------------


def test_slips_are_named_before_anybody_is_asked(make: Make) -> None:
    """A word that is none, too few, words that do not belong together, half a ticket, an address that is none."""
    alpha = make("alpha")
    words = OTHER_WORDS.split()
    for typed, said in (
        ([*words[:3], "yearr", *words[4:]], "word 4, 'yearr', is not in the list; did you mean"),
        (words[:11], "has 12 words; these are 11"),
        ([words[1], words[0], *words[2:]], "do not belong together"),
        (["sdpair1abcdefgh"], "damaged or not whole"),
        (["--at", "nowhere", *words], "has no port"),
    ):
        assert said in alpha.sd_fails("join", "--yes", *typed, code=2), typed
    done = alpha.typed("\n", "join", "-")
    assert (done.returncode, done.stderr) == (2, "sd: no words came on standard input\n")


def test_who_is_not_mounted_is_told_to_mount(make: Make) -> None:
    alpha = make("alpha")
    alpha.unmount()
    for command in (("pair",), ("join", *OTHER_WORDS.split())):
        assert "sdmount MOUNTPOINT" in alpha.sd_fails(*command, code=2)


def test_five_wrong_tries_burn_the_words(make: Make) -> None:
    """The right ones do not serve after that. A try is one device with other words at the right place."""
    alpha, beta = make("alpha"), make("beta")
    with alpha.offering() as offer:
        place = f"{alpha.node.address}:{alpha.port}"
        for _ in range(5):
            said = beta.sd_fails("join", "--yes", "--at", place, *OTHER_WORDS.split(), code=1)
            assert "these words do not serve there (any more); run `sd pair` there for new ones" in said
        assert "too many tries with other words; run `sd pair`" in offer.fails()
        said = beta.sd_fails("join", "--yes", "--at", place, *offer.words.split(), code=1)
        assert "nobody answers" in said  # a device alone listens to nobody
    assert len(alpha.devices()) == len(beta.devices()) == 1


def test_nobody_with_these_words(make: Make) -> None:
    alpha = make("alpha")
    said = alpha.sd_fails("join", "--yes", *OTHER_WORDS.split(), code=1)
    assert "nobody with these words was found" in said
    assert "--at HOST:PORT" in said


def test_one_device_does_not_join_itself_nor_twice(make: Make) -> None:
    alpha, beta = make("alpha"), make("beta")
    with alpha.offering() as offer:
        assert "this very device" in alpha.sd_fails("join", "--yes", *offer.words.split(), code=2)
        assert "another pairing is under way here" in alpha.sd_fails("pair", code=1)
        beta.join(offer)
    before = alpha.devices()
    with alpha.offering() as offer:
        assert "members of one library already" in beta.sd_fails("join", "--yes", *offer.words.split(), code=1)
        assert "members of one library already" in offer.fails()
    assert [one["id"] for one in alpha.devices()] == [one["id"] for one in before]
    meet(alpha, beta)


def test_two_libraries_of_one_device_are_no_two_devices(make: Make) -> None:
    """Both run with one key, so neither can be the other's member; both sides say so."""
    alpha = make("alpha")
    other = alpha.base / "other"
    alpha.extra_mounts.append(other)
    alpha.run("fusefs.sdmount", "--data-dir", alpha.data, "--library", "Other", "--", other, check=True)
    offer = Offer(alpha.begin("--library", "Library", "pair", "--yes", "--json"))
    try:
        said = alpha.sd_fails("--library", "Other", "join", "--yes", *offer.words.split(), code=1)
        assert "this very device, with another library" in said
        assert "this very device, with another library" in offer.fails()
    finally:
        offer.close()


def test_two_libraries_that_have_devices_stay_two(make: Make) -> None:
    """Neither can give way; both sides say so, and nothing is changed."""
    alpha, beta, gamma, delta = (make(name) for name in ("alpha", "beta", "gamma", "delta"))
    pair(alpha, beta)
    pair(gamma, delta)
    with alpha.offering() as offer:
        assert "neither can give way" in gamma.sd_fails("join", "--yes", *offer.words.split(), code=1)
        assert "neither can give way" in offer.fails()
    assert alpha.library_id == beta.library_id != gamma.library_id == delta.library_id
    assert len(alpha.devices()) == len(gamma.devices()) == 2


def test_a_third_device_joins_by_any_member_and_knows_all(make: Make) -> None:
    """Whose library it is does not depend on who shows the words."""
    alpha, beta, gamma = (make(name) for name in ("alpha", "beta", "gamma"))
    pair(alpha, beta)
    library = alpha.library_id
    with gamma.offering() as offer:  # the new one shows them
        beta.join(offer)
    assert gamma.library_id == library
    meet(gamma, alpha)
    assert alpha.device("gamma")["by"] == ["beta", "alpha"]


# -- what is secret ----------------------------------------------------------------------------------------------------


def test_words_are_nowhere_but_on_the_screen(make: Make) -> None:
    """Not in logs, events, files of the library, or in what the process says of itself."""
    alpha, beta = make("alpha"), make("beta")
    with alpha.offering() as offer:
        done = beta.typed(f"{offer.words}\n", "join", "--yes", "-")
        assert done.returncode == 0
        offer.finish()
    beta.wait_synced()
    few = " ".join(offer.words.split()[:3])
    for device in (alpha, beta):
        texts = [device.log(), device.sd("sync", "events"), (device.mnt / ".vdfs" / "status.json").read_text()]
        texts += [path.read_bytes().decode(errors="replace") for path in device.data.rglob("*") if path.is_file()]
        for text in texts:
            assert few not in text
            assert offer.ticket[:40] not in text
