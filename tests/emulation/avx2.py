"""Runs a command of this project as a processor with AVX2 and without AVX512 or VNNI would, at full speed.

    python tests/emulation/avx2.py setup                 once, from the environment that has the packages
    python tests/emulation/avx2.py python -m pytest      as that environment's python, on "another" processor

Needs an x86-64 Linux machine with gcc and objdump (binutils). ``setup`` makes an environment with copies of
the native libraries that ask the processor what it can do, and puts a breakpoint in place of each ``cpuid``
and ``xgetbv`` of theirs; ``avx2.c``, loaded first, answers there without AVX512, VNNI and AMX. Everything
else runs as it is, so that whole test suites do. Where KARAT24_TFLITE_PYTHON names an interpreter, its
libraries are treated likewise. AVX2_HOME: where everything lies (default ~/.cache/karat24-avx2).
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).resolve().parent
HOME = Path(os.environ.get("AVX2_HOME", Path.home() / ".cache" / "karat24-avx2"))
ANSWERS = HOME / "avx2.so"
PACKAGES = (
    "numpy",
    "numpy.libs",
    "llvmlite",
    "onnxruntime",
    "ai_edge_litert",
    "tflite_runtime",
    "tflite_micro",
)
"""Folders of packages whose libraries choose instructions by the processor."""

BREAKPOINT = 0xCC
ASKED = {"cpuid": bytes([0x0F, 0xA2]), "xgetbv": bytes([0x0F, 0x01, 0xD0])}
_INSTRUCTION = re.compile(r"\s*([0-9a-f]+):\s+(cpuid|xgetbv)\b")
_LOADED = re.compile(r"^\s*LOAD\s+off\s+(0x\w+) vaddr (0x\w+).*\n\s*filesz (0x\w+)", re.MULTILINE)


def setup() -> None:
    """Makes the environments, the library that answers, and says what was replaced."""
    HOME.mkdir(parents=True, exist_ok=True)
    subprocess.run(
        ["gcc", "-O2", "-shared", "-fPIC", "-Wall", "-Wextra", "-o", ANSWERS, HERE / "avx2.c"], check=True
    )
    mirror(sys.executable, HOME / "venv")
    other = os.environ.get("KARAT24_TFLITE_PYTHON")
    if other:
        mirror(other, HOME / "tflite")


def mirror(python: str, folder: Path) -> None:
    """Makes an environment that has all of ``python``'s packages, with native libraries of its own."""
    asked = "import sys; print(sys._base_executable, *sys.path, sep='\\n')"
    answer = subprocess.run([python, "-c", asked], check=True, capture_output=True, text=True).stdout
    base, *paths = answer.splitlines()
    places = [Path(path) for path in dict.fromkeys(paths) if path.endswith("site-packages")]
    subprocess.run([base, "-m", "venv", "--clear", "--without-pip", folder], check=True)
    (own,) = folder.glob("lib/python*/site-packages")
    for place, name in ((place, name) for place in places for name in PACKAGES):
        if (place / name).is_dir() and not (own / name).exists():
            shutil.copytree(place / name, own / name, symlinks=True)
    for library in sorted(own.rglob("*.so*")):
        if library.is_file() and not library.is_symlink():
            count = replace_questions(library)
            if count:
                sys.stdout.write(f"{folder.name}: {library.relative_to(own)}: {count} instructions\n")
    added = "".join(f"import site; site.addsitedir({str(place)!r})\n" for place in places)
    (own / "zz_mirrored.pth").write_text(added, encoding="utf-8")
    # Before any package, and in child processes that inherit no variable.
    load = f"import ctypes; ctypes.CDLL({str(ANSWERS)!r})\n"
    (own / "00_answers.pth").write_text(load, encoding="utf-8")


def replace_questions(library: Path) -> int:
    """Puts breakpoints in place of what asks the processor; returns how many."""
    headers = subprocess.run(["objdump", "-p", library], check=True, capture_output=True, text=True).stdout
    segments = [[int(word, 16) for word in found] for found in _LOADED.findall(headers)]
    content = bytearray(library.read_bytes())
    found = list(questions(library))
    for address, name in found:
        at = next(
            address - virtual + offset for offset, virtual, size in segments if 0 <= address - virtual < size
        )
        if content[at : at + len(ASKED[name])] != ASKED[name]:
            raise SystemExit(f"{library}: objdump found {name} at {address:#x}, where something else is")
        content[at] = BREAKPOINT
    if found:
        library.write_bytes(content)
    return len(found)


def questions(library: Path) -> Iterator[tuple[int, str]]:
    """Address and name of each instruction that asks the processor what it can do."""
    command = ["objdump", "--disassemble", "--no-show-raw-insn", str(library)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, errors="replace") as process:
        assert process.stdout is not None
        for line in process.stdout:
            if found := _INSTRUCTION.match(line):
                yield int(found[1], 16), found[2]
    if process.returncode:
        raise SystemExit(f"objdump cannot read {library}")


def run(arguments: list[str]) -> None:
    """Becomes the mirrored interpreter."""
    if not ANSWERS.exists():
        raise SystemExit(f"nothing lies in {HOME}: run `{Path(__file__).name} setup` first")
    added = {
        "KARAT24_CACHE_DIR": os.environ.get("KARAT24_CACHE_DIR", str(HOME / "compiled")),
        "ATEN_CPU_CAPABILITY": "avx2",  # PyTorch's own switches, for its libraries are not copied
        "ONEDNN_MAX_CPU_ISA": "AVX2",
    }
    if (HOME / "tflite").is_dir():
        added["KARAT24_TFLITE_PYTHON"] = str(HOME / "tflite" / "bin" / "python")
    python = str(HOME / "venv" / "bin" / "python")
    os.execve(python, [python, *arguments], {**os.environ, **added})


def main() -> None:
    match sys.argv[1:]:
        case ["setup"]:
            setup()
        case ["python", *arguments]:
            run(arguments)
        case _:
            raise SystemExit(__doc__)


if __name__ == "__main__":
    main()
