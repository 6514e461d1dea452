"""The function app's package: built for real, then run by itself on the Python that the platform runs it on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from scripts.azure import package
from scripts.azure.package import PACKAGES, PackageError, build, find_python, install
from shared.reports.formats import FORMATS

# -I: neither the checkout, nor the environment, nor the packages installed here can help.
LOAD = """
import json, sys, time
root, packages = sys.argv[1:]
sys.path[:0] = [root, packages]
start = time.process_time()
import function_app
seconds = time.process_time() - start
found = [function.get_function_name() for function in function_app.app.get_functions()]
files = {name: getattr(module, "__file__", None) or "" for name, module in sys.modules.items()}
outside = [name for name, file in files.items() if "/site-packages/" in file and not file.startswith(packages)]
print(json.dumps({"functions": sorted(found), "seconds": seconds, "outside": outside}))
"""

# What is imported only when it is needed. The statement comes from the checkout, behind everything of the package.
USE = """
import json, sys
from io import BytesIO
root, packages, checkout = sys.argv[1:]
sys.path[:0] = [root, packages]
sys.path.append(checkout)
from functions.dashboard_page.page import dashboard_page
from shared.reports.formats import FORMATS
from shared.telemetry import otlp, spans
from tests.support.statements import every_charge, statement_of
statement, charges = statement_of(every_charge())
sizes = {"dashboard": len(dashboard_page().html)}
for name, form in FORMATS.items():
    form.write(statement, iter(charges), out := BytesIO())
    sizes[name] = len(out.getvalue())
import azure.monitor.opentelemetry, opentelemetry.sdk.trace
from opentelemetry.exporter.otlp.proto.http import _log_exporter, metric_exporter, trace_exporter
files = {name: getattr(module, "__file__", None) or "" for name, module in sys.modules.items()}
elsewhere = [name for name, file in files.items() if file.startswith(checkout) and not name.startswith("tests.")]
outside = [name for name, file in files.items() if "/site-packages/" in file and not file.startswith(packages)]
print(json.dumps({"sizes": sizes, "outside": elsewhere + outside}))
"""


@pytest.fixture(scope="module")
def python312() -> Path:
    """The interpreter that compiles packages."""
    try:
        return find_python()
    except PackageError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def unpacked(python312: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package, with all its packages, as the platform mounts it."""
    folder = tmp_path_factory.mktemp("package")
    install(folder / "packages", python=python312)
    build(folder / "app.zip", python=python312, packages=folder / "packages")
    with zipfile.ZipFile(folder / "app.zip") as archive:
        archive.extractall(folder / "wwwroot")
    return folder / "wwwroot"


def load(python: Path, root: Path) -> dict[str, object]:
    """What a fresh interpreter finds in the package."""
    command = [str(python), "-I", "-c", LOAD, str(root), str(root / PACKAGES)]
    env = {**os.environ, "TOLLKEEPER_ENV": "development"}
    done = subprocess.run(command, env=env, capture_output=True, text=True, cwd="/", check=True, timeout=120)
    return dict(json.loads(done.stdout))


def test_the_package_runs_by_itself(unpacked: Path, python312: Path) -> None:
    """Every function of the checkout is found in the package, by nothing but the package."""
    found = load(python312, unpacked)
    assert found["functions"] == load(Path(sys.executable), package.ROOT)["functions"]
    assert found["outside"] == []


def test_it_writes_every_form_of_a_statement_and_the_dashboard(unpacked: Path, python312: Path) -> None:
    """Templates, scripts and the packages that load late are inside: no start misses them, the bill would."""
    command = [str(python312), "-I", "-B", "-c", USE, str(unpacked), str(unpacked / PACKAGES), str(package.ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, cwd="/", check=True, timeout=120)
    found = json.loads(done.stdout)
    assert set(found["sizes"]) == {"dashboard", *FORMATS}
    assert min(found["sizes"].values()) > 1_000
    assert found["outside"] == []


def test_its_bytecode_is_what_runs(unpacked: Path, python312: Path) -> None:
    """With its sources made unreadable to Python, the package still loads: nothing is compiled at a cold start."""
    sources = [unpacked / "function_app.py", *(unpacked / "functions").glob("*.py"), *unpacked.glob("shared/**/*.py")]
    kept = {path: path.read_bytes() for path in sources}
    try:
        for path in sources:
            path.write_text("this is no Python\n")
        assert load(python312, unpacked)["functions"]
    finally:
        for path, body in kept.items():
            path.write_bytes(body)


def test_it_holds_what_runs_and_nothing_else(unpacked: Path) -> None:
    """No tests, settings, documents or templates of the checkout travel along."""
    assert {path.name for path in unpacked.iterdir()} == {
        "__pycache__",
        "function_app.py",
        "functions",
        "host.json",
        "shared",
        ".python_packages",
    }
    ours = [path for folder in ("functions", "shared") for path in (unpacked / folder).rglob("*") if path.is_file()]
    assert {path.suffix for path in ours} == {".py", ".pyc", ".lua", ".json", ".js", ".css", ".html"}
    assert not list(unpacked.rglob("local.settings*.json"))


def test_binary_packages_are_those_of_the_platform(unpacked: Path) -> None:
    """Extension modules are for CPython 3.12 on x86-64 Linux, whatever machine built the package."""
    found = [path for path in (unpacked / PACKAGES).rglob("*.so") if ".libs/" not in str(path)]
    modules = {
        path.name.split(".", 1)[1] for path in found if not path.name.startswith("lib")
    }  # no libraries of theirs
    assert modules
    assert modules <= {"cpython-312-x86_64-linux-gnu.so", "abi3.so"}


def test_the_same_sources_give_the_same_bytes(python312: Path, tmp_path: Path) -> None:
    """A digest names a package: built twice, in different folders, at different times."""
    digests = {build(tmp_path / name / "app.zip", python=python312) for name in ("once", "twice")}
    assert len(digests) == 1


def test_another_python_is_refused_with_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Bytecode of another version would be ignored silently, so the build does not start."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path))
    monkeypatch.setenv("PACKAGE_PYTHON", str(tmp_path / "missing"))
    monkeypatch.setattr(package, "PYTHON", (3, 99))
    with pytest.raises(PackageError, match="PACKAGE_PYTHON"):
        find_python()


def test_packages_that_cannot_be_had_stop_the_build(
    python312: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """pip's own reason is shown, and the command fails without leaving a package."""
    monkeypatch.setattr(package, "ROOT", tmp_path)
    (tmp_path / "requirements.txt").write_text("tollkeeper-has-no-such-package==1.0\n")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    target = tmp_path / "app.zip"
    assert package.main([str(target)]) == 1
    assert not target.exists()
