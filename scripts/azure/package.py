"""Build the package of the function app: its code, its packages for Linux, and bytecode for both.

    python -m scripts.azure.package [FILE]        # default: .local/package/tollkeeper.zip

The same sources give the same bytes, so a digest names a package. Bytecode is in it because the package is mounted
read-only: without it every new worker compiles everything again. It is compiled by Python 3.12, which the app runs on,
and marked unchecked: times in a zip say nothing about when a file changed.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
DEFAULT_FILE = ROOT / ".local" / "package" / "tollkeeper.zip"
PYTHON = (3, 12)  # the runtime version of the function app in infra/
SOURCES = ("function_app.py", "host.json", "functions", "shared")
PACKAGES = ".python_packages/lib/site-packages"  # where the platform's worker looks for them
_MOUNT = "/home/site/wwwroot"  # what tracebacks name
_PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64")
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest time a zip can hold


class PackageError(Exception):
    """The package cannot be built here. The message says what is missing."""


def find_python() -> Path:
    """A Python 3.12: PACKAGE_PYTHON, this one, `python3.12` on the path, or pyenv's. Raises PackageError."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    candidates = [
        os.environ.get("PACKAGE_PYTHON"),
        sys.executable,
        shutil.which("python3.12"),
        *sorted(map(str, pyenv.glob("versions/3.12*/bin/python3.12"))),
    ]
    for candidate in filter(None, candidates):
        if _version(candidate) == PYTHON:
            return Path(candidate)
    raise PackageError(
        "Python 3.12 is needed to compile the package, because the function app runs on it: install it "
        "(python3.12 on the path, or by pyenv), or name it in PACKAGE_PYTHON"
    )


def build(target: Path, *, python: Path, packages: Path | None = None) -> str:
    """Write the package; its SHA-256. `packages` are those that `install` made; None leaves them out."""
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder)
        for name in SOURCES:
            _copy(ROOT / name, tree / name)
        if packages is not None:
            _copy(packages, tree / PACKAGES)
        _compile(tree, python)
        target.parent.mkdir(parents=True, exist_ok=True)
        unfinished = target.with_suffix(".unfinished")
        _zip(tree, unfinished)
        unfinished.replace(target)
    return hashlib.sha256(target.read_bytes()).hexdigest()


def install(folder: Path, *, python: Path) -> None:
    """The packages of requirements.txt for the function app's platform, whatever this machine is.

    pip runs in Python 3.12 itself: it would judge conditions like `python_version < "3.13"` by the Python it runs in.
    Raises PackageError.
    """
    command = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input"]
    command += ["--root-user-action", "ignore", "--no-compile", "--only-binary", ":all:", "--implementation", "cp"]
    command += ["--python-version", ".".join(map(str, PYTHON))]
    for platform in _PLATFORMS:
        command += ["--platform", platform]
    command += ["--target", str(folder), "--requirement", str(ROOT / "requirements.txt")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - no shell, our own words
    if done.returncode:
        raise PackageError(f"pip cannot install the packages:\n{done.stderr.strip()}")
    shutil.rmtree(folder / "bin", ignore_errors=True)  # commands of packages name this machine's interpreter


def _version(python: str) -> tuple[int, ...] | None:
    """What the interpreter says of itself: a file of pyenv named python3.12 may fail, or be another version."""
    command = [python, "-c", "import sys; print(*sys.version_info[:2])"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)  # noqa: S603 - ditto
    except OSError:
        return None
    return tuple(map(int, answer.stdout.split())) if answer.returncode == 0 else None


def _copy(source: Path, target: Path) -> None:
    if source.is_dir():
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
    else:
        shutil.copyfile(source, target)


def _compile(tree: Path, python: Path) -> None:
    command = [str(python), "-I", "-m", "compileall", "-q", "--invalidation-mode", "unchecked-hash"]
    command += ["-s", str(tree), "-p", _MOUNT, str(tree)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - ditto
    if done.returncode:
        raise PackageError(f"Python {'.'.join(map(str, PYTHON))} cannot compile the package:\n{done.stdout.strip()}")


def _zip(tree: Path, target: Path) -> None:
    with zipfile.ZipFile(target, "w") as archive:
        for path in sorted(path for path in tree.rglob("*") if path.is_file()):
            entry = zipfile.ZipInfo(path.relative_to(tree).as_posix(), _EPOCH)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = 0o100644 << 16
            archive.writestr(entry, path.read_bytes())


def main(arguments: list[str]) -> int:
    """Build it, and say what came out."""
    target = Path(arguments[0]) if arguments else DEFAULT_FILE
    try:
        python = find_python()
        sys.stdout.write(f"package: packages of requirements.txt for Python 3.12 on Linux, compiled by {python}\n")
        with tempfile.TemporaryDirectory() as folder:
            install(Path(folder), python=python)
            digest = build(target, python=python, packages=Path(folder))
    except PackageError as error:
        sys.stderr.write(f"package: {error}\n")
        return 1
    sys.stdout.write(f"package: {target} ({target.stat().st_size / 1e6:.1f} MB, sha256 {digest})\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
