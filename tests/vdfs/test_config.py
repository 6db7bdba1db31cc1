"""Where things lie: flag, environment and XDG in that order, and which library is meant."""

import os
from pathlib import Path

import pytest

from index.model.errors import Invalid
from vdfs.base.config import DEFAULT_LIBRARY, load_config


@pytest.fixture
def env(monkeypatch, tmp_path):
    """A home and nothing else: variables are what a test sets."""
    for name in list(os.environ):
        if name.startswith(("XDG_", "SDMOUNT_DATA")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    return monkeypatch


def make_libraries(data_dir: Path, *names: str) -> None:
    for name in names:
        (data_dir / "libraries" / f"{name}.sdlibrary").mkdir(parents=True)


# -- directories -------------------------------------------------------------------------------------------------------


def test_without_a_word_it_is_the_home_directory(env, tmp_path):
    """The defaults of the XDG specification; the runtime directory of a system without one is the user's own."""
    config = load_config()
    home = tmp_path / "home"
    assert config.data_dir == home / ".local/share/sdmount"
    assert config.state_dir == home / ".local/state/sdmount"
    assert config.runtime_dir == tmp_path / f"tmp/sdmount-{os.getuid()}"
    assert config.log_path == config.state_dir / "sdmount.log"
    assert config.libraries_dir == config.data_dir / "libraries"


def test_xdg_directories_are_followed(env, tmp_path):
    """Each by its own variable."""
    (tmp_path / "run").mkdir()
    env.setenv("XDG_DATA_HOME", str(tmp_path / "d"))
    env.setenv("XDG_STATE_HOME", str(tmp_path / "s"))
    env.setenv("XDG_RUNTIME_DIR", str(tmp_path / "run"))
    config = load_config()
    assert (config.data_dir, config.state_dir) == (tmp_path / "d/sdmount", tmp_path / "s/sdmount")
    assert config.runtime_dir == tmp_path / "run/sdmount"


@pytest.mark.parametrize("variable", ["XDG_DATA_HOME", "XDG_STATE_HOME", "XDG_RUNTIME_DIR"])
@pytest.mark.parametrize("value", ["", "relative/path"])
def test_a_relative_xdg_directory_is_not_one(env, variable, value):
    """The specification says to ignore it: it would mean another place in each folder."""
    plain = load_config()
    env.setenv(variable, value)
    assert plain == load_config()


def test_a_runtime_directory_that_is_not_there_is_not_used(env, tmp_path):
    """As after `su`, whose environment may name somebody else's."""
    plain = load_config()
    env.setenv("XDG_RUNTIME_DIR", str(tmp_path / "absent"))
    assert plain == load_config()


def test_the_flag_wins_over_the_variable_and_that_over_xdg(env, tmp_path):
    """A chosen data directory keeps the logs in itself, so two of them never meet."""
    env.setenv("XDG_DATA_HOME", str(tmp_path / "xdg"))
    env.setenv("SDMOUNT_DATA_DIR", str(tmp_path / "variable"))
    assert load_config().data_dir == tmp_path / "variable"
    config = load_config(str(tmp_path / "flag"))
    assert config.data_dir == tmp_path / "flag"
    assert config.state_dir.is_relative_to(tmp_path / "flag")


def test_a_relative_data_directory_is_made_absolute(env, tmp_path):
    """The server works in another folder than the one who started it."""
    env.chdir(tmp_path)
    assert load_config("./a/../b").data_dir == tmp_path / "b"


def test_a_config_is_a_value(env):
    """Nobody moves the directories of a running library."""
    with pytest.raises(AttributeError):
        load_config().data_dir = Path("/elsewhere")  # type: ignore[misc]


# -- libraries ---------------------------------------------------------------------------------------------------------


def test_what_is_no_text_names_no_library_and_no_data_directory(env):
    """It is handed about as text; mount points and locations may have any name."""
    with pytest.raises(Invalid, match="no UTF-8"):
        load_config().library_dir("\udcff")
    with pytest.raises(Invalid, match="--data-dir"):
        load_config("/tmp/\udcff")


def test_without_a_home_the_data_directory_must_be_given(env, monkeypatch):
    """A number without a line in the list of users, as in a container."""
    for variable in ("HOME", "XDG_DATA_HOME", "XDG_STATE_HOME"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    with pytest.raises(Invalid, match="--data-dir"):
        load_config()
    assert load_config("/somewhere").data_dir == Path("/somewhere")


@pytest.mark.parametrize("name", ["Library", "My Photos", "Ünïcode", "a.b", "-dash", "x" * 200, "a\nb"])
def test_a_plain_file_name_is_the_name_of_a_library(env, name):
    """Whatever its letters."""
    config = load_config()
    directory = config.library_dir(name)
    assert directory.parent == config.libraries_dir
    assert directory.name == name + ".sdlibrary"
    assert config.choose_library(name) == name


@pytest.mark.parametrize("name", ["a/b", "..", ".", ".hidden", "a\0b", "x" * 201, "ä" * 101, "/"])
def test_what_is_no_plain_file_name_is_refused(env, name):
    """One line that names it; nothing outside the libraries' directory is ever meant."""
    for ask in (load_config().library_dir, load_config().choose_library):
        with pytest.raises(Invalid) as caught:
            ask(name)
        assert "cannot be the name of a library" in str(caught.value)
        assert "\n" not in str(caught.value)


def test_the_empty_name_is_no_library(env):
    """Asked for by nobody it is the default, as a directory it is refused."""
    assert load_config().choose_library("") == DEFAULT_LIBRARY
    with pytest.raises(Invalid):
        load_config().library_dir("")


def test_the_only_library_is_meant_when_none_is_named(env):
    """And the default one when there is none yet."""
    config = load_config()
    assert config.choose_library(None) == DEFAULT_LIBRARY
    make_libraries(config.data_dir, "Photos")
    assert config.library_names() == ["Photos"]
    assert config.choose_library(None) == "Photos"


def test_of_several_the_default_one_is_meant_or_one_must_be_named(env):
    """The error lists them and says how."""
    config = load_config()
    make_libraries(config.data_dir, "Photos", "Work")
    with pytest.raises(Invalid, match=r"Photos, Work.*--library NAME"):
        config.choose_library(None)
    assert config.choose_library("Work") == "Work"
    make_libraries(config.data_dir, DEFAULT_LIBRARY)
    assert config.choose_library(None) == DEFAULT_LIBRARY


def test_what_is_no_library_is_not_listed(env):
    """Other files beside them; names are sorted and only the last suffix is taken off."""
    config = load_config()
    make_libraries(config.data_dir, "b", "a.sdlibrary")
    (config.libraries_dir / "notes.txt").touch()
    assert config.library_names() == ["a.sdlibrary", "b"]


def test_a_libraries_directory_that_cannot_be_listed_has_none(env):
    """Nothing yet, or a file in its place: opening says what is wrong, choosing does not."""
    config = load_config()
    config.data_dir.mkdir(parents=True)
    config.libraries_dir.touch()
    assert config.library_names() == []
