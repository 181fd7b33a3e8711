"""Where compiled kernels are kept between processes, and when they are out of date.

Numba keeps machine code per function, type and processor (name and features), so one
directory serves many machines: code for a processor with AMX is never loaded on one without.
But it only notices edits of the file a function stands in, although it compiles the functions of other
files into it. Here a function's stamp covers its file and all kernel files that
one imports, directly or not, and the versions of Numba and llvmlite.

The directory is, in this order, ``KARAT24_CACHE_DIR``, ``NUMBA_CACHE_DIR``, ``__pycache__``
beside the kernels, the user's cache directory, and one that vanishes with the process:
the first that can be written. Importing this module installs it, for the files of
``karat24.refimpl.kernels`` only; ``refimpl/kernels/__init__.py`` does so before any kernel.
"""

from __future__ import annotations

import functools
import hashlib
import logging
import os
import re
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import llvmlite
import numba
from numba.core import caching

VARIABLE = "KARAT24_CACHE_DIR"

_KERNELS = Path(__file__).resolve().parent.parent
_IMPORT = re.compile(r"^\s*from karat24\.refimpl\.kernels([\w.]*) import (\([^)]*\)|.*)$", re.MULTILINE)
_NAME = re.compile(r"\w+")
_LOG = logging.getLogger(__name__)


def source_stamp(source: Path, root: Path = _KERNELS) -> str:
    """Digest of a kernel file, of every kernel file it depends on, and of the compiler's versions.

    ``root`` is the folder that stands for the package ``karat24.refimpl.kernels``.
    """
    digest = hashlib.sha256(f"numba {numba.__version__} llvmlite {llvmlite.__version__}".encode())
    for path in sorted(_with_imports(source, root)):
        digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def _with_imports(source: Path, root: Path) -> set[Path]:
    """The file and all files of the kernels that it imports, directly or not."""
    found, waiting = {source}, [source]
    while waiting:
        for path in _imported_files(waiting.pop(), root):
            if path not in found and path.is_file():
                found.add(path)
                waiting.append(path)
    return found


def _imported_files(source: Path, root: Path) -> Iterator[Path]:
    """The files that the file's imports may mean: a module, or modules of a package."""
    for package, members in _IMPORT.findall(source.read_text(encoding="utf-8")):
        place = root.joinpath(*package.split("."))
        if not place.is_dir():
            yield place.with_suffix(".py")
        else:
            for name in _NAME.findall(members):
                yield place / f"{name}.py"


@functools.cache
def cache_directory() -> Path:
    """The directory compiled kernels are kept in."""
    for path in _candidates():
        try:
            path.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=path).close()
        except OSError as error:
            _LOG.info("compiled kernels cannot be kept in %s: %s", path, error)
            continue
        return path
    return Path(_temporary_directory().name)


def _candidates() -> Iterator[Path]:
    forced = os.environ.get(VARIABLE) or os.environ.get("NUMBA_CACHE_DIR")
    if forced:
        # Checkouts that share a directory must not overwrite one another's code all the time.
        yield Path(forced) / f"karat24-{hashlib.sha256(str(_KERNELS).encode()).hexdigest()[:16]}"
    yield _KERNELS / "__pycache__"
    yield _user_cache() / "karat24" / hashlib.sha256(str(_KERNELS).encode()).hexdigest()[:16]


def _user_cache() -> Path:
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")


@functools.cache
def _temporary_directory() -> tempfile.TemporaryDirectory[str]:
    # Never a directory others could have filled: what is loaded from a cache is run.
    _LOG.warning("compiled kernels can be kept nowhere; set %s to a writable directory", VARIABLE)
    return tempfile.TemporaryDirectory(prefix="karat24-kernels-")


class KernelCacheLocator:
    """Tells Numba where it keeps the compiled code of functions in the kernels' files."""

    def __init__(self, source: Path, line: int) -> None:
        self._source, self._line = source, line

    @classmethod
    def from_function(cls, function: Callable[..., Any], source: str) -> KernelCacheLocator | None:
        """A locator for a function of ``karat24.refimpl.kernels``; None for any other function."""
        path = Path(source).resolve()
        if _KERNELS not in path.parents or not path.is_file():
            return None
        return cls(path, function.__code__.co_firstlineno)

    def ensure_cache_path(self) -> None:
        """Makes the directory."""
        cache_directory().mkdir(parents=True, exist_ok=True)

    def get_cache_path(self) -> str:
        """The directory."""
        return str(cache_directory())

    def get_source_stamp(self) -> str:
        """What must be unchanged for the code to be used."""
        return _stamp_once(self._source)

    def get_disambiguator(self) -> str:
        """A part of an index file's name: functions of one name differ in it, and so do their versions.

        Numba compares stamps only after it has unpickled the types of an index, which fails for a type that
        has moved to another file since. With the stamp in its name, an outdated index is never opened.
        """
        folders = self._source.relative_to(_KERNELS).parent.parts
        return "-".join([*folders, str(self._line), self.get_source_stamp()[:12]])


@functools.cache
def _stamp_once(source: Path) -> str:
    """The stamp when the process started: what it runs is what it imported then."""
    return source_stamp(source)


def is_compiled(function: Any, kinds: tuple[Any, ...]) -> bool:
    """Whether the code of ``function`` for these types of arguments is in this process or the directory.

    True for every function where Numba keeps its caches in a way unknown here.
    """
    if kinds in function.overloads:
        return True
    try:
        key = function._cache._index_key(kinds, function.targetctx.codegen())
        return key in _kept_overloads(function._cache._cache_file)
    except AttributeError:
        return True


@functools.cache
def _kept_overloads(file: Any) -> Mapping[Any, str]:
    """What the directory held of a function when it was first asked for: reading an index takes 1 ms."""
    overloads: Mapping[Any, str] = file._load_index()
    return overloads


def forget_what_was_kept() -> None:
    """Looks into the directory again: another process may have written to it."""
    _kept_overloads.cache_clear()


_TOKEN = os.urandom(4).hex()
"""Together with a process's number it names the process among all that ever write to the directory."""


def _name_data_by_process() -> None:
    """Makes processes that write at once write files of their own.

    Numba numbers the files of a function's codes from 1 on. Two processes that compile two codes of one
    function at once would both write number 1, and the index that is written last may name a file that holds
    the other's code: wrong sums, kept for every later process. With the process in a file's name an index
    names what its own writer wrote; entries that it loses are compiled again.
    """
    file = getattr(caching, "IndexDataCacheFile", None)
    numbered = getattr(file, "_data_name", None)
    if file is None or numbered is None:
        _LOG.warning(
            "numba %s names its files another way; do not compile in two processes", numba.__version__
        )
        return

    def named(self: Any, number: int) -> str:
        name: str = numbered(self, number)
        if self._cache_path != str(cache_directory()):
            return name
        return f"{name.removesuffix('.nbc')}-{os.getpid():x}{_TOKEN}.nbc"

    file._data_name = named


def _pass_over_unreadable_indices() -> None:
    """Makes an index that cannot be read count as empty: its codes are compiled again, and it is written
    anew.

    The stamp in its name says nothing of the types in it where a function takes arguments of any types, as
    the caller of packed arguments does: an index from before a type moved to another file names a module that
    is gone. A damaged file cannot be read either.
    """
    file = getattr(caching, "IndexDataCacheFile", None)
    loaded = getattr(file, "_load_index", None)
    if file is None or loaded is None:
        return

    def readable(self: Any) -> Mapping[Any, str]:
        try:
            overloads: Mapping[Any, str] = loaded(self)
        except Exception as error:
            # Unpickling raises anything.
            if self._cache_path != str(cache_directory()):
                raise
            _LOG.info("%s cannot be read: %s", self._index_path, error)
            return {}
        return overloads

    file._load_index = readable


def _install() -> None:
    implementation = getattr(caching, "CacheImpl", None) or getattr(caching, "_CacheImpl", None)
    locators = getattr(implementation, "_locator_classes", None)
    if not isinstance(locators, list):
        _LOG.warning("numba %s keeps its caches another way; its own rules apply", numba.__version__)
    elif KernelCacheLocator not in locators:
        locators.insert(0, KernelCacheLocator)
        _name_data_by_process()
        _pass_over_unreadable_indices()


_install()
