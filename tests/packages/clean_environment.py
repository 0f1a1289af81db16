"""What a newcomer has: a distribution built from what git tracks, an empty environment, an empty folder and home."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import venv
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
SOURCES = ("pyproject.toml", "README.md", "LICENSE", "engines", "service", "ui", "bench", "protos")


def build_wheel(project: str, folder: Path) -> Path:
    """The wheel of the project in this folder of the repository, built from a copy of its tracked and new files."""
    sources = folder / "sources"
    if not sources.exists():
        sources.mkdir(parents=True)
        listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", *SOURCES]
        files = subprocess.run(listed, cwd=ROOT, check=True, capture_output=True).stdout
        command = ["xargs", "-0", "cp", "--parents", "-t", str(sources)]
        subprocess.run(command, cwd=ROOT, check=True, input=files)
    built = folder / f"wheel-{project.replace('.', 'server')}"
    options = ("--quiet", "--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", str(built))
    run(sys.executable, "-m", "pip", "wheel", *options, f"./{project}", cwd=sources)
    (wheel,) = built.iterdir()
    return wheel


def run(*command: object, cwd: Path | None = None, env: dict[str, str] | None = None, status: int | None = 0) -> str:
    """Runs a command that must end with `status`, any if None; returns what it printed."""
    given = [str(part) for part in command]
    ended = subprocess.run(given, cwd=cwd, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert status in (None, ended.returncode), f"{given} ended with {ended.returncode}:\n{ended.stdout}"
    return ended.stdout


def find_python(version: str) -> str | None:
    """The path of this version's interpreter on this machine, if it has one: on the PATH, or one of pyenv's."""
    name = f"python{version}"
    found = [*filter(None, [shutil.which(name)]), *Path.home().glob(f".pyenv/versions/{version}.*/bin/{name}")]
    works = (str(each) for each in found if subprocess.run([each, "-c", ""], capture_output=True).returncode == 0)
    return next(works, None)  # a shim of pyenv's fails if its version is not chosen


@dataclass(frozen=True)
class Newcomer:
    """An environment with a folder and a home, all empty at first."""

    place: Path

    @classmethod
    def arrive(cls, place: Path, python: str | None = None) -> Newcomer:
        """With the Python that runs the tests, or with another one's command."""
        if python is None:
            venv.create(place / "environment", with_pip=True)
        else:
            run(python, "-m", "venv", place / "environment")
        for folder in ("folder", "home"):
            (place / folder).mkdir()
        return cls(place)

    @property
    def folder(self) -> Path:
        return self.place / "folder"

    @property
    def variables(self) -> dict[str, str]:
        """Those of a login: none of the tests' own, but what pip needs to find its index."""
        kept = {name: text for name, text in os.environ.items() if name.startswith(("PIP_", "SSL_", "http", "HTTP"))}
        return {**kept, "HOME": str(self.place / "home"), "PATH": f"{self.command('')}:/usr/bin:/bin"}

    def command(self, name: str) -> Path:
        return self.place / "environment/bin" / name

    def run(self, name: str, *arguments: object, status: int | None = 0) -> str:
        """Runs a command of the environment in the folder."""
        return run(self.command(name), *arguments, cwd=self.folder, env=self.variables, status=status)

    def install(self, *packages: object) -> None:
        self.run("python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *packages)

    def borrow(self) -> None:
        """Makes the libraries of the tests' environment importable, after the newcomer's own. Nothing of ours is among
        them: a clone is installed by a finder, which only a folder that is listed by Python itself starts."""
        (own,) = (self.place / "environment/lib").glob("python3*/site-packages")
        found = [path for path in sys.path if path.endswith("site-packages")]
        (own / "borrowed.pth").write_text("\n".join(found) + "\n")
